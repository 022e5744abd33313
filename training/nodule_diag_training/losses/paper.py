"""The losses of the paper: Dice (1), MSE (2), BCE (3), CAM_c (6), CSL (8-10, 15), ad-CSL (11) and their sum (12).

The losses of other authors that the paper compares with are in ``peers``. All losses take batches and return one value
for each nodule. Eq. 3 lacks a minus sign in print; the code has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

DEFAULT_MARGIN = 0.5
"""delta of eq. 10 for the paper's model J."""
MarginMode = Literal["nodule", "background"]
"""Where the CAM should lie: on the nodule (eq. 10), or, to show what the margin does, on the background (eq. 15)."""
THRESHOLD = 0.5
"""Division point between benign and malignant (eq. 7)."""
DICE_SMOOTH = 1.0
"""epsilon of eq. 1: one cell of the grid, so that an empty target costs little when the prediction is empty."""
EMPTY_SMOOTH = 33.5
"""epsilon of eq. 1 where there is no nodule: the cells of a ball of 8 mm, so that a finding of this size costs a half.

With an epsilon of one cell, any finding costs nearly the whole loss, and the gradient, epsilon / (found + epsilon)^2,
vanishes where most is found.
"""
FLAT_CAM = 1e-8
"""A map whose range is below this value is flat: it becomes 0, without a division by zero."""


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))


def dice_loss(probability: Tensor, target: Tensor, *, smooth: Tensor | float = DICE_SMOOTH) -> Tensor:
    """Eq. 1. ``probability`` and ``target`` are [B, L, W, H] in [0, 1], ``smooth`` is [B] or a number; gives [B]."""
    axes = _spatial(probability)
    overlap = (probability * target).sum(dim=axes)
    total = probability.sum(dim=axes) + target.sum(dim=axes)
    return 1.0 - (2.0 * overlap + smooth) / (total + smooth)


def score_loss(score: Tensor, target: Tensor) -> Tensor:
    """Eq. 2, squared error of the normalised malignancy score; [B] and [B] give [B]."""
    return (score - target) ** 2


def classification_loss(logit: Tensor, label: Tensor) -> Tensor:
    """Eq. 3, binary cross-entropy from the logit S; [B] and [B] give [B]."""
    return functional.binary_cross_entropy_with_logits(logit, label, reduction="none")


def signed_min_max(cam: Tensor, *, malignant: Tensor) -> Tensor:
    """A map for malignancy, negated for benign nodules and scaled to [0, 1] for each nodule.

    Args:
        cam: [B, L, W, H].
        malignant: [B] bool: the class that the map is for.

    Returns:
        [B, L, W, H]; zeros where the map is flat.
    """
    sign = torch.where(malignant, 1.0, -1.0).view((-1,) + (1,) * (cam.ndim - 1))
    return min_max(sign * cam)


def min_max(cam: Tensor) -> Tensor:
    """[B, L, W, H] scaled to [0, 1] for each nodule; zeros where it is flat."""
    low = cam.amin(dim=_spatial(cam), keepdim=True)
    span = cam.amax(dim=_spatial(cam), keepdim=True) - low
    return (cam - low) / span.clamp_min(FLAT_CAM)


def class_cam(cam: Tensor, logit: Tensor, *, threshold: float = THRESHOLD) -> Tensor:
    """CAM_c of eq. 6, min-max normalised to [0, 1] for each nodule.

    Args:
        cam: [B, L, W, H], eq. 5.
        logit: [B], S of eq. 4.
        threshold: Division point of eq. 7.

    Returns:
        [B, L, W, H]; zeros where the map is flat.
    """
    # Only the sign of P - Threshold survives the normalisation; its size would underflow near P = Threshold.
    return signed_min_max(cam, malignant=torch.sigmoid(logit) >= threshold)


@dataclass(frozen=True)
class AverageCam:
    """AvgCAM over the nodule (eq. 8) and over the background (eq. 9), each [B] in [0, 1]."""

    nodule: Tensor
    background: Tensor


def average_cam(cam: Tensor, nodule: Tensor) -> AverageCam:
    """Eq. 8 and 9. ``cam`` is CAM_c and ``nodule`` is SEM (or a mask), both [B, L, W, H] in [0, 1]."""
    axes = _spatial(cam)
    background = 1.0 - nodule
    tiny = torch.finfo(cam.dtype).tiny
    return AverageCam(
        (cam * nodule).sum(dim=axes) / nodule.sum(dim=axes).clamp_min(tiny),
        (cam * background).sum(dim=axes) / background.sum(dim=axes).clamp_min(tiny),
    )


def cam_sem_loss(cam: Tensor, nodule: Tensor, *, margin: float = DEFAULT_MARGIN, mode: MarginMode = "nodule") -> Tensor:
    """CSL, [B]: the nodule's average CAM has to exceed the background's by ``margin`` (eq. 10; eq. 15: the reverse)."""
    average = average_cam(cam, nodule)
    missing = average.background - average.nodule
    return functional.relu((missing if mode == "nodule" else -missing) + margin)


def adaptive_cam_sem_loss(
    cam: Tensor,
    nodule: Tensor,
    logit: Tensor,
    *,
    margin: float = DEFAULT_MARGIN,
    mode: MarginMode = "nodule",
    threshold: float = THRESHOLD,
    constant_confidence: bool = False,
) -> Tensor:
    """ad-CSL, eq. 11: CSL weighted by the confidence ``2 |P - threshold|``; [B].

    Args:
        cam: CAM_c, [B, L, W, H] in [0, 1].
        nodule: SEM, [B, L, W, H] in [0, 1].
        logit: [B], S of eq. 4.
        margin: delta of eq. 10, or delta' of eq. 15.
        mode: Eq. 10 or eq. 15.
        threshold: Division point of eq. 7.
        constant_confidence: Treat the confidence as a constant of the step. In eq. 11 as printed, an undecided P lowers
            the loss: with CSL = d, P is pulled towards the threshold by 2 d. Near P = 0.5 this pull is as strong as the
            classification loss's, so a CAM that is not yet on the nodule (d close to the margin) keeps P at 0.5.
    """
    confidence = 2.0 * (torch.sigmoid(logit) - threshold).abs()
    if constant_confidence:
        confidence = confidence.detach()
    return confidence * cam_sem_loss(cam, nodule, margin=margin, mode=mode)


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """alpha, beta and gamma of eq. 12, all 1 in the paper."""

    cam: float = 1.0
    segmentation: float = 1.0
    score: float = 1.0


def total_loss(
    *, classification: Tensor, cam: Tensor, segmentation: Tensor, score: Tensor, weights: LossWeights | None = None
) -> Tensor:
    """Eq. 12, from the four scalar terms."""
    w = LossWeights() if weights is None else weights
    return classification + w.cam * cam + w.segmentation * segmentation + w.score * score
