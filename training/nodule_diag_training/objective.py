"""What a batch is taught: the terms of eq. 12 for drawn nodules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import losses
from .config import TrainingConfig
from .draws import Draw
from .lidc import Nodule
from .model import SynergicOutput

UNDECIDED_SCORE = 3.0
"""The readers' mean score that is on neither side."""


def normalised_score(nodule: Nodule) -> float:
    """g_r of eq. 2: the readers' mean malignancy score mapped from 1..5 to 0..1."""
    return (nodule.mean_score - 1.0) / 4.0


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The scalar terms of eq. 12, unweighted, and their weights."""

    classification: Tensor
    cam: Tensor
    segmentation: Tensor
    score: Tensor
    weights: losses.LossWeights

    @property
    def total(self) -> Tensor:
        """Eq. 12."""
        return losses.total_loss(
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
    first_sure = len(unsure)
    draws = [*unsure, *sure]
    taught = len(draws) if config.sure_teaches_unsure else first_sure
    zero = output.logit.new_zeros(())
    segmentation = score = cam = zero
    if output.segmentation_logit is not None:
        target = torch.from_numpy(np.stack([_mask_target(d, config) for d in draws[:taught]]))
        segmentation = losses.dice_loss(torch.sigmoid(output.segmentation_logit[:taught]), target).mean()
    if output.score is not None:
        wanted = output.score.new_tensor([normalised_score(d.nodule) for d in draws[:taught]])
        score = losses.score_loss(output.score[:taught], wanted).mean()
    labels = [cnet_label(d.nodule, drawn_as_sure=i >= first_sure, config=config) for i, d in enumerate(draws)]
    chosen = [index for index, label in enumerate(labels) if label is not None]
    logit = output.logit[chosen]
    label = logit.new_tensor([labels[index] for index in chosen])
    if config.modules.guidance == "ad-csl" and output.segmentation_logit is not None:
        guided = list(range(len(draws))) if config.ad_csl_on_all else chosen
        class_map = losses.class_cam(output.cam[guided], output.logit[guided])
        # SEM guides the CAM; without the stop it could also move to meet it.
        sem = torch.sigmoid(output.segmentation_logit[guided]).detach()
        cam = losses.adaptive_cam_sem_loss(
            class_map,
            sem,
            output.logit[guided],
            margin=config.margin,
            constant_confidence=config.constant_confidence,
        ).mean()
    return LossTerms(
        classification=losses.classification_loss(logit, label).mean(),
        cam=cam,
        segmentation=segmentation,
        score=score,
        weights=losses.LossWeights(score=config.score_weight),
    )


def _mask_target(draw: Draw, config: TrainingConfig) -> NDArray[np.float32]:
    """g_s of eq. 1 for one nodule, [L, W, H] in [0, 1]."""
    return draw.sample.nodule if config.mask_target == "share" else draw.sample.nodule_cells.astype(np.float32)


def cnet_label(nodule: Nodule, *, drawn_as_sure: bool, config: TrainingConfig) -> float | None:
    """What CNet learns of a nodule: its diagnosis, or the side of the readers' mean score where that is configured."""
    if nodule.sure is not None and (drawn_as_sure or config.scores_teach_cnet):
        return float(nodule.sure.malignant)
    if not config.scores_teach_cnet or nodule.mean_score == UNDECIDED_SCORE:
        return None
    return float(nodule.mean_score > UNDECIDED_SCORE)
