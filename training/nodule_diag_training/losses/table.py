"""The losses that a configuration names. A new one is one function and one line in its table.

``System.guidance`` names one of ``CAM_LOSSES``, ``TrainingConfig.score_loss`` one of ``SCORE_LOSSES``. A loss's
line decides which modules a model needs, what RNet's outputs are and which nodules count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .paper import MarginMode, adaptive_cam_sem_loss, cam_sem_loss, class_cam, score_loss
from .peers import SCORES, cam_loss, ordinal_loss, score_cross_entropy

Compared = Literal["segmentation", "activation"]


@dataclass(frozen=True, kw_only=True)
class GuidedNodules:
    """The inputs of a loss on the CAM for N nodules.

    Attributes:
        cam: [N, L, W, H], CAM of eq. 5.
        logit: [N], S of eq. 4.
        label: [N] 1 malignant, 0 benign, NaN where it is not known.
        compared: [N, L, W, H], what the loss compares the CAM with: SegNet's probabilities (SEM) without gradient, or
            the sum of the feature maps with gradient.
        margin: delta of eq. 10.
        mode: Eq. 10 or eq. 15.
        constant_confidence: As in ``paper.adaptive_cam_sem_loss``.
    """

    cam: Tensor
    logit: Tensor
    label: Tensor
    compared: Tensor
    margin: float
    mode: MarginMode
    constant_confidence: bool


@dataclass(frozen=True, kw_only=True)
class CamLoss:
    """A loss that guides the CAM.

    Attributes:
        function: Gives [N] losses of N nodules.
        compares: What the CAM is compared with. ``segmentation`` needs SegNet and takes the margin; for ``activation``
            the model also gives the sum of its feature maps.
        needs_label: Whether it can only guide nodules with a label.
    """

    function: Callable[[GuidedNodules], Tensor]
    compares: Compared
    needs_label: bool


@dataclass(frozen=True, kw_only=True)
class ScoreLoss:
    """How RNet learns the readers' score.

    Attributes:
        function: Gives [N] losses of RNet's outputs and the targets: [N] scores against [N], both normalised to [0, 1],
            where RNet has one output; else [N, 5] logits against [N] int64, the rounded scores 1..5.
        outputs: Number of RNet's outputs: 1, or ``SCORES``.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    outputs: int


def csl(nodules: GuidedNodules) -> Tensor:
    """CSL (eq. 10 or 15)."""
    class_map = class_cam(nodules.cam, nodules.logit)
    return cam_sem_loss(class_map, nodules.compared, margin=nodules.margin, mode=nodules.mode)


def ad_csl(nodules: GuidedNodules) -> Tensor:
    """ad-CSL (eq. 11)."""
    return adaptive_cam_sem_loss(
        class_cam(nodules.cam, nodules.logit),
        nodules.compared,
        nodules.logit,
        margin=nodules.margin,
        mode=nodules.mode,
        constant_confidence=nodules.constant_confidence,
    )


def class_agnostic(nodules: GuidedNodules) -> Tensor:
    """CAM-loss (Wang et al. 2021)."""
    return cam_loss(nodules.cam, nodules.compared, nodules.label)


CAM_LOSSES: dict[str, CamLoss] = {
    "csl": CamLoss(function=csl, compares="segmentation", needs_label=False),
    "ad-csl": CamLoss(function=ad_csl, compares="segmentation", needs_label=False),
    "cam-loss": CamLoss(function=class_agnostic, compares="activation", needs_label=True),
}
SCORE_LOSSES: dict[str, ScoreLoss] = {
    "mse": ScoreLoss(function=score_loss, outputs=1),
    "cross-entropy": ScoreLoss(function=score_cross_entropy, outputs=SCORES),
    "ordinal": ScoreLoss(function=ordinal_loss, outputs=SCORES),
}
"""The first is eq. 2; the others are Table 3's."""
