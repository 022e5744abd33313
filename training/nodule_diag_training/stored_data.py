"""Training data out of stores that ``train prepare`` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .lidc import Nodule, TrainingDataError
from .patches import NoduleVoxels
from .store import read_store


def load_stores(paths: Sequence[Path]) -> tuple[list[Nodule], dict[str, NoduleVoxels]]:
    """All nodules of some stores, by case id, whatever the order of stores and files; and their voxels.

    A nodule without mask teaches CNet alone, and one without scores no score.

    Raises:
        TrainingDataError: If a store is missing, damaged or empty, or two hold the same case.
    """
    nodules: dict[str, Nodule] = {}
    voxels: dict[str, NoduleVoxels] = {}
    found_in: dict[str, Path] = {}
    for path in paths:
        before = len(nodules)
        for stored in read_store(path):
            name = stored.case.case_id
            if name in found_in:
                raise TrainingDataError(
                    f"{name} is in {found_in[name]} and in {path}", hint="give each nodule in one store"
                )
            nodules[name], voxels[name], found_in[name] = stored.case.nodule(), stored.voxels(), path
        if len(nodules) == before:
            raise TrainingDataError(f"{path} holds no nodule", hint="nodule-diag train prepare")
    return [nodules[name] for name in sorted(nodules)], voxels
