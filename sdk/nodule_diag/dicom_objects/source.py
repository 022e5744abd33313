"""What the objects take from the CT: the headers of its slices, completed, and the positions of their pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nodule_diag.ct import CTVolume, DicomFile, DicomSource, slice_headers
from nodule_diag.errors import UsageError
from nodule_diag.results import HALF_EDGE_MM, Diagnosis

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

EMPTY_WHERE_UNKNOWN = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)
"""Type 2 attributes (PS3.3 C.7.1.1, C.7.2.1), which must be there and may be empty."""


PLACES = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
"""Functional groups that say where a frame lies (PS3.3 C.7.6.16.2)."""


@dataclass(frozen=True)
class Frame:
    """One picture of the CT, as its header places it.

    Attributes:
        rows, columns: Its size.
        origin_xyz_mm: (3,) the centre of its first pixel, LPS mm.
        steps_xyz_mm: (3, 2) one pixel along a row, and one down a column, LPS mm.
    """

    rows: int
    columns: int
    origin_xyz_mm: NDArray[np.float64]
    steps_xyz_mm: NDArray[np.float64]

    def part_near(self, center_xyz_mm: tuple[float, float, float]) -> tuple[slice, slice]:
        """Rows and columns in which a cube round a position can lie; empty where the frame does not meet the cube."""
        reach = HALF_EDGE_MM * np.sqrt(3.0)
        offset = np.asarray(center_xyz_mm) - self.origin_xyz_mm
        spacing = np.linalg.norm(self.steps_xyz_mm, axis=0)
        unit = self.steps_xyz_mm / spacing
        across, down = offset @ unit
        away = abs(float(offset @ np.cross(unit[:, 0], unit[:, 1])))
        if away > reach:
            return slice(0), slice(0)
        parts = []
        for at, step, size in ((down, spacing[1], self.rows), (across, spacing[0], self.columns)):
            first, last = np.floor((at - reach) / step), np.ceil((at + reach) / step)
            parts.append(slice(int(np.clip(first, 0, size)), int(np.clip(last + 1, 0, size))))
        return parts[0], parts[1]

    def points_xyz_mm(self, part: tuple[slice, slice]) -> NDArray[np.float64]:
        """(rows * columns, 3) LPS mm of the pixels of a part, row by row."""
        down, across = np.mgrid[part]
        index = np.stack([across.ravel(), down.ravel()])
        return np.asarray((self.origin_xyz_mm[:, None] + self.steps_xyz_mm @ index).T)


@dataclass(frozen=True)
class Source:
    """The slices that the nodules' cubes reach into.

    Attributes:
        headers: pydicom datasets without pixels; one of a multi-frame file describes only the frames that are used.
        frames: Their pictures, in the order of the headers.
        numbers: The frames' numbers in a multi-frame file, from 1; empty for single slices.
    """

    headers: list[Dataset]
    frames: list[Frame]
    numbers: tuple[int, ...] = ()

    @property
    def frame_of_reference_uid(self) -> str:
        """The CT's UID; a generated one where the CT has none."""
        return str(self.headers[0].FrameOfReferenceUID)

    def number_references(self, made: Dataset) -> None:
        """Give an object's references the frames' numbers in the file: highdicom counts the frames of the header."""
        if not self.numbers:
            return
        for group in made.PerFrameFunctionalGroupsSequence:
            for derivation in group.get("DerivationImageSequence") or []:
                for image in derivation.SourceImageSequence:
                    image.ReferencedFrameNumber = self.numbers[image.ReferencedFrameNumber - 1]


def source_of(ct: CTVolume, diagnoses: Sequence[Diagnosis], *, files: Sequence[DicomFile] | None = None) -> Source:
    """Read the headers round the nodules.

    Raises:
        UsageError: ``not-dicom`` for a CT that is not from DICOM, ``another-ct`` where all nodules lie outside it.
        CTError: When the CT's files are gone.
    """
    if ct.dicom is None:
        raise UsageError(
            f"{ct.path} is not DICOM, so no DICOM object can refer to it",
            hint="give the DICOM folder of the CT, or leave --dicom-out out",
            code="not-dicom",
        )
    reach = HALF_EDGE_MM * np.sqrt(3.0)
    centers = np.array([diagnosis.xyz_lps_mm for diagnosis in diagnoses])
    normal = _normal(ct)
    heights = np.array([identity.position_xyz_mm for identity in ct.dicom.slices]) @ normal
    near = (np.abs(heights[:, None] - centers @ normal) <= reach).any(axis=1)
    slices = [identity for identity, used in zip(ct.dicom.slices, near, strict=True) if used]
    if not slices:
        raise UsageError(
            f"no slice of {ct.path} is near a nodule of the prediction, so no DICOM object can refer to it",
            hint="give the CT that the prediction was made from",
            code="another-ct",
        )
    headers = slice_headers(ct, slices, files=files)
    if len(headers) > 1 and any("PerFrameFunctionalGroupsSequence" in header for header in headers):
        raise UsageError(
            f"{ct.path} is one CT in several multi-frame files, which no object can refer to together",
            hint="join the concatenation into one Enhanced CT image",
            code="multi-frame-concatenation",
        )
    numbers = tuple(sorted(identity.frame for identity in slices if identity.frame is not None))
    if numbers:
        _keep_frames(headers[0], numbers)
    for header in headers:
        _complete(header, ct.dicom, distance_mm=ct.stored_spacing_xyz_mm[2])
    if len({(header.StudyInstanceUID, header.SeriesInstanceUID) for header in headers}) > 1:
        raise UsageError(
            f"the slices of {ct.path} bear UIDs of several series, which no object can refer to together",
            hint="give the slices one StudyInstanceUID and SeriesInstanceUID",
            code="several-series",
        )
    if "ImageOrientationPatient" in headers[0]:  # alike within the reader's tolerance; highdicom wants the same digits
        for header in headers:
            header.ImageOrientationPatient = headers[0].ImageOrientationPatient
    frames = [frame for header in headers for frame in frames_in(header)]
    return Source(headers, frames, numbers)


