"""A run's losses on its validation patients, and the weights that did best on them so far."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import torch
from torch import Tensor, nn

from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.engine import ValidationLog

WEIGHTS: Final = ("raw", "average")
"""A run's own weights, and their moving average."""


def means_of(values: Tensor, taught: Tensor, labels: Tensor, *, step: int, config: TrainingConfig) -> ValidationLog:
    """``Validation.log`` of [4, N] losses: benign and malignant weigh the same."""
    sides = []
    for side in (0.0, 1.0):
        own = taught[0] * (labels == side)
        if own.sum() > 0:
            sides.append(float((values[0] * own).sum() / own.sum()))
    classification = sum(sides) / max(1, len(sides))
    cam, segmentation, score = (
        float((values[row] * taught[row]).sum() / taught[row].sum().clamp_min(1.0)) for row in (1, 2, 3)
    )
    total = classification + cam + segmentation + config.score_weight * score
    return ValidationLog(
        step=step, total=total, classification=classification, cam=cam, segmentation=segmentation, score=score
    )


class BestWeights:
    """For both kinds of weights: every validation, and the best weights so far.

    Attributes:
        looks: The validations, in the order of the steps.
        logs: The best validation of each kind.
    """

    def __init__(self) -> None:
        self.looks: dict[str, list[ValidationLog]] = {name: [] for name in WEIGHTS}
        self.logs: dict[str, ValidationLog] = {}
        self._states: dict[str, dict[str, Tensor]] = {}

    def note(self, name: str, seen: ValidationLog, model: nn.Module) -> bool:
        """Note a validation of the model's present weights; returns whether they did better than all before."""
        self.looks[name].append(seen)
        if name in self.logs and not seen.total < self.logs[name].total:
            return False
        self.logs[name] = seen
        self._states[name] = {key: value.detach().clone() for key, value in model.state_dict().items()}
        return True

    @property
    def last_step(self) -> int:
        """The step at which either kind of weights last did better."""
        return max(log.step for log in self.logs.values())

    def tensors(self) -> dict[str, Tensor]:
        """The weights for a file: in float16, by kind and name."""
        return {
            f"{name}.{key}": value.to(torch.float16).cpu().contiguous()
            for name, state in self._states.items()
            for key, value in state.items()
        }

    def facts(self) -> dict[str, Any]:
        """For JSON: the best values."""
        return {name: asdict(log) for name, log in self.logs.items()}
