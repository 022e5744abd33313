"""How long a row is trained: at the paper's length, or on fewer and smaller patches, for a computer without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from nodule_diag_training.config import Precision, Stage, TrainingConfig
from nodule_diag_training.data import Nodule, cnet_label

from .catalogue import Learns, Phase

ScheduleName = Literal["paper", "medium", "short"]
SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)
"""The longest first: its results come first in the tables."""
VALIDATION_SHARE = 0.2
"""4.3: "The validation set occupies 20% of the training set"."""
PAPER_EPOCHS = 100
PAPER_SIZE = 64
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Reduced:
    """A schedule that costs less than the paper's.

    Attributes:
        size: Side of the cubes, in voxels of 0.5 mm. A wider nodule is cropped.
        steps: Steps of a row that is trained in one phase.
        validate_every: Steps between two validations.
        precision: Precision of the convolutions.
    """

    size: int
    steps: int
    validate_every: int = 50
    precision: Precision = "fp32"


REDUCED: dict[ScheduleName, Reduced] = {
    "medium": Reduced(size=48, steps=1500, validate_every=150, precision="bf16"),
    "short": Reduced(size=32, steps=300),
}
"""A 16 mm cube costs an eighth of the paper's 32 mm cube, and the nodule's share of what CNet averages over is eight
times as large; 24 mm hold all nodules but the largest. A step in bf16 takes half the time on a CPU that has bf16
(AVX-512 BF16). A validation costs some 25 steps."""

DESCRIPTIONS: dict[ScheduleName, str] = {
    "paper": (
        f"{PAPER_EPOCHS} epochs of as many steps as there are sure nodules to train on (for rows without sure data: "
        f"unsure ones), 1 unsure and 1 sure nodule a step, 64-cubes, Adam at {LEARNING_RATE:g}, constant"
    ),
    **{
        name: (
            f"{reduced.steps:,} steps of 2 unsure and 2 sure nodules (rows without sure data: 4 unsure; without unsure "
            f"data: 2 sure), {reduced.size}-cubes in {reduced.precision}, Adam at {LEARNING_RATE:g}, one cycle; the "
            "heads at ten times the rate with 0.05 of the gradient along their common direction, and ad-CSL's "
            "confidence only weighs (docs/training.md)"
        )
        for name, reduced in REDUCED.items()
    },
}
"""In words, for tables."""


def precision_of(schedule: ScheduleName) -> Precision:
    """The precision of a schedule's convolutions; the paper's is fp32."""
    return REDUCED[schedule].precision if schedule in REDUCED else "fp32"


def configured(phase: Phase, schedule: ScheduleName, *, nodules: Sequence[Nodule], seed: int) -> TrainingConfig:
    """The phase's configuration under a schedule.

    Args:
        phase: A phase of an experiment.
        schedule: Its name.
        nodules: The training patients' nodules; the paper's epochs count them.
        seed: Seed of the weights and the draws.
    """
    reduced = REDUCED.get(schedule)
    changes = _paper(phase, nodules) if reduced is None else _reduced(phase, reduced)
    changes |= {"seed": seed, "validation_share": VALIDATION_SHARE}
    return TrainingConfig.model_validate(phase.config.model_dump() | changes)


def _paper(phase: Phase, nodules: Sequence[Nodule]) -> dict[str, Any]:
    different = [n for n in nodules if not n.is_cube or n.twin is None]
    taught = [n for n in different if (_is_unsure(n, phase.config) if phase.learns == "unsure" else n.sure is not None)]
    epoch = max(1, round((1.0 - VALIDATION_SHARE) * len(taught)))
    steps = round(PAPER_EPOCHS * phase.share) * epoch
    return {
        "stages": (Stage(size=PAPER_SIZE, steps=steps).model_dump(),),
        **_draws(phase.learns, unsure=1, sure=1),
        "learning_rate": LEARNING_RATE * phase.rate,
        "schedule": "constant",
        "validate_every": epoch,
        "checkpoint_every": epoch,
    }


def _is_unsure(nodule: Nodule, config: TrainingConfig) -> bool:
    """Whether the unsure branch learns from the nodule: with a scenario, only if that gives the nodule a side."""
    if not nodule.in_paper_cohort:
        return False
    return config.scenario is None or cnet_label(nodule, drawn_as_sure=False, config=config) is not None


def _draws(learns: Learns, *, unsure: int, sure: int) -> dict[str, Any]:
    """A system that learns nothing from unsure nodules draws none of them, whatever ``unsure`` is."""
    return {"unsure_per_step": unsure, "sure_per_step": 0 if learns == "unsure" else sure}


def _reduced(phase: Phase, reduced: Reduced) -> dict[str, Any]:
    unsure = 4 if phase.learns == "unsure" else 2
    return {
        "stages": (Stage(size=reduced.size, steps=round(reduced.steps * phase.share)).model_dump(),),
        **_draws(phase.learns, unsure=unsure, sure=2),
        "learning_rate": LEARNING_RATE * phase.rate,
        "schedule": "one-cycle",
        "head_rate": 10.0,
        "head_mean_share": 0.05,
        "constant_confidence": True,
        "precision": reduced.precision,
        "validate_every": reduced.validate_every,
    }