def _normal(ct: CTVolume) -> NDArray[np.float64]:
    """Unit vector at a right angle to the slices, towards the last. With a tilted gantry the positions lie aslant."""
    axis = ct.stored_axes.index(2)
    return np.asarray(ct.direction[:, axis] * (-1.0 if ct.stored_flips[axis] else 1.0))


def _keep_frames(header: Dataset, numbers: Sequence[int]) -> None:
    """Describe only some frames of a file, because an object covers all that its source describes."""
    groups = header.PerFrameFunctionalGroupsSequence
    header.PerFrameFunctionalGroupsSequence = [groups[number - 1] for number in numbers]
    header.NumberOfFrames = len(numbers)


def _complete(header: Dataset, dicom: DicomSource, *, distance_mm: float) -> None:
    """Fill in the attributes that an object must take over and the CT lacks."""
    from pydicom import Dataset
    from pydicom.uid import generate_uid
    from pydicom.valuerep import DS

    header.decode()
    header.SpecificCharacterSet = "ISO_IR 192"  # an id may have any letter
    for keyword in EMPTY_WHERE_UNKNOWN:
        if keyword not in header or not _usable(header[keyword]):
            setattr(header, keyword, "")
    if "PerFrameFunctionalGroupsSequence" in header:
        if not header.get("SharedFunctionalGroupsSequence"):
            header.SharedFunctionalGroupsSequence = [Dataset()]
        (shared,), own = header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence[0]
        for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):  # highdicom looks for them only there
            if name not in shared and name in own:
                setattr(shared, name, own[name].value)
        for frame in (shared, *header.PerFrameFunctionalGroupsSequence):
            for name in PLACES:
                for group in frame.get(name) or []:
                    _shorten(group)
    else:
        _shorten(header)
        if header.get("SliceThickness") is None:  # the segmentation needs one (PS3.3 C.7.6.16.2.1, type 1C)
            header.SliceThickness = DS(distance_mm, auto_format=True)
    # From the series, so that all its slices get the same UIDs.
    made_up = {
        "StudyInstanceUID": dicom.study_uid,
        "SeriesInstanceUID": dicom.series_uid,
        "FrameOfReferenceUID": dicom.frame_of_reference_uid,
    }
    for keyword, known in made_up.items():
        if not header.get(keyword):
            setattr(header, keyword, known or generate_uid(entropy_srcs=[keyword, dicom.slices[0].sop_uid]))


def _usable(element: DataElement) -> bool:
    """Whether a value of the CT can be taken over: dates, times, names and the sex must have the standard's form."""
    from pydicom.valuerep import DA, TM

    keyword, text = element.keyword, str(element.value)
    if keyword.endswith("Name"):
        return element.VM <= 1  # a backslash makes one name several
    try:
        if keyword.endswith("Date"):
            return text == "" or bool(re.fullmatch(r"\d{8}", text) and DA(text))
        if keyword.endswith("Time"):
            return text == "" or bool(re.fullmatch(r"\d{2,6}(\.\d{1,6})?", text) and TM(text))
    except ValueError:
        return False
    return keyword != "PatientSex" or text in {"", "F", "M", "O"}


def _shorten(group: Dataset) -> None:
    """Shorten numbers to the 16 characters that the standard allows (PS3.5 6.2), because some CTs exceed them."""
    from pydicom.valuerep import DS

    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness"):
        if (value := group.get(keyword)) is not None:
            numbers = [DS(float(number), auto_format=True) for number in ([value] if group[keyword].VM == 1 else value)]
            setattr(group, keyword, numbers[0] if len(numbers) == 1 else numbers)


def frames_in(header: Dataset) -> list[Frame]:
    """The pictures of a file, in their order."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        return [_frame(header, plane=header, turned=header, sampled=header)]
    (shared,) = header.SharedFunctionalGroupsSequence

    def group(own: Dataset, name: str) -> Dataset:
        found: Dataset = (own if name in own else shared)[name][0]
        return found

    return [
        _frame(
            header,
            plane=group(own, "PlanePositionSequence"),
            turned=group(own, "PlaneOrientationSequence"),
            sampled=group(own, "PixelMeasuresSequence"),
        )
        for own in header.PerFrameFunctionalGroupsSequence
    ]


def _frame(header: Dataset, *, plane: Dataset, turned: Dataset, sampled: Dataset) -> Frame:
    """PS3.3 C.7.6.2.1.1: the first spacing is between rows, and the first direction runs along a row."""
    along_row, down_column = np.asarray(turned.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    between_rows, between_columns = map(float, sampled.PixelSpacing)
    origin = np.asarray(plane.ImagePositionPatient, dtype=np.float64)
    steps = np.stack([along_row * between_columns, down_column * between_rows], axis=1)
    return Frame(int(header.Rows), int(header.Columns), origin, steps)
