"""The pixels of one DICOM slice in Hounsfield units.

Uncompressed pixels and run lengths are read with numpy. Code streams are decoded in a child process
(`nodule_diag.ct.dicom.decoding`), because a damaged code stream can have any effect on a decoder.
"""

from __future__ import annotations

import zlib
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom import uid

from nodule_diag.ct.dicom import decoding, run_lengths
from nodule_diag.ct.dicom.bounds import inflate
from nodule_diag.ct.dicom.code_stream import SYNTAXES, CodeStream, code_stream
from nodule_diag.ct.dicom.encapsulation import fragments_of
from nodule_diag.ct.dicom.headers import GE_BIG_ENDIAN_PIXELS, NATIVE, UNDEFINED_LENGTH, SliceHeader
from nodule_diag.ct.hounsfield import PADDING_FLOOR_HU
from nodule_diag.ct.limits import MAX_SLICE_BYTES
from nodule_diag.ct.refusals import damaged, truncated, undecodable
from nodule_diag.errors import CTError
from nodule_diag.process import ChildDiedError, ChildRefusedError, Children, NoChildError

ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"

DECODED: tuple[str, ...] = (*NATIVE, GE_BIG_ENDIAN_PIXELS, ENCAPSULATED_UNCOMPRESSED, uid.RLELossless, *SYNTAXES)
"""All transfer syntaxes that are read."""

_TAIL_BYTES = 16
"""Bytes that are checked after the pixels."""

_PIXEL_GROUP = 0x7FE0
_WHOLE_BYTES = (8, 16, 32)
_BIG_ENDIAN = (uid.ExplicitVRBigEndian, GE_BIG_ENDIAN_PIXELS)
_MOST_COMPRESSED, _MOST_COMPRESSED_MORE = 2, 2**20
"""No coding needs more than twice the bytes of the pixels plus a MiB."""

_DECODER_BYTES, _DECODER_BYTES_A_PIXEL = 2**28, 48
"""Memory for a decoder: 512 x 512 pixels of JPEG 2000 take 6 MiB."""

_SLICES_A_DECODER, _MOST_DECODERS = 32, 8
"""Starting a decoder takes as long as decoding 20 to 80 slices."""

_DENSEST_HU = 3000
"""Only metal is denser."""

_NO_FAULT = "Unsupported JPEG data precision"
"""GDCM prints this message for every 12-bit JPEG, because it tries its 8-bit decoder first."""


class Pixels(NamedTuple):
    """One slice.

    Attributes:
        hu: (rows, columns) HU, of an integer type while slope and intercept are whole numbers.
        lossy: Whether the compression is lossy.
    """

    hu: npt.NDArray[Any]
    lossy: bool


