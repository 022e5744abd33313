"""A nodule that a model learns from: what is known of it, its diagnosis, and how folds are split by patient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from nodule_diag.errors import NoduleDiagError

UNKNOWN_METHOD = "unknown method"
"""The method of a diagnosis whose method is not known."""
Certainty = Literal["nodule", "patient"]


class TrainingDataError(NoduleDiagError, ValueError):
    """The training data cannot be used as they are."""

    code = "training-data"
    exit_code = 3


@dataclass(frozen=True, kw_only=True)
class SureLabel:
    """A diagnosis.

    Attributes:
        malignant: 1 malignant, 0 benign.
        method: How it was diagnosed, in words.
        certainty: ``nodule`` where the patient has no more VOIs than diagnoses, so that the diagnosis is taken as
            this nodule's; ``patient`` where the patient has more.
    """

    malignant: int
    method: str
    certainty: Certainty


@dataclass(frozen=True, kw_only=True)
class Nodule:
    """One nodule and where its voxels are.

    Attributes:
        case_id: Unique among the nodules.
        patient_id: The patient; folds are split by patient.
        image: VOI ``.nii.gz`` or cube ``.npz``.
        mask: The VOI's mask; None for a cube, which holds its own.
        reader_scores: Malignancy 1..5, one for each reader; empty where nobody scored it: then no score is learned.
        diameter_mm: Volume-equivalent diameter of the reader mask; NaN where it was not measured.
        in_paper_cohort: Solid, MAD <= 0.6, one of LUNA16's 1186.
        sure: The nodule's diagnosis, where there is one.
        twin: The case_id of the same nodule in the other form (VOI or cube), if there is one.
        outlined: Whether the nodule's mask is known; a nodule without a mask does not teach SegNet.
    """

    case_id: str
    patient_id: str
    image: Path
    mask: Path | None
    reader_scores: tuple[int, ...]
    diameter_mm: float
    in_paper_cohort: bool
    sure: SureLabel | None = None
    twin: str | None = None
    outlined: bool = True

    @property
    def is_cube(self) -> bool:
        """Whether the nodule comes with its real surroundings."""
        return self.mask is None

    @property
    def mean_score(self) -> float:
        """Mean malignancy score of the readers, 1..5; NaN without scores."""
        return float(np.mean(self.reader_scores)) if self.reader_scores else float("nan")


LungKind = Literal["blob", "lung"]
"""What lies in the middle: something bright (vessel, fissure, hilum, pleura), or anything."""


@dataclass(frozen=True, kw_only=True)
class LungPlace(Nodule):
    """A place in lung without a nodule: it is drawn, judged and split by patient as a nodule of diameter 0.

    Its outline is known and empty, and it has neither scores nor a diagnosis, so it teaches SegNet alone.

    Attributes:
        kind: What lies there.
    """

    reader_scores: tuple[int, ...] = ()
    diameter_mm: float = 0.0
    in_paper_cohort: bool = False
    kind: LungKind


def patients_of(nodules: Iterable[Nodule]) -> list[str]:
    """The distinct patients, sorted."""
    return sorted({nodule.patient_id for nodule in nodules})


def without_lung(nodules: Iterable[Nodule]) -> list[Nodule]:
    """The nodules among them, without any ``LungPlace``."""
    return [nodule for nodule in nodules if not isinstance(nodule, LungPlace)]


def split_by_patient(nodules: Sequence[Nodule], *, folds: int, seed: int) -> list[set[str]]:
    """Disjoint sets of patients, with diagnosed nodules and cubes spread evenly.

    Returns:
        The test patients of each fold.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    kinds = [(n.is_cube, -1 if n.sure is None else n.sure.malignant) for n in nodules]
    strata = [sorted(set(kinds)).index(kind) for kind in kinds]
    groups = [n.patient_id for n in nodules]
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    return [{groups[i] for i in test} for _, test in splitter.split(groups, strata, groups)]
