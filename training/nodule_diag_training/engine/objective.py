"""The losses of a batch: the terms of eq. 12 for drawn nodules, in every system."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import Draw, LungPlace, cnet_label, normalised_score, rounded_score, score_target
from nodule_diag_training.losses import (
    DICE_SMOOTH,
    EMPTY_SMOOTH,
    SCORE_LOSSES,
    GuidedNodules,
    LossWeights,
    classification_loss,
    dice_loss,
    total_loss,
)
from nodule_diag_training.model import SynergicOutput


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The scalar terms of eq. 12, unweighted, and their weights. A term that nothing in the batch teaches is 0."""

    classification: Tensor
    cam: Tensor
    segmentation: Tensor
    score: Tensor
    weights: LossWeights

    @property
    def total(self) -> Tensor:
        """Eq. 12."""
        return total_loss(
            classification=self.classification,
            cam=self.cam,
            segmentation=self.segmentation,
            score=self.score,
            weights=self.weights,
        )


def step_losses(
    output: SynergicOutput, unsure: Sequence[Draw], sure: Sequence[Draw], config: TrainingConfig
) -> LossTerms:
    """The loss terms of a batch whose first ``len(unsure)`` entries are unsure and whose others are sure."""
    draws = [(draw, False) for draw in unsure] + [(draw, True) for draw in sure]
    labels = [cnet_label(draw.nodule, drawn_as_sure=as_sure, config=config) for draw, as_sure in draws]
    # The value of a term that nothing in the batch teaches: 0, but part of the graph, so that backward always works.
    zero = 0.0 * output.pooled.sum()
    return LossTerms(
        classification=_mean(_classification(output, labels), zero),
        cam=_mean(_cam(output, [draw for draw, _ in draws], labels, config), zero),
        segmentation=_mean(_segmentation(output, draws, config), zero),
        score=_mean(_score(output, draws, config), zero),
        weights=LossWeights(score=config.score_weight),
    )


def _mask_target(draw: Draw, config: TrainingConfig) -> NDArray[np.float32]:
    """g_s of eq. 1 for one nodule, [L, W, H] in [0, 1]; 0 where there is none."""
    if config.mask_target == "share" or isinstance(draw.nodule, LungPlace):
        return draw.sample.nodule
    return draw.sample.nodule_cells.astype(np.float32)


def _mean(values: Tensor | None, zero: Tensor) -> Tensor:
    """The mean over nodules, or ``zero`` where there is none."""
    return zero if values is None or values.numel() == 0 else values.mean()


def _segmentation(output: SynergicOutput, draws: Sequence[tuple[Draw, bool]], config: TrainingConfig) -> Tensor | None:
    """Eq. 1 for each nodule whose mask teaches SegNet."""
    taught = [
        i
        for i, (draw, as_sure) in enumerate(draws)
        if draw.nodule.outlined and (not as_sure or config.sure_teaches_unsure)
    ]
    if output.segmentation_logit is None or not taught:
        return None
    logit = output.segmentation_logit[taught]
    target = torch.from_numpy(np.stack([_mask_target(draws[i][0], config) for i in taught])).to(logit.device)
    smooth = [EMPTY_SMOOTH if isinstance(draws[i][0].nodule, LungPlace) else DICE_SMOOTH for i in taught]
    return dice_loss(torch.sigmoid(logit), target, smooth=logit.new_tensor(smooth))


def _score(output: SynergicOutput, draws: Sequence[tuple[Draw, bool]], config: TrainingConfig) -> Tensor | None:
    """The configuration's score loss, eq. 2 in the paper, for each nodule whose score teaches RNet."""
    if output.score is None:
        return None
    targets = [score_target(draw.nodule, drawn_as_sure=as_sure, config=config) for draw, as_sure in draws]
    taught = [i for i, target in enumerate(targets) if target is not None]
    wanted = [target for target in targets if target is not None]
    loss = SCORE_LOSSES[config.score_loss]
    if loss.outputs == 1:
        normalised = output.score.new_tensor([normalised_score(target) for target in wanted])
        return loss.function(output.score[taught], normalised)
    if output.score_logits is None:
        raise ValueError(f"score_loss={config.score_loss!r} needs RNet's logits")
    logits = output.score_logits[taught]
    classes = torch.tensor([rounded_score(target) for target in wanted], dtype=torch.int64, device=logits.device)
    return loss.function(logits, classes)


def _classification(output: SynergicOutput, labels: Sequence[float | None]) -> Tensor | None:
    """Eq. 3 for each labelled nodule."""
    if output.logit is None:
        return None
    chosen = _labelled(labels)
    logit = output.logit[chosen]
    return classification_loss(logit, logit.new_tensor([labels[index] for index in chosen]))


def _labelled(labels: Sequence[float | None]) -> list[int]:
    return [index for index, label in enumerate(labels) if label is not None]


def _cam(
    output: SynergicOutput, draws: Sequence[Draw], labels: Sequence[float | None], config: TrainingConfig
) -> Tensor | None:
    """The system's loss on the CAM for each guided nodule; places without a nodule are left out."""
    loss = config.modules.cam_loss
    if loss is None or output.cam is None or output.logit is None:
        return None
    # SEM guides the CAM; without the detach, SEM could also move towards the CAM.
    sem = None if output.segmentation_logit is None else torch.sigmoid(output.segmentation_logit).detach()
    compared = sem if loss.compares == "segmentation" else output.activation
    if compared is None:
        raise ValueError(
            f"guidance={config.modules.guidance!r} needs the model's {loss.compares}, which it did not give"
        )
    nodules = [index for index, draw in enumerate(draws) if not isinstance(draw.nodule, LungPlace)]
    guided = nodules if config.ad_csl_on_all and not loss.needs_label else _labelled(labels)
    logit = output.logit[guided]
    known = [math.nan if label is None else label for label in labels]
    return loss.function(
        GuidedNodules(
            cam=output.cam[guided],
            logit=logit,
            label=logit.new_tensor([known[index] for index in guided]),
            compared=compared[guided],
            margin=config.margin,
            mode=config.margin_mode,
            constant_confidence=config.constant_confidence,
        )
    )
