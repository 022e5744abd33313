"""Small nodules, see ``tiny_nodules.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from nodule_diag_training.data.nodule import Nodule, SureLabel
from nodule_diag_training.data.voxels import EXTENSION, NoduleVoxels
from tiny_nodules import make_all_voxels, make_nodules, make_voxels


@pytest.fixture(scope="session")
def tiny_nodules() -> list[Nodule]:
    """Four cubes and four VOIs of eight patients, half of them diagnosed."""
    return make_nodules()


@pytest.fixture(scope="session")
def tiny_voxels(tiny_nodules: list[Nodule]) -> dict[str, NoduleVoxels]:
    """Their voxels."""
    return make_all_voxels(tiny_nodules)


def _paired(patient: int, *, cube: bool) -> Nodule:
    """Cubes are benign with scores of 1 or 2, VOIs malignant with 4 or 5; every fourth patient has 3s."""
    score = 3 if patient % 4 == 3 else (1 if cube else 4) + patient % 2
    name = f"{'cube' if cube else 'voi'}-{patient}"
    return Nodule(
        case_id=name,
        patient_id=f"patient-{patient:02d}",
        image=Path(f"{name}.nii.gz"),
        mask=None if cube else Path(f"{name}-mask.nii.gz"),
        reader_scores=(score, score, score),
        diameter_mm=4.0 + patient / 2,
        in_paper_cohort=True,
        sure=SureLabel(malignant=int(not cube), method="biopsy", certainty="nodule" if patient % 2 else "patient"),
    )


@pytest.fixture(scope="session")
def paired_nodules() -> list[Nodule]:
    """A benign cube and a malignant VOI of each of twelve patients: enough for folds and for validation within them."""
    return [_paired(patient, cube=cube) for patient in range(12) for cube in (True, False)]


@pytest.fixture(scope="session")
def paired_voxels(paired_nodules: list[Nodule]) -> dict[str, NoduleVoxels]:
    """Their voxels."""
    return {
        nodule.case_id: make_voxels(seed=i, radius=4.0 + i / 6, extension=0 if nodule.is_cube else EXTENSION)
        for i, nodule in enumerate(paired_nodules)
    }
