"""The structure of a DICOM file, checked to the last byte before pydicom parses it.

pydicom accepts a value or a sequence that ends early, so a damaged report would have fewer nodules, without any
message.
"""

from __future__ import annotations

from struct import Struct

from pydicom import uid
from pydicom.datadict import dictionary_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from nodule_diag.exchange.refusals import UnreadableError

MAX_DEPTH = 64
"""Nested sequences; a report of TID 1500 has about ten."""
MAX_ELEMENTS = 3_000_000
"""Elements, including delimiters; a segmentation of 600 frames has 20,000."""

UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_VRS = {str(vr) for vr in VR}


class Structure:
    """Walks a data set.

    Args:
        data: The data set, without preamble and group 2.
        syntax: Its transfer syntax.
    """

    def __init__(self, data: bytes, syntax: str) -> None:
        self.data = data
        self.implicit = syntax == uid.ImplicitVRLittleEndian
        order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
        self._tag_length = Struct(f"{order}HHL").unpack_from
        self._short = Struct(f"{order}H").unpack_from
        self._long = Struct(f"{order}L").unpack_from
        self._left = MAX_ELEMENTS

    def check(self) -> None:
        """Walk the whole data set.

        Raises:
            UnreadableError: where a length does not fit, a tag is out of order, or there are too many elements.
        """
        self._elements(0, len(self.data), depth=0, implicit=self.implicit, delimited=False)

    def _header(self, at: int, end: int, *, implicit: bool) -> tuple[int, str, int, int]:
        """Tag, VR (empty for items), length and start of the value of the element at ``at``."""
        self._left -= 1
        if at + 8 > end or self._left < 0:
            raise UnreadableError("it ends inside an element" if self._left >= 0 else "it has too many elements")
        group, element, length = self._tag_length(self.data, at)
        tag = group << 16 | element
        if group == 0xFFFE:
            return tag, "", length, at + 8
        if implicit:
            try:
                vr = dictionary_VR(tag)
            except KeyError:
                vr = "UN"
            return tag, vr, length, at + 8
        vr = self.data[at + 4 : at + 6].decode("latin-1")
        if vr not in _VRS:
            raise UnreadableError(f"element ({group:04X},{element:04X}) has no type that DICOM knows")
        if vr not in EXPLICIT_VR_LENGTH_32:
            return tag, vr, self._short(self.data, at + 6)[0], at + 8
        if at + 12 > end:
            raise UnreadableError("it ends inside an element")
        return tag, vr, self._long(self.data, at + 8)[0], at + 12

    def _elements(self, at: int, end: int, *, depth: int, implicit: bool, delimited: bool) -> int:
        """Walk the elements of a data set or an item; returns the position after them."""
        if depth > MAX_DEPTH:
            raise UnreadableError(f"its sequences are more than {MAX_DEPTH} deep")
        before = -1
        while at < end:
            tag, vr, length, value = self._header(at, end, implicit=implicit)
            if tag == _ITEM_END and delimited:
                return value
            if tag <= before or not vr:
                raise UnreadableError(f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is out of order")
            before = tag
            if length == UNDEFINED and tag != _PIXEL_DATA and vr not in ("SQ", "UN"):
                raise UnreadableError(f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) has no length")
            if vr == "SQ" or (length == UNDEFINED and tag != _PIXEL_DATA):
                # A sequence of unknown type is implicit: PS3.5, 6.2.2.
                at = self._items(value, end, length, depth=depth + 1, implicit=implicit or vr == "UN", parsed=True)
            elif length == UNDEFINED:
                at = self._items(value, end, length, depth=depth + 1, implicit=implicit, parsed=False)
            else:
                at = value + length
                if at > end:
                    raise UnreadableError(f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is longer than what holds it")
        if delimited:
            raise UnreadableError("it ends inside a sequence")
        return at

    def _items(self, at: int, end: int, length: int, *, depth: int, implicit: bool, parsed: bool) -> int:
        """Walk the items of a sequence, or the fragments of compressed pixels (not ``parsed``)."""
        if length != UNDEFINED:
            if at + length > end:
                raise UnreadableError("a sequence is longer than what holds it")
            end = at + length
        while at < end:
            tag, _, item_length, value = self._header(at, end, implicit=True)
            if tag == _SEQUENCE_END and length == UNDEFINED:
                return value
            if tag != _ITEM or (item_length == UNDEFINED and not parsed):
                raise UnreadableError("a sequence holds what is not an item")
            stop = end if item_length == UNDEFINED else value + item_length
            if stop > end:
                raise UnreadableError("an item is longer than its sequence")
            if parsed:
                delimited = item_length == UNDEFINED
                at = self._elements(value, stop, depth=depth, implicit=implicit, delimited=delimited)
            else:
                at = stop
        if length == UNDEFINED:
            raise UnreadableError("it ends inside a sequence")
        return at
