"""RT Structure Set: the centroid of each ROI's contours (PS3.3, A.19 and C.8.8.6)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from nodule_diag.exchange.dicom.objects import integer, item, items, numbers, text
from nodule_diag.exchange.outlines import Shape, Vectors, combined, scattered, shape_of, without_inner
from nodule_diag.exchange.position import Mark
from nodule_diag.exchange.refusals import UnreadableError

KINDS = {
    "POINT": "POINT",
    "OPEN_PLANAR": "POLYLINE",
    "OPEN_NONPLANAR": "POLYLINE",
    "CLOSED_PLANAR": "POLYGON",
    "CLOSEDPLANAR_XOR": "POLYGON",
}
"""Contour Geometric Types (C.8.8.6.1) as graphic types."""


def marks_of(data: Dataset) -> tuple[list[Mark], list[str]]:
    """The ROIs that have contours, and warnings.

    Raises:
        UnreadableError: when the file contradicts itself.
    """
    drawn: dict[int, Dataset] = {}
    for roi in items(data, "ROIContourSequence"):
        number = integer(roi, "ReferencedROINumber")
        if drawn.setdefault(number, roi) is not roi:
            raise UnreadableError(f"the contours of ROI {number} stand twice")
    marks: list[Mark] = []
    warnings: list[str] = []
    for roi in items(data, "StructureSetROISequence"):
        number = integer(roi, "ROINumber")
        name = text(roi, "ROIName")
        place = f"ROI {number}"
        shapes, flawed = _shapes(drawn.pop(number, Dataset()))
        if not shapes:
            warnings.append(f"{place} ({name}) has no contours and was passed over")
            continue
        if flawed:
            warnings.append(f"{place} ({name}) has closed contours of one or two points, which have no area")
        centroid = combined(shapes)
        if scattered(shapes, centroid):
            warnings.append(f"{place} ({name}) is of parts that lie apart: its centroid is in none of them")
        x, y, z = centroid.tolist()
        frame = text(roi, "ReferencedFrameOfReferenceUID") or text(
            item(data, "ReferencedFrameOfReferenceSequence"), "FrameOfReferenceUID"
        )
        marks.append(Mark(place, (x, y, z), name or None, frame=frame))
    if drawn:
        raise UnreadableError(f"there are contours of ROI {min(drawn)}, which is not among its ROIs")
    return marks, warnings


def _shapes(roi: Dataset) -> tuple[list[Shape], bool]:
    """The shapes of an ROI's contours, and whether a closed contour has too few points for an area."""
    shapes: list[Shape] = []
    flawed = False
    cutting: list[Vectors] = []
    for contour in items(roi, "ContourSequence"):
        kind = text(contour, "ContourGeometricType")
        if kind not in KINDS:
            raise UnreadableError(f"its contour type {kind!r} is unknown")
        flat = numbers(contour, "ContourData")
        if len(flat) % 3:
            raise UnreadableError(f"a contour of {len(flat)} numbers, which are no points in space")
        points = np.reshape(flat, (-1, 3))
        few = KINDS[kind] == "POLYGON" and len(points) < 3
        flawed |= few
        shape = shape_of("POLYLINE" if few else KINDS[kind], points)
        if kind == "CLOSEDPLANAR_XOR" and not few:
            cutting.append(points)
        else:
            shapes.append(shape)
    return shapes + without_inner(cutting), flawed
