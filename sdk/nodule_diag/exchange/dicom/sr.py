"""Structured reports: measurement groups of TID 1500, and findings of TID 4100, Chest CAD (PS3.16).

A finding is placed by its item named Center; else by its graphics; else by the segments of a segmentation that the
finding refers to, in the same folder; else by the graphics of its measurements or of its own findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from nodule_diag.exchange.dicom import seg
from nodule_diag.exchange.dicom.objects import integer, item, items, numbers, parsed, text
from nodule_diag.exchange.outlines import Shape, combined, shape_of
from nodule_diag.exchange.position import Mark, Region
from nodule_diag.exchange.refusals import UnreadableError
from nodule_diag.tables import read_bytes

MEASUREMENT_GROUP, COMPOSITE_FEATURE, SINGLE_IMAGE_FINDING = "125007", "111015", "111059"
FINDINGS = {MEASUREMENT_GROUP: "measurement group", COMPOSITE_FEATURE: "feature", SINGLE_IMAGE_FINDING: "finding"}
CENTER, TRACKING_IDENTIFIER = "111010", "112039"
RENDERING_INTENT, NOT_FOR_PRESENTATION = "111056", "111152"
MAX_NEIGHBOURS = 2000
"""Files of the report's folder that are searched for a segmentation."""
_HEAD_BYTES = 4096
"""The part of a file that holds its SOPInstanceUID, in group 2."""


def marks_of(data: Dataset, path: Path) -> tuple[list[Mark], list[str]]:
    """The findings that have a place, and warnings.

    Raises:
        UnreadableError: when the report contradicts itself, or a segmentation that it needs is not beside it.
    """
    return _Report(data, path).marks()


