"""What a CT keeps of its DICOM series: the identifiers that later objects must name, and nothing about the patient."""

from __future__ import annotations

from dataclasses import dataclass

from nodule_diag.ct.grid import Triple


@dataclass(frozen=True)
class SliceIdentity:
    """One slice of the volume.

    Attributes:
        sop_uid: SOPInstanceUID.
        sop_class: SOPClassUID.
        position_xyz_mm: ImagePositionPatient: the centre of its first pixel, LPS mm.
        file: Its name in the folder or archive.
        frame: Which frame of a multi-frame image it is, from 1; None where the image is a single slice.
    """

    sop_uid: str
    sop_class: str
    position_xyz_mm: Triple
    file: str
    frame: int | None = None


@dataclass(frozen=True)
class SetAside:
    """A file that was found beside the slices of the volume.

    Attributes:
        file: Its name in the folder or archive.
        why: What it is instead, in a few words.
    """

    file: str
    why: str


@dataclass(frozen=True)
class DicomSource:
    """The series that a volume was read from.

    Attributes:
        study_uid: StudyInstanceUID; this and the other UIDs are empty where the header has none.
        series_uid: SeriesInstanceUID.
        frame_of_reference_uid: FrameOfReferenceUID.
        slices: The slices of the scan, in the order of the stored slices. Slice i is at index i along stored axis 2.
            Where the volume was ``resampled``, only ``position_xyz_mm`` says where a slice lies.
        set_aside: Files that are not part of the volume.
        resampled: Whether the volume was interpolated, because slices are missing, uneven, sheared or too many.
    """

    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    slices: tuple[SliceIdentity, ...]
    set_aside: tuple[SetAside, ...]
    resampled: bool = False
