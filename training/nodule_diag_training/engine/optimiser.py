"""How a step moves the weights: Adam's rate by the schedule, the heads' own rate, and their damped common direction."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.model import SynergicModel

WARM_UP_SHARE = 0.1
FINAL_RATE_SHARE = 0.01


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Adam's rate at a step counted from 0."""
    if config.schedule == "constant":
        return config.learning_rate
    warm_up = max(1, round(WARM_UP_SHARE * config.steps))
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, config.steps - warm_up)
    if config.schedule == "annealing":
        return config.learning_rate * (1.0 - progress)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.learning_rate * (FINAL_RATE_SHARE + (1.0 - FINAL_RATE_SHARE) * cosine)


def heads_of(model: SynergicModel) -> list[nn.Linear]:
    """The layers of RNet and CNet, where the model has them."""
    return [head for head in (model.rnet, model.cnet) if head is not None]


def rated_parameters(model: SynergicModel, config: TrainingConfig) -> list[dict[str, object]]:
    """Adam's parameter groups: ``factor`` multiplies the scheduled rate."""
    heads = [parameter for head in heads_of(model) for parameter in head.parameters()]
    if model.segnet is not None:
        heads += model.segnet.norm3.parameters()
    others = [p for p in model.parameters() if all(p is not own for own in heads)]
    return [{"params": others, "factor": 1.0}, {"params": heads, "factor": config.head_rate}]


def damp_mean_direction(gradient: Tensor, pooled: Tensor, *, share: float) -> None:
    """Scale a head's gradient by ``share`` along the mean of the batch's pooled features, in place.

    ``gradient`` is [outputs, 256] and ``pooled`` [B, 256]. This is a preconditioner: it changes the path to the
    optimum, not the optimum.
    """
    direction = functional.normalize(pooled.detach().mean(dim=0), dim=0)
    gradient -= (1.0 - share) * (gradient @ direction)[:, None] * direction
