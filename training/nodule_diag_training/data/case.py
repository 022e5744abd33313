"""What a store says of a nodule besides its voxels, and of how all of them were prepared."""

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
"""Kinds whose nodules lie where a table says, in a CT of its own name."""


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
        patient_id: What folds are split by.
        kind: Where it comes from; decides whether its surroundings are its own.
        source: The CT or VOI, as a name for people.
        center_xyz_mm: LPS mm; None for VOIs and cubes.
        reader_scores: Malignancy 1..5 of each reader; empty where nobody scored it.
        diameter_mm: Volume-equivalent, or as given; None where nobody measured it.
        in_paper_cohort: Solid, MAD <= 0.6, of LUNA16's nodules.
        malignant: Diagnosis, 1 or 0; None where there is none.
        method: How it was diagnosed; empty where nobody said.
        certainty: Of the diagnosis.
        mask_known: Whether somebody outlined it.
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
        """Whether they are nodules of two patients, or differ both in their CT's name and in position.

        One that was moved with its CT, or whose position was corrected, is the same.
        """
        elsewhere = self.center_xyz_mm != other.center_xyz_mm and Path(self.source).name != Path(other.source).name
        return self.patient_id != other.patient_id or (elsewhere and self.kind in PLACED)

    def nodule(self) -> Nodule:
        """As training takes it; a nodule out of a CT counts as a cube, since its surroundings are real."""
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
