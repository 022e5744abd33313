"""Segmentation of a prediction's nodules (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset

from nodule_diag.dicom_objects import codes
from nodule_diag.dicom_objects.maker import CREATOR, Maker
from nodule_diag.dicom_objects.source import Frame, Source
from nodule_diag.results import Diagnosis


def segmentation(source: Source, diagnoses: Sequence[Diagnosis], *, by: Maker) -> Segmentation | None:
    """One binary segment per nodule, on the CT's own frames: the form that viewers draw in the right place.

    Each segment is made separately, from the frames that it touches, and joined to the others: all segments on all
    frames would take gigabytes.

    Returns:
        The object. A nodule that covers no pixel's centre has no segment, and the report says so. None when no nodule
        has a segment.
    """
    found = [(diagnosis, pixels) for diagnosis in diagnoses if (pixels := covered(diagnosis, source.frames))]
    if not found:
        return None
    parts = [
        _segment(source, diagnosis, pixels, whole=number == 0, by=by)
        for number, (diagnosis, pixels) in enumerate(found)
    ]
    made = _joined(parts) if len(parts) > 1 else parts[0]
    everywhere = np.concatenate([_numbered(pixels, source.frames[0]) for _, pixels in found])
    made.SegmentsOverlap = "YES" if len(np.unique(everywhere)) < len(everywhere) else "NO"
    made.SeriesDescription = "Lung nodules: segmentation"
    source.number_references(made)
    return made


_Pixels = dict[int, NDArray[np.intp]]
"""By index of a frame, which of its pixels a nodule covers, counted row by row."""


def covered(diagnosis: Diagnosis, frames: Sequence[Frame]) -> _Pixels:
    """Where a nodule covers centres of pixels; empty where it covers none."""
    found = {}
    for index, frame in enumerate(frames):
        down, across = part = frame.part_near(diagnosis.xyz_lps_mm)
        numbers = np.add.outer(np.arange(frame.rows)[down] * frame.columns, np.arange(frame.columns)[across]).ravel()
        if len(inside := numbers[diagnosis.segmentation.holds(frame.points_xyz_mm(part))]):
            found[index] = inside
    return found


def _numbered(pixels: _Pixels, frame: Frame) -> NDArray[np.intp]:
    """All pixels of a nodule, each by a number that no other pixel of the CT has."""
    return np.concatenate([index * frame.rows * frame.columns + inside for index, inside in pixels.items()])


def _segment(source: Source, diagnosis: Diagnosis, pixels: _Pixels, *, whole: bool, by: Maker) -> Segmentation:
    """One segment. With ``whole`` it refers to all slices; otherwise to those that it touches, if they are files."""
    whole |= len(source.headers) < len(source.frames)
    used = list(range(len(source.frames)) if whole else pixels)
    mask = np.zeros((len(used), source.frames[0].rows, source.frames[0].columns), np.uint8)
    for index, inside in pixels.items():
        mask[used.index(index)].flat[inside] = 1
    description = SegmentDescription(
        segment_number=1,
        segment_label=by.tracking_id(diagnosis),
        segmented_property_category=codes.ABNORMALITY,
        segmented_property_type=codes.NODULE,
        algorithm_type="AUTOMATIC",
        algorithm_identification=by.algorithm(),
        tracking_uid=by.tracking_uid(diagnosis),
        tracking_id=by.tracking_id(diagnosis),
        anatomic_regions=[codes.LUNG],
    )
    return Segmentation(
        source.headers if whole else [source.headers[index] for index in used],
        mask,
        "BINARY",
        [description],
        content_label="NODULES",
        content_description="Lung nodules, segmented",
        content_creator_name=CREATOR,
        **by.instance(0),
        **by.equipment(),
    )


def _joined(parts: Sequence[Segmentation]) -> Segmentation:
    """One segment each, on frames of one CT, as one object: the first of them, with the others in it."""
    made = parts[0]
    segments, frames, pixels, rest = [], [], [], np.zeros(0, np.uint8)
    for number, part in enumerate(parts, start=1):
        (segment,) = part.SegmentSequence
        segment.SegmentNumber = number
        segments.append(segment)
        for frame in part.PerFrameFunctionalGroupsSequence:
            identification = Dataset()
            identification.ReferencedSegmentNumber = number
            frame.SegmentIdentificationSequence = [identification]
            frames.append(frame)
        # A frame may end within a byte, and the next begins there (PS3.5 8.1.1).
        bits = np.unpackbits(
            np.frombuffer(part.PixelData, np.uint8),
            count=part.NumberOfFrames * made.Rows * made.Columns,
            bitorder="little",
        )
        bits = np.concatenate([rest, bits])
        end = len(bits) // 8 * 8
        pixels.append(np.packbits(bits[:end], bitorder="little").tobytes())
        rest = bits[end:]
    data = b"".join([*pixels, np.packbits(rest, bitorder="little").tobytes()])
    del made.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence
    made.pop("DimensionOrganizationType", None)  # "3D" is for one segment of even frames
    made.SegmentSequence, made.PerFrameFunctionalGroupsSequence = segments, frames
    made.NumberOfFrames, made.PixelData = len(frames), data + bytes(len(data) % 2)
    _number_places(made)
    return made


def _number_places(made: Segmentation) -> None:
    """Which segment each frame is of, and which place of the CT, in highdicom's order (PS3.3 C.7.6.17)."""
    (turned,) = made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    normal = np.cross(*np.reshape(np.array(turned.ImageOrientationPatient, dtype=np.float64), (2, 3)))
    frames = made.PerFrameFunctionalGroupsSequence
    heights = [np.dot(frame.PlanePositionSequence[0].ImagePositionPatient, normal) for frame in frames]
    places = np.unique(-np.array(heights), return_inverse=True)[1] + 1
    for frame, place in zip(frames, places.tolist(), strict=True):
        segment = int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        frame.FrameContentSequence[0].DimensionIndexValues = [segment, place]
