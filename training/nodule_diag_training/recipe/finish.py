"""Continues from a run's best weights, the rate falling to zero: for a run that ended in the middle of its schedule.

This is no part of the recipe, whose own schedule ends near zero. A test of it gained nothing (docs/gpu-day.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from nodule_diag.errors import UsageError
from nodule_diag_training.config import Stage, TrainingConfig
from nodule_diag_training.data import TrainingDataError
from nodule_diag_training.engine import LOG, MODEL, load_model, read_log
from nodule_diag_training.evaluation import FOLD, HELD_OUT, HELD_OUT_LUNG

FINISH_STEPS: Final = 80
FINISH_LOOKS: Final = 4
"""Validations, evenly spaced, the last one at the end."""
STARTED_FROM: Final = "started_from"
"""Key of a model's provenance: configuration and provenance of the run whose weights it began with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """A finished run to continue from.

    Attributes:
        folder: The run's folder.
        config: The run's configuration.
        weights: The weights that the run kept.
        provenance: The provenance of these weights.
    """

    folder: Path
    config: TrainingConfig
    weights: Mapping[str, Tensor]
    provenance: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Start:
        """The finished run of a folder.

        Raises:
            TrainingDataError: If the folder holds no finished model.
        """
        model, config, provenance = load_model(folder / MODEL)
        return cls(folder=folder, config=config, weights=model.state_dict(), provenance=provenance)

    @property
    def facts(self) -> dict[str, Any]:
        """The facts for the provenance of a run that begins with this one."""
        return {"config": self.config.model_dump(mode="json"), **self.provenance}

    @property
    def fold(self) -> int | None:
        """The fold that it held out; None for the model of all patients."""
        fold: int | None = self.provenance.get(FOLD)
        return fold

    def require_unseen(self, held_out: Collection[str], lung: Collection[str] = ()) -> None:
        """Refuse patients that this run has learned from: a run that starts from it must not be judged on them.

        Raises:
            UsageError: If the run learned from any of them.
        """
        for key, patients in ((HELD_OUT, held_out), (HELD_OUT_LUNG, lung)):
            if leaked := set(patients) - set(self.provenance.get(key, ())):
                raise UsageError(
                    f"{self.folder} was trained on {len(leaked)} of the patients that are to be held out",
                    hint="start from a run of the same fold and number of folds",
                )

    def rate(self) -> float:
        """The learning rate at the step of its weights.

        Raises:
            TrainingDataError: If the run has no log of that step.
        """
        best = self.provenance.get("best", {})
        step = best.get("step", self.config.steps - 1)
        rates = {line.step: line.learning_rate for line in read_log(self.folder / LOG)}
        if step not in rates:
            raise TrainingDataError(
                f"{self.folder / LOG} does not say the learning rate at step {step}",
                hint="give a run folder with its log",
            )
        return rates[step]


def finishing(start: Start, *, steps: int = FINISH_STEPS) -> TrainingConfig:
    """The configuration that brings a run to its end: its own, on whole patches, with its rate falling to zero."""
    stage = Stage(size=start.config.stages[-1].size, steps=steps)
    every = max(1, steps // FINISH_LOOKS)
    return start.config.model_copy(
        update={
            "stages": (stage,),
            "schedule": "annealing",
            "learning_rate": start.rate(),
            "validate_every": every,
            "checkpoint_every": max(1, every // 2),
        }
    )
