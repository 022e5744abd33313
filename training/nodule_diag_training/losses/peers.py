"""Losses of other authors that the paper compares its own with: CAM-loss (Table 1) and scores as classes (Table 3).

All take batches and return one value for each nodule.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .paper import min_max, signed_min_max

SCORES = 5
"""Malignancy scores of the readers, 1..5: RNet's outputs where it learns them as classes (Table 3)."""


def cam_loss(cam: Tensor, activation: Tensor, label: Tensor) -> Tensor:
    """CAM-loss: how far the CAM of the target class is from the class-agnostic activation map (CAAM).

    Wang et al., "Towards Learning Spatially Discriminative Feature Representations" (ICCV 2021): with both maps min-max
    normalised, ``L_cam = 1 / (L W H) sum over positions |CAAM' - CAM'|``, where CAAM is the sum of the feature maps and
    CAM their sum weighted by the classifier's weights for the target class. A classifier of one output has those of
    the malignant class; the benign class has their negative. The gradient reaches the features through both maps.

    Args:
        cam: [B, L, W, H], eq. 5.
        activation: [B, L, W, H], the sum of f_k over k.
        label: [B], 1 malignant, 0 benign.

    Returns:
        [B] in [0, 1].
    """
    target = signed_min_max(cam, malignant=label >= 0.5)
    return (min_max(activation) - target).abs().mean(dim=tuple(range(1, cam.ndim)))


def score_cross_entropy(logits: Tensor, score: Tensor) -> Tensor:
    """Cross-entropy over the readers' scores as five unrelated classes (Table 3, CE).

    Args:
        logits: [B, 5] for the scores 1 to 5.
        score: [B] int64, 1..5.

    Returns:
        [B].
    """
    return functional.cross_entropy(logits, score - 1, reduction="none")


def ordinal_labels(score: Tensor, *, scores: int = SCORES) -> Tensor:
    """Soft labels of Diaz and Marathe, "Soft Labels for Ordinal Regression" (CVPR 2019), eq. 1.

    ``y_i = exp(-phi(t, i)) / sum over k of exp(-phi(t, k))``, with the squared distance ``phi(t, i) = (t - i)^2`` in
    units of one reader score: the true score gets 0.56 for t = 3 (0.72 at the ends), each neighbour e^-1 of that.

    Args:
        score: [B], 1..``scores``.
        scores: Number of scores.

    Returns:
        [B, scores], rows that add up to 1.
    """
    ranks = torch.arange(1, scores + 1, device=score.device, dtype=torch.float32)
    return torch.softmax(-((score[:, None] - ranks) ** 2), dim=1)


def ordinal_loss(logits: Tensor, score: Tensor) -> Tensor:
    """Cross-entropy with :func:`ordinal_labels` (Table 3, Ord); [B, 5] and [B] in 1..5 give [B]."""
    return functional.cross_entropy(logits, ordinal_labels(score), reduction="none")
