"""The recipe's departures from the paper, and the short run with each of them switched off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nodule_diag_training.config import RECIPE, Stage, TrainingConfig
from nodule_diag_training.model import build_model

SIZE = 40
WHOLE = "recipe"


@dataclass(frozen=True, kw_only=True)
class Departure:
    """A departure from the paper, and how it is switched off.

    Attributes:
        title: In words.
        off: What changes in the configuration.
        segnet: Scale and shift that SegNet's last layer starts from; None for the model's own.
    """

    title: str
    off: Mapping[str, Any] = field(default_factory=dict)
    segnet: tuple[float, float] | None = None


DEPARTURES = {
    WHOLE: Departure(title="the recipe"),
    "scores": Departure(
        title="CNet learns from diagnoses alone",
        off={"scores_teach_cnet": False, "unsure_per_step": RECIPE.unsure_per_step - 1, "sure_per_step": 1},
    ),
    "draws": Departure(
        title="a diagnosed nodule in every step, half of them benign",
        off={"unsure_per_step": RECIPE.unsure_per_step - 1, "sure_per_step": 1},
    ),
    "segnet": Departure(title="SegNet starts at scale 4 and shift -3", segnet=(4.0, -3.0)),
    "half": Departure(title="SegNet learns the share of a cell", off={"mask_target": "share"}),
    "confidence": Departure(title="ad-CSL's confidence has a gradient", off={"constant_confidence": False}),
    "heads": Departure(title="heads at the common rate, undamped", off={"head_rate": 1.0, "head_mean_share": 1.0}),
    "guided": Departure(title="ad-CSL guides labelled nodules alone", off={"ad_csl_on_all": False}),
    "gamma": Departure(title="gamma of eq. 12 is 1", off={"score_weight": 1.0}),
    "lung": Departure(title="no lung without a nodule", off={"lung_per_step": 0}),
}
"""The departures of docs/training.md (the last of the seven is two here), and lung."""


def configured(departure: Departure, *, steps: int, seed: int = RECIPE.seed) -> TrainingConfig:
    """The short recipe with a departure switched off."""
    return RECIPE.model_copy(update={"stages": (Stage(size=SIZE, steps=steps),), "seed": seed, **departure.off})


def first_weights(config: TrainingConfig, departure: Departure) -> dict[str, Tensor] | None:
    """The weights to start from, where they are not the model's own."""
    if departure.segnet is None:
        return None
    torch.manual_seed(config.seed)
    weights = build_model(config).state_dict()
    scale, shift = departure.segnet
    weights["segnet.norm3.weight"] = torch.full_like(weights["segnet.norm3.weight"], scale)
    weights["segnet.norm3.bias"] = torch.full_like(weights["segnet.norm3.bias"], shift)
    return weights
