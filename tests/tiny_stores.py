"""Stores of small nodules made by rule, as ``train prepare`` leaves them."""

from __future__ import annotations

from pathlib import Path

from nodule_diag_training.data.case import Case, Preprocessing
from nodule_diag_training.data.regions import Region
from nodule_diag_training.data.store import NoduleStore
from tiny_nodules import make_voxels

PATIENTS = 6


def fill(path: Path, *, sure: bool) -> Path:
    """Nodules with outlines and scores, or with a diagnosis and nothing else; a patient each."""
    store = NoduleStore(path, preprocessing=Preprocessing(kind="sure" if sure else "lidc"))
    for number in range(PATIENTS):
        voxels = make_voxels(seed=number + 10 * sure, radius=4.0 + number, extension=0)
        case = Case(
            case_id=f"{path.name}-{number}",
            patient_id=f"{path.name}-patient-{number}",
            kind="sure" if sure else "lidc",
            source="ct",
            reader_scores=() if sure else (1 + number % 5, 1 + number % 5, 3),
            diameter_mm=4.0 + number,
            in_paper_cohort=not sure,
            malignant=number % 2 if sure else None,
            method="resection" if sure else "",
            mask_known=not sure,
        )
        occupancy = None if sure else voxels.occupancy
        region = Region(channels=voxels.channels, occupancy=occupancy, center=voxels.center, extension=0)
        store.add(case, region, fingerprint="")
    return store.path
