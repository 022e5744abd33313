"""What a store says about a nodule besides its voxels, and how all nodules of the store were prepared."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from nodule_diag.preprocessing import LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU, PATCH_SPACING_MM

from .nodule import UNKNOWN_METHOD, Certainty, Nodule, SureLabel
from .regions import REGION_SIZE
from .voxels import EXTENSION

Kind = Literal["lidc", "sure", "luna25", "voi", "cube"]
StoreKind = Literal["lidc", "sure", "luna25", "shared"]
PLACED = ("sure", "luna25")
"""Kinds whose nodules have a position from a table and a CT with its own file name."""


class Preprocessing(BaseModel):
    """Everything that the stored numbers depend on besides the sources. The defaults are the SDK's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    kind: StoreKind
    spacing_mm: float = PATCH_SPACING_MM
    lung_window_hu: tuple[float, float] = LUNG_WINDOW_HU
    mediastinal_window_hu: tuple[float, float] = MEDIASTINAL_WINDOW_HU
    region_size: int = REGION_SIZE
    voi_extension: int = EXTENSION
    lung_masked: bool = False


class Case(BaseModel):
    """What is known of a stored nodule besides its voxels.

    Attributes:
        case_id: Unique in the store.
        patient_id: The patient; folds are split by patient.
        kind: Where the nodule comes from; decides whether its surroundings are its own.
        source: The CT or VOI, as a readable name.
        center_xyz_mm: LPS mm; None for VOIs and cubes.
        reader_scores: Malignancy 1..5 of each reader; empty where no reader scored the nodule.
        diameter_mm: Volume-equivalent, or as given; None where it was not measured.
        in_paper_cohort: Solid, MAD <= 0.6, of LUNA16's nodules.
        malignant: Diagnosis, 1 or 0; None where there is none.
        method: How the nodule was diagnosed; empty where this is not known.
        certainty: Certainty of the diagnosis, see ``SureLabel``.
        mask_known: Whether the nodule was outlined.
        twin: The same nodule in the other form (VOI or cube).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str
    patient_id: str
    kind: Kind
    source: str
    center_xyz_mm: tuple[float, float, float] | None = None
    reader_scores: tuple[int, ...] = ()
    diameter_mm: float | None
    in_paper_cohort: bool = False
    malignant: int | None = None
    method: str = ""
    certainty: Certainty = "nodule"
    mask_known: bool = True
    twin: str | None = None

    def is_another_than(self, other: Case) -> bool:
        """Whether the two are nodules of different patients, or differ both in their CT's name and in position.

        A nodule whose CT was renamed, or whose position was corrected, is the same.
        """
        elsewhere = self.center_xyz_mm != other.center_xyz_mm and Path(self.source).name != Path(other.source).name
        return self.patient_id != other.patient_id or (elsewhere and self.kind in PLACED)

    def nodule(self) -> Nodule:
        """The nodule as training takes it; a nodule from a CT counts as a cube, since its surroundings are real."""
        sure = None
        if self.malignant is not None:
            method = self.method or UNKNOWN_METHOD
            sure = SureLabel(malignant=self.malignant, method=method, certainty=self.certainty)
        source = Path(self.source)
        return Nodule(
            case_id=self.case_id,
            patient_id=self.patient_id,
            image=source,
            mask=source if self.kind == "voi" else None,
            reader_scores=self.reader_scores,
            diameter_mm=math.nan if self.diameter_mm is None else self.diameter_mm,
            in_paper_cohort=self.in_paper_cohort,
            sure=sure,
            twin=self.twin,
            outlined=self.mask_known,
        )
