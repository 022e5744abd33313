"""Test-time symmetry for a model in PyTorch, to measure what the SDK's option (``symmetry``) is worth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nodule_diag.backends import SYMMETRIES, Symmetry, require_views
from nodule_diag_training.model import SynergicModel, SynergicOutput


def _turned(array: Tensor, symmetry: Symmetry) -> Tensor:
    lead = array.ndim - 3
    turned = array.permute(*range(lead), *(lead + axis for axis in symmetry.order))
    return turned.flip([lead + axis for axis, flip in enumerate(symmetry.flips) if flip])


def _back(array: Tensor, symmetry: Symmetry) -> Tensor:
    lead = array.ndim - 3
    flipped = array.flip([lead + axis for axis, flip in enumerate(symmetry.flips) if flip])
    inverse = [symmetry.order.index(axis) for axis in range(3)]
    return flipped.permute(*range(lead), *(lead + axis for axis in inverse))


def _mean(values: list[Tensor | None]) -> Tensor | None:
    there = [value for value in values if value is not None]
    return torch.stack(there).mean(dim=0) if there else None


class SymmetricModel(nn.Module):
    """Averages a model over views of each patch: S, CAM (eq. 5, before normalisation), SEM and score."""

    def __init__(self, model: SynergicModel, *, views: int) -> None:
        super().__init__()
        self.model = model
        self.symmetries = SYMMETRIES[: require_views(views)]

    def forward(self, patch: Tensor) -> SynergicOutput:
        """Map [B, 2, S, S, S] as the model does."""
        logits: list[Tensor | None] = []
        cams: list[Tensor | None] = []
        sems: list[Tensor | None] = []
        scores: list[Tensor | None] = []
        classes: list[Tensor | None] = []
        pooled: list[Tensor] = []
        for symmetry in self.symmetries:
            output: SynergicOutput = self.model(_turned(patch, symmetry))
            logits.append(output.logit)
            cams.append(None if output.cam is None else _back(output.cam, symmetry))
            segmentation = output.segmentation_logit
            sems.append(None if segmentation is None else _back(torch.sigmoid(segmentation), symmetry))
            scores.append(output.score)
            classes.append(output.score_logits)
            pooled.append(output.pooled)
        sem = _mean(sems)
        return SynergicOutput(
            logit=_mean(logits),
            cam=_mean(cams),
            segmentation_logit=None if sem is None else torch.logit(sem, eps=torch.finfo(sem.dtype).eps),
            score=_mean(scores),
            score_logits=_mean(classes),
            pooled=torch.stack(pooled).mean(dim=0),
        )
