"""Enhanced and Legacy Converted Enhanced CT: every frame of a file as a separate slice.

The geometry of a frame, its rescale and its identification are in functional groups, shared by all frames or its own
(DICOM PS3.3, C.7.6.16). Its pixels are a view of the file's pixels. Compressed pixels become a file of one frame, in
memory, so that the decoder for slices also decodes frames.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from nodule_diag.ct.dicom.bounds import NOT_PARSED, inflate
from nodule_diag.ct.dicom.elements import Elements
from nodule_diag.ct.dicom.encapsulation import fragments_of, items_of
from nodule_diag.ct.dicom.files import DicomFile
from nodule_diag.ct.dicom.headers import SliceHeader
from nodule_diag.ct.limits import MAX_FILE_BYTES, MAX_VOXELS
from nodule_diag.ct.refusals import undecodable
from nodule_diag.errors import CTError

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
FRAME_SEPARATOR = ", frame "
"""Separates the name of a file and the number of a frame in the file."""
_HINT = "export the series again, or convert it to classic DICOM of one slice a file"


@dataclass(frozen=True)
class FrameFile(DicomFile):
    """One frame, as a separate file.

    Attributes:
        pixels: The pixels of all frames.
        index: Its number, from 0.
    """

    pixels: _Pixels | None = None
    index: int = 0

    @property
    def size(self) -> int:
        """Size in bytes."""
        return (self.pixels.size if self.pixels else 0) or len(self._data)

    def part(self, start: int, count: int, *, check: bool = True) -> memoryview:  # noqa: ARG002 - a file's signature
        """``count`` bytes from ``start``; fewer where the frame ends."""
        return memoryview(self._data)[start : start + count]

    @property
    def _data(self) -> bytes | memoryview:
        return self.pixels.frame(self.index) if self.pixels else b""


class _Pixels:
    """The pixel data of a file of many frames; they are inflated or searched once, when first needed."""

    def __init__(self, header: SliceHeader, name: str) -> None:
        self._header, self._name = header, name
        self._bytes = header.pixel_bytes // header.frames
        self.size = self._bytes if header.native else 0  # known without reading
        self._lock = threading.Lock()
        self._all: memoryview | list[bytes] | None = None

    def frame(self, index: int) -> bytes | memoryview:
        """The bytes of one frame; an item and its end where the frames are compressed."""
        header, start = self._header, index * self._bytes
        if header.native and header.deflated_from is None and header.file.member is None:
            return header.file.part(header.pixels_start + start, self._bytes)
        with self._lock:
            if self._all is None:
                self._all = self._load()
        return self._all[index] if isinstance(self._all, list) else self._all[start : start + self._bytes]

    def _load(self) -> memoryview | list[bytes]:
        header, file = self._header, self._header.file
        if header.native and header.deflated_from is None:
            return file.part(header.pixels_start, header.pixel_bytes)
        try:
            if header.native:
                end = header.pixels_start + header.pixel_bytes
                data = file.part(header.deflated_from or 0, file.size)
                return memoryview(inflate(data, end))[header.pixels_start :]
        except zlib.error as error:
            raise undecodable(self._name, error) from error
        data = file.part(header.pixels_start, file.size)
        return list(map(items_of, fragments_of(data, header.frames, name=self._name)))


def frames_of(header: SliceHeader, elements: Elements, name: str) -> tuple[SliceHeader, ...]:
    """Each frame's header.

    Args:
        header: The file's header.
        elements: The elements of this header.
        name: The file's name, for messages.

    Raises:
        CTError: ``ct-multi-frame`` or ``ct-too-large``.
    """
    if header.pixel_bytes > 4 * MAX_VOXELS or header.file.size > MAX_FILE_BYTES:
        raise _refused(name, f"its {header.frames:,} frames are more than any CT has", "ct-too-large")
    if header.native and header.pixels_length not in (header.pixel_bytes, header.pixel_bytes + header.pixel_bytes % 2):
        why = f"its header promises {header.pixel_bytes:,} bytes of voxels, and there are {header.pixels_length:,}"
        raise _refused(name, why, "ct-damaged")
    try:
        found = elements.data_set(_SHARED, _PER_FRAME)
        shared = next(iter(found.get(_SHARED) or []), Dataset())
        per_frame = list(found.get(_PER_FRAME) or [])
        if len(per_frame) != header.frames or header.bits_allocated % 8:
            why = f"it has {header.frames} frames and says of {len(per_frame)} of them where they lie"
            raise _refused(name, why, "ct-multi-frame")
        pixels = _Pixels(header, name)
        return tuple(_frame(header, shared, own, pixels, index) for index, own in enumerate(per_frame))
    except NOT_PARSED as error:
        if isinstance(error, CTError):
            raise
        raise _refused(name, "its functional groups cannot be read", "ct-damaged") from error


def _refused(name: str, why: str, code: str) -> CTError:
    return CTError(f"{name} is a multi-frame image that cannot be used: {why}", code=code, hint=_HINT)


def _frame(header: SliceHeader, shared: Dataset, own: Dataset, pixels: _Pixels, index: int) -> SliceHeader:
    def group(name: str) -> Dataset:
        """A functional group: the frame's own, or else the shared one."""
        return next(chain(own.get(name) or [], shared.get(name) or []), Dataset())

    content, rescale = group("FrameContentSequence"), group("PixelValueTransformationSequence")
    measures = group("PixelMeasuresSequence")
    acquisition = content.get("FrameAcquisitionNumber")
    moment = str(content.get("FrameAcquisitionDateTime") or content.get("FrameReferenceDateTime") or "")
    kernel = group("CTReconstructionSequence").get("ConvolutionKernel") or ""
    words = group("CTImageFrameTypeSequence").get("FrameType") or header.image_type
    frame = replace(
        header,
        frames=1,
        frame=index + 1,
        position_mm=_numbers(group("PlanePositionSequence").get("ImagePositionPatient"), 3),
        orientation=_numbers(group("PlaneOrientationSequence").get("ImageOrientationPatient"), 6),
        pixel_spacing_mm=_numbers(measures.get("PixelSpacing"), 2),
        thickness_mm=float(measures.get("SliceThickness") or header.thickness_mm),
        slope=float(rescale.get("RescaleSlope") or header.slope),
        intercept=float(rescale.get("RescaleIntercept", header.intercept)),
        rescale_type=str(rescale.get("RescaleType") or header.rescale_type),
        acquisition=header.acquisition if acquisition is None else int(acquisition),
        kernel=kernel if isinstance(kernel, str) else "\\".join(kernel),
        image_type=tuple(str(word).upper() for word in words),
        time=moment[8:14] or header.time,
        phase=tuple(_phase(content)),
        pixels_start=0,
    )
    length, syntax = header.pixels_length, header.transfer_syntax
    if header.native:
        length = header.pixel_bytes // header.frames
        syntax = syntax if header.deflated_from is None else ExplicitVRLittleEndian
    place = header.file
    file = FrameFile(f"{place.name}{FRAME_SEPARATOR}{index + 1}", place.path, place.member, pixels, index)
    return replace(frame, file=file, transfer_syntax=syntax, deflated_from=None, pixels_length=length)


def _numbers(value: Iterable[Any] | None, count: int) -> tuple[float, ...] | None:
    """``count`` numbers; None where there are more, fewer or none."""
    numbers = tuple(float(number) for number in value or ())
    return numbers if len(numbers) == count else None


def _phase(content: Dataset) -> Iterator[str]:
    """Properties that distinguish frames at one place, in addition to those of classic images."""
    for word in ("TemporalPositionIndex", "TemporalPositionTimeOffset", "StackID"):
        yield str(content.get(word, ""))
