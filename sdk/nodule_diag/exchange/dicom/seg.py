"""Segmentation: the centroid of each segment's voxels (PS3.3, A.51 and C.8.20)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from nodule_diag.exchange.dicom.objects import integer, item, items, numbers, text
from nodule_diag.exchange.outlines import Shape, combined, scattered
from nodule_diag.exchange.position import XYZ, Mark
from nodule_diag.exchange.refusals import UnreadableError

MAX_FRAME_PIXELS = 4096 * 4096
NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian)
Pixels = npt.NDArray[np.unsignedinteger]


class Piece(NamedTuple):
    """The part of one segment in one frame.

    Attributes:
        segment: The segment's number.
        frame: The frame's number, from 1.
        shape: Its place, with its area.
    """

    segment: int
    frame: int
    shape: Shape


def marks_of(data: Dataset) -> tuple[list[Mark], list[str]]:
    """The segments that have voxels, in the order of their numbers, and warnings.

    Raises:
        UnreadableError: when the file contradicts itself, or has no positions in the patient's space.
    """
    found: defaultdict[int, list[Shape]] = defaultdict(list)
    for piece in pieces_of(data):
        found[piece.segment].append(piece.shape)
    labels = labels_of(data)
    marks: list[Mark] = []
    warnings: list[str] = []
    for number, label in sorted(labels.items()):
        if not found[number]:
            warnings.append(f"segment {number} ({label}) is empty and was passed over")
            continue
        xyz, apart = centre(found[number])
        if apart:
            warnings.append(f"segment {number} ({label}) is of parts that lie apart: its centroid is in none of them")
        frame = text(data, "FrameOfReferenceUID")
        marks.append(Mark(f"segment {number}", xyz, label or None, frame=frame))
    if unknown := [number for number, shapes in found.items() if shapes and number not in labels]:
        raise UnreadableError(f"its frames show segment {min(unknown)}, which is not among its segments")
    return marks, warnings


def labels_of(data: Dataset) -> dict[int, str]:
    """The label of each segment; 0 is a label map's background."""
    numbered = [(integer(one, "SegmentNumber"), one) for one in items(data, "SegmentSequence")]
    labels = {number: text(one, "TrackingID") or text(one, "SegmentLabel") for number, one in numbered if number}
    if len(labels) < sum(number != 0 for number, _ in numbered):
        raise UnreadableError("a segment number stands twice")
    return labels


def centre(shapes: Iterable[Shape]) -> tuple[XYZ, bool]:
    """The centroid of frames, LPS mm, and whether it lies in none of them."""
    every = list(shapes)
    centroid = combined(every)
    x, y, z = centroid.tolist()
    return (x, y, z), scattered(every, centroid)


def pieces_of(data: Dataset) -> Iterator[Piece]:
    """The part of each segment in each frame, one after the other.

    Raises:
        UnreadableError: when the file contradicts itself.
    """
    shared = item(data, "SharedFunctionalGroupsSequence")
    frames = items(data, "PerFrameFunctionalGroupsSequence")
    if len(frames) != integer(data, "NumberOfFrames", 1):
        raise UnreadableError(f"it has {data.get('NumberOfFrames')} frames, and describes {len(frames)}")
    kind = text(data, "SegmentationType")
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise UnreadableError(f"its type {kind!r} is unknown")
    half = integer(data, "MaximumFractionalValue") / 2 if kind == "FRACTIONAL" else 0.5
    for number, (own, pixels) in enumerate(zip(frames, _frames(data), strict=True), start=1):
        groups = (own, shared)
        if kind == "LABELMAP":
            shown = {int(value): pixels == value for value in np.unique(pixels[pixels > 0])}
        else:
            segment = integer(_group(groups, "SegmentIdentificationSequence"), "ReferencedSegmentNumber")
            shown = {segment: pixels >= half}
        for segment, mask in shown.items():
            if mask.any():
                yield Piece(segment, number, _shape(mask, groups))


def _group(groups: tuple[Dataset, Dataset], keyword: str) -> Dataset:
    """A functional group of a frame: its own, or the group that all frames share."""
    return next((found for one in groups if len(found := item(one, keyword))), Dataset())


def _shape(mask: npt.NDArray[np.bool_], groups: tuple[Dataset, Dataset]) -> Shape:
    """The centroid of a frame's pixels and their area."""
    first = np.array(numbers(_group(groups, "PlanePositionSequence"), "ImagePositionPatient", 3))
    axes = numbers(_group(groups, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    row_mm, column_mm = numbers(_group(groups, "PixelMeasuresSequence"), "PixelSpacing", 2)
    if row_mm <= 0 or column_mm <= 0:
        raise UnreadableError(f"its PixelSpacing is {row_mm:g}, {column_mm:g}")
    rows, columns = np.nonzero(mask)
    along_row, along_column = np.array(axes[:3]), np.array(axes[3:])
    centroid = first + columns.mean() * column_mm * along_row + rows.mean() * row_mm * along_column
    return Shape(centroid, len(rows) * row_mm * column_mm, 2)


def _frames(data: Dataset) -> Iterator[Pixels]:
    """(rows, columns) of each frame."""
    rows, columns, count = (integer(data, word) for word in ("Rows", "Columns", "NumberOfFrames"))
    bits = integer(data, "BitsAllocated")
    if not 0 < rows * columns <= MAX_FRAME_PIXELS or bits not in (1, 8, 16) or integer(data, "SamplesPerPixel", 1) != 1:
        raise UnreadableError(f"its frames are of {rows} x {columns} pixels of {bits} bits")
    if data.file_meta.TransferSyntaxUID not in NATIVE:
        yield from iter_pixels(data, raw=True)
        return
    pixels = np.frombuffer(data.PixelData, np.uint8)
    needed = -(-rows * columns * count * bits // 8)
    if len(pixels) < needed:
        raise UnreadableError(f"its pixels are {len(pixels)} bytes instead of {needed}")
    size = rows * columns
    for start in range(0, size * count, size):
        if bits == 1:  # packed without regard to frames, the first pixel in the lowest bit: PS3.5, 8.1.1
            packed = pixels[start // 8 : -(-(start + size) // 8)]
            flat = np.unpackbits(packed, bitorder="little")[start % 8 : start % 8 + size]
        else:
            flat = pixels[start * bits // 8 : (start + size) * bits // 8].view("<u1" if bits == 8 else "<u2")
        yield flat.reshape(rows, columns)
