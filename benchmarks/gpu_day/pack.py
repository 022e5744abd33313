"""Makes the folder that is carried: needs everything that training needs, and the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu_day.carry import LUNG_CUBES, Part, chosen_lung, write_carry
from nodule_diag_training.config import RECIPE
from nodule_diag_training.data import (
    LungPlace,
    Nodule,
    TrainingData,
    diagnosed_once,
    load_lung,
    patients_of,
    without_lung,
)
from nodule_diag_training.engine import code_digest, labels_digest, set_aside
from nodule_diag_training.evaluation import FOLD, HELD_OUT, HELD_OUT_LUNG
from nodule_diag_training.recipe import EVERYBODY, FOLDS, SPLIT_SEED, held_out_of, lung_of_fold

VALIDATION_SHARE: Final = 0.1
"""Share of a run's patients that are set aside to choose the best weights: about 33 of a fold's 330."""
COMMAND: Final = "python -m benchmarks.gpu_day run"


def pack(data: Path, folder: Path, *, lung: int = LUNG_CUBES) -> dict[str, int | str]:
    """Write the recipe, its folds and the voxels of ``data`` into ``folder``; returns the same as ``write_carry``.

    Raises:
        TrainingDataError: If the data are missing or damaged.
        OutputError: If the folder cannot be written.
    """
    nodules = list(TrainingData.of(data).nodules)
    places = chosen_lung(load_lung(data), count=lung)
    config = RECIPE.model_copy(update={"validation_share": VALIDATION_SHARE})
    parts = [_part(fold, nodules, places) for fold in [*range(FOLDS), None]]
    return write_carry(folder, config=config, parts=parts, nodules=[*nodules, *places])


def _part(fold: int | None, nodules: Sequence[Nodule], places: list[LungPlace]) -> Part:
    learned_lung, judged_lung = lung_of_fold(places, fold)
    held_out: set[str] = set() if fold is None else held_out_of(fold, nodules)
    learned = [*(n for n in nodules if n.patient_id not in held_out), *learned_lung]
    aside = set_aside(without_lung(learned), share=VALIDATION_SHARE, seed=RECIPE.seed)
    split: dict[str, Any] = {}
    if fold is not None:
        split = {
            FOLD: fold, "folds": FOLDS, "split_seed": SPLIT_SEED,
            HELD_OUT: sorted(held_out), HELD_OUT_LUNG: judged_lung,
        }  # fmt: skip
    return Part(
        name=EVERYBODY if fold is None else f"fold-{fold}",
        fold=fold,
        learned=tuple(n.case_id for n in learned),
        validation_patients=tuple(sorted(aside)),
        provenance={
            "command": COMMAND,
            "labels_sha256": labels_digest(learned),
            "code": code_digest(),
            **_counts([n for n in learned if n.patient_id not in aside]),
            **split,
        },
    )


def _counts(learned: Sequence[Nodule]) -> dict[str, Any]:
    """As ``engine.Run`` reports them: for the patients that are learned from."""
    nodules = without_lung(learned)
    lung = [n for n in learned if isinstance(n, LungPlace)]
    return {
        "nodules": len(nodules),
        "cubes": sum(n.is_cube for n in nodules),
        "sure": len(diagnosed_once(nodules)),
        "patients": len(patients_of(nodules)),
        "lung": {"places": len(lung), "patients": patients_of(lung)},
    }