def decoders(threads: int, *, slices: int) -> Children:
    """The children that decode the slices of one CT; they are only started when needed."""
    at_most = min(threads, 1 + slices // _SLICES_A_DECODER, _MOST_DECODERS)
    return Children(f"{decoding.__name__}:{decoding.decoder.__name__}", at_most=at_most)


def hounsfield(header: SliceHeader, *, source: str, decoders: Children) -> Pixels:
    """Decode the one frame of a slice.

    Args:
        header: The slice's header.
        source: The folder or archive, for messages.
        decoders: The decoders for code streams.

    Raises:
        CTError: ``ct-truncated``, ``ct-damaged``, ``ct-too-large``, ``ct-transfer-syntax``; ``ct-decoder-died`` for a
            slice that ended a decoder, ``ct-no-decoder`` where none can be started.
    """
    name = f"{source}: {header.file.name}"
    _check(header, name)
    lossy = False
    if header.transfer_syntax in (*NATIVE, GE_BIG_ENDIAN_PIXELS):
        values = _plain(header, _native(header, name))
    else:
        frame = b"".join(fragments_of(_compressed(header), 1, name=name)[0])
        try:
            if header.transfer_syntax == uid.RLELossless:
                words = run_lengths.decode(frame, header.rows * header.columns, header.bits_allocated // 8)
                values = _plain(header, words.tobytes(), order="<")
            elif header.transfer_syntax == ENCAPSULATED_UNCOMPRESSED:
                _check_length(len(frame), header, name)
                values = _plain(header, frame)
            else:
                stream = code_stream(frame, header.transfer_syntax)
                values, lossy = _decoded(header, stream, decoders, name), stream.lossy
        except ValueError as error:
            if isinstance(error, CTError):
                raise
            raise damaged(name, str(error)) from error
    hu = _rescaled(_in_their_bits(values, header), header)
    return Pixels(_without_padding(hu, values, header), lossy)


def _check(header: SliceHeader, name: str) -> None:
    """Check that the header's values for the pixels are possible, before any memory is allocated."""
    if header.transfer_syntax not in DECODED:
        raise CTError(
            f"{name} is stored as {syntax_name(header.transfer_syntax)}, which is not read",
            code="ct-transfer-syntax",
            hint="export the series again, uncompressed",
        )
    if max(header.pixel_bytes, header.file.size) > MAX_SLICE_BYTES:
        raise CTError(
            f"{name} takes {max(header.pixel_bytes, header.file.size) / 2**20:,.0f} MiB, over the limit of"
            f" {MAX_SLICE_BYTES // 2**20} MiB for one DICOM slice",
            code="ct-too-large",
            hint="the header is damaged, or this is not a slice of a chest CT",
        )
    if header.bits_allocated not in _WHOLE_BYTES:
        raise _contradicts(name, f"a pixel takes {header.bits_allocated} bits, not {_WHOLE_BYTES}")
    if not 0 < header.bits_stored <= header.high_bit + 1 <= header.bits_allocated:
        raise _contradicts(name, f"bits up to {header.high_bit} of {header.bits_allocated} hold {header.bits_stored}")
    if not (isfinite(header.slope) and isfinite(header.intercept)):
        raise _contradicts(name, f"HU are {header.slope:g} times the stored value and {header.intercept:g}")


def syntax_name(syntax: str) -> str:
    """The usual name of a transfer syntax, and its UID."""
    known = uid.UID(syntax).name
    return syntax or "nothing" if known == syntax else f"{known} ({syntax})"


def _contradicts(name: str, says: str) -> CTError:
    return CTError(
        f"{name} has a header that says: {says}",
        code="ct-damaged",
        hint="the header is damaged; export the series again",
    )


def _native(header: SliceHeader, name: str) -> memoryview:
    """The bytes of uncompressed pixels."""
    if header.pixels_length == UNDEFINED_LENGTH:
        raise damaged(name, f"its pixels are in frames, which {syntax_name(header.transfer_syntax)} does not have")
    promised = header.pixel_bytes
    if header.deflated_from is None:
        data = header.file.part(header.pixels_start, promised + _TAIL_BYTES)
    else:
        deflated = header.file.part(header.deflated_from, header.file.size)
        most = header.pixels_start + promised + _TAIL_BYTES
        try:
            inflated = inflate(deflated, most)
        except zlib.error as error:
            raise undecodable(name, error) from error
        data = memoryview(inflated)[header.pixels_start :]
    if len(data) < promised:
        raise truncated(name, f"its header promises {promised:,} bytes of voxels, {len(data):,} could be read")
    _check_length(header.pixels_length, header, name)
    tail = bytes(data[header.pixels_length :])
    group = int.from_bytes(tail[:2], "big" if header.transfer_syntax == uid.ExplicitVRBigEndian else "little")
    if tail.strip(b"\0") and group <= _PIXEL_GROUP:
        raise damaged(name, "its pixels are followed by bytes that are no element: they were moved, or are more")
    return data[:promised]


def _check_length(length: int, header: SliceHeader, name: str) -> None:
    """Check that the pixels have the length that the header promises, plus one byte where this length is odd."""
    promised = header.pixel_bytes
    if length != promised + promised % 2 and length != promised:
        raise damaged(name, f"its header promises {promised:,} bytes of voxels, and there are {length:,}")


def _compressed(header: SliceHeader) -> memoryview:
    """The items of compressed pixels; no more of the file is read than they may take."""
    most = _MOST_COMPRESSED * header.pixel_bytes + _MOST_COMPRESSED_MORE
    return header.file.part(header.pixels_start, min(header.pixels_length, most))


def _plain(header: SliceHeader, data: memoryview | bytes, *, order: str | None = None) -> npt.NDArray[Any]:
    """(rows, columns) stored values."""
    order = order or (">" if header.transfer_syntax in _BIG_ENDIAN else "<")
    kind = np.dtype(f"{order}{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
    return np.frombuffer(data, kind, header.rows * header.columns).reshape(header.rows, header.columns)


def _in_their_bits(values: npt.NDArray[Any], header: SliceHeader) -> npt.NDArray[Any]:
    """Stored values without the unused bits around them, which may hold other data, such as an overlay."""
    unused = header.bits_allocated - header.bits_stored
    if not unused:
        return values
    # Shifting up and down clears the unused bits, and extends the sign.
    up = header.bits_allocated - 1 - header.high_bit
    return np.asarray(np.right_shift(np.left_shift(values, up), unused))


def _rescaled(values: npt.NDArray[Any], header: SliceHeader) -> npt.NDArray[Any]:
    """Slope times stored value plus intercept, in integers where both are whole numbers."""
    slope, intercept = header.slope, header.intercept
    if not (slope.is_integer() and intercept.is_integer() and max(abs(slope), abs(intercept)) < 2**15):
        return np.asarray(values * slope + intercept)
    if slope == 1 and intercept == 0 and values.dtype.kind == "i" and values.itemsize >= 2:  # where air fits in
        return values
    # 16 bits times 15, and 15 more, fit into 32.
    wide = values.astype(np.int32 if values.itemsize <= 2 else np.int64)
    return np.asarray(wide * int(slope) + int(intercept))


def _without_padding(hu: npt.NDArray[Any], values: npt.NDArray[Any], header: SliceHeader) -> npt.NDArray[Any]:
    """HU with air where the stored value is the header's padding (DICOM PS3.3, C.7.5.1.1.2).

    Padding below air needs no care. Padding that reads as tissue is left: some headers declare 0, which is water.
    """
    if header.padding is None or min(header.slope * end + header.intercept for end in header.padding) < _DENSEST_HU:
        return hu
    low, high = header.padding
    padded = (values >= low) & (values <= high)
    return np.where(padded, PADDING_FLOOR_HU, hu) if padded.any() else hu


def _decoded(header: SliceHeader, stream: CodeStream, decoders: Children, name: str) -> npt.NDArray[Any]:
    """(rows, columns) words as before compression."""
    _check_stream(header, stream)
    syntax = uid.UID(header.transfer_syntax).name
    pixels, item_bytes = header.rows * header.columns, 1 if stream.bits <= 8 else 2
    size = (header.rows, header.columns, stream.bits, stream.signed)
    request = decoding.REQUEST.pack(header.transfer_syntax.encode(), *size) + stream.data
    try:
        data, said = decoders.ask(
            request,
            memory_bytes=_DECODER_BYTES + _DECODER_BYTES_A_PIXEL * pixels,
            answer_bytes=pixels * item_bytes,
        )
    except ChildRefusedError as error:
        raise ValueError(f"its {syntax} pixels cannot be decoded ({_in_a_line(str(error))})") from error
    except ChildDiedError as error:
        raise CTError(
            f"{name} ended the program that decodes its {syntax} pixels: {error}",
            code="ct-decoder-died",
            hint="the slice is damaged; export the series again, uncompressed",
        ) from error
    except NoChildError as error:
        raise CTError(
            f"{name} holds {syntax} pixels, which cannot be decoded here: {error}",
            code="ct-no-decoder",
            hint="set NODULE_DIAG_PYTHON to the Python that has this package, or export the series uncompressed",
        ) from error
    faults = [line for line in said.splitlines() if line.strip() and not line.startswith(_NO_FAULT)]
    if faults or len(data) != pixels * item_bytes:
        raise ValueError(f"its {syntax} pixels are decoded with faults ({_in_a_line(faults[0] if faults else 'size')})")
    kind = "i" if stream.signed else "u"
    words = np.frombuffer(data, f"<{kind}{item_bytes}").astype(f"<{kind}{header.bits_allocated // 8}", copy=False)
    return words.view(f"<{'i' if header.signed else 'u'}{header.bits_allocated // 8}").reshape(
        header.rows, header.columns
    )


def _check_stream(header: SliceHeader, stream: CodeStream) -> None:
    """Check that the code stream holds the image that the header promises, with the same meaning of its bits."""
    if (stream.rows, stream.columns, stream.samples) != (header.rows, header.columns, 1):
        raise ValueError(
            f"its header promises {header.columns} x {header.rows} pixels, its code stream"
            f" {stream.columns} x {stream.rows} of {stream.samples}"
        )
    # A stream with fewer bits than are stored has no sign bit, and no unused bit to clear.
    fewer = stream.bits < header.high_bit + 1
    if not 1 <= stream.bits <= min(header.bits_allocated, 16) or (
        fewer and (header.bits_stored != header.high_bit + 1 or header.signed != stream.signed)
    ):
        sign = {False: "unsigned", True: "signed"}
        raise ValueError(
            f"its header promises {sign[header.signed]} values in {header.bits_stored} of {header.bits_allocated} bits"
            f" up to bit {header.high_bit}, its code stream {sign[stream.signed]} ones of {stream.bits} bits"
        )


def _in_a_line(text: str) -> str:
    """The last line of a library's output, for a message."""
    line = text.strip().rsplit("\n", 1)[-1].rsplit("): ", 1)[-1]
    return "".join(character if character.isprintable() else "?" for character in line)[:120]