class _Report:
    def __init__(self, root: Dataset, path: Path) -> None:
        self.root = root
        self.path = path
        self.segmentations: dict[str, tuple[Dataset, list[seg.Piece]]] = {}

    def marks(self) -> tuple[list[Mark], list[str]]:
        marks: list[Mark] = []
        warnings: list[str] = []
        for number, finding in enumerate(self._findings(self.root), start=1):
            place = f"{FINDINGS[_concept(finding)]} {number}"
            inside = list(self._children(finding))
            if any(_concept(one) == RENDERING_INTENT and _code(one) == NOT_FOR_PRESENTATION for one in inside):
                warnings.append(f"{place} is not for presentation and was passed over")
                continue
            names = (text(one, "TextValue") for one in inside if _concept(one) == TRACKING_IDENTIFIER)
            name = next((found for found in names if found), None)
            regions, frames = self._placed(finding)
            if len(frames) > 1:
                raise UnreadableError(f"{place} is in {len(frames)} frames of reference")
            if not regions:
                warnings.append(f"{place}{f' ({name})' if name else ''} has no place and was passed over")
                continue
            frame = next(iter(frames), "")
            if any(region.image for region in regions):
                marks.append(Mark(place, None, name, frame=frame, regions=tuple(regions)))
            else:
                x, y, z = combined([shape_of(region.kind, region.points) for region in regions]).tolist()
                marks.append(Mark(place, (x, y, z), name, frame=frame))
        return marks, warnings

    def _findings(self, parent: Dataset) -> Iterator[Dataset]:
        """The outermost findings below a content item."""
        for child in items(parent, "ContentSequence"):
            if _concept(child) in FINDINGS:
                yield child
            else:
                yield from self._findings(child)

    def _children(self, parent: Dataset) -> Iterator[Dataset]:
        """The content items below one; references are replaced by the items that they name."""
        for child in items(parent, "ContentSequence"):
            if (path := child.get("ReferencedContentItemIdentifier")) is None:
                yield child
                continue
            found = self.root
            for number in ([path] if isinstance(path, int) else list(path))[1:]:
                below = items(found, "ContentSequence")
                if not 1 <= number <= len(below):
                    raise UnreadableError(f"it refers to its content item {path}, which is not there")
                found = below[number - 1]
            yield found

    def _placed(self, finding: Dataset, *, inner: bool = False) -> tuple[list[Region], set[str]]:
        """The graphics that place a finding, and their frames of reference."""
        inside = list(self._children(finding))
        graphics = [one for one in inside if text(one, "ValueType") in ("SCOORD", "SCOORD3D")]
        if centers := [one for one in graphics if _concept(one) == CENTER]:
            return self._regions(centers)
        if graphics:
            return self._regions(graphics)
        if segments := [one for one in inside if _segments(one)]:
            return self._segmented(segments)
        measured = [
            below
            for one in inside
            if text(one, "ValueType") == "NUM"
            for below in self._children(one)
            if text(below, "ValueType") in ("SCOORD", "SCOORD3D")
        ]
        if measured or inner:
            return self._regions(measured)
        regions, frames = [], set()
        for one in inside:
            if _concept(one) in FINDINGS:
                found, of = self._placed(one, inner=True)
                regions += found
                frames |= of
        return regions, frames

    def _regions(self, graphics: list[Dataset]) -> tuple[list[Region], set[str]]:
        """Graphics in space, or on the image that they were selected from."""
        regions: list[Region] = []
        frames: set[str] = set()
        for graphic in graphics:
            kind, flat = text(graphic, "GraphicType"), numbers(graphic, "GraphicData")
            in_space = text(graphic, "ValueType") == "SCOORD3D"
            count = 3 if in_space else 2
            if len(flat) % count:
                raise UnreadableError(f"a graphic of {len(flat)} numbers, which are no points")
            points = np.reshape(flat, (-1, count))
            if in_space:
                frames |= {text(graphic, "ReferencedFrameOfReferenceUID")} - {""}
                regions.append(Region(kind, points))
                continue
            images = [one for one in self._children(graphic) if text(one, "ValueType") == "IMAGE"]
            if len(images) != 1:
                raise UnreadableError(f"a graphic was selected from {len(images)} images")
            reference = item(images[0], "ReferencedSOPSequence")
            shown = text(reference, "ReferencedSOPInstanceUID"), integer(reference, "ReferencedFrameNumber", 1)
            regions.append(Region(kind, points, shown))
        return regions, frames

    def _segmented(self, images: list[Dataset]) -> tuple[list[Region], set[str]]:
        """The centroid of segments, or of some of their frames, as a point."""
        shapes: list[Shape] = []
        frames: set[str] = set()
        for image in images:
            reference = item(image, "ReferencedSOPSequence")
            data, pieces = self._segmentation(text(reference, "ReferencedSOPInstanceUID"))
            segments, only = _segments(image), _listed(reference, "ReferencedFrameNumber")
            chosen = [one for one in pieces if one.segment in segments and (not only or one.frame in only)]
            shapes += [one.shape for one in chosen]
            frames |= {text(data, "FrameOfReferenceUID")} - {""}
        return [Region("POINT", combined(shapes)[None])] if shapes else [], frames

    def _segmentation(self, wanted: str) -> tuple[Dataset, list[seg.Piece]]:
        if wanted not in self.segmentations:
            for file in islice(sorted(self.path.parent.iterdir()), MAX_NEIGHBOURS):
                if file.is_file() and _names(file, wanted):
                    data = parsed(file, read_bytes(file))
                    if text(data, "SOPInstanceUID") == wanted:
                        self.segmentations[wanted] = data, list(seg.pieces_of(data))
                        break
            else:
                raise UnreadableError(f"it places nodules by the segmentation {wanted}, which is not in its folder")
        return self.segmentations[wanted]


def _names(file: Path, wanted: str) -> bool:
    """Whether the head of a file has a UID."""
    with file.open("rb") as opened:
        return wanted.encode() in opened.read(_HEAD_BYTES)


def _concept(content: Dataset) -> str:
    """The code of a content item's name, where it is one of DICOM's own."""
    return _code(content, "ConceptNameCodeSequence")


def _code(content: Dataset, keyword: str = "ConceptCodeSequence") -> str:
    coded = item(content, keyword)
    return text(coded, "CodeValue") if text(coded, "CodingSchemeDesignator") == "DCM" else ""


def _listed(reference: Dataset, keyword: str) -> set[int]:
    """One whole number or several."""
    return {int(number) for number in numbers(reference, keyword)} if reference.get(keyword) is not None else set()


def _segments(content: Dataset) -> set[int]:
    """The segments that an image reference names."""
    if text(content, "ValueType") != "IMAGE":
        return set()
    return _listed(item(content, "ReferencedSOPSequence"), "ReferencedSegmentNumber")
