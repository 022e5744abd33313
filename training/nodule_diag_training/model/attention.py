"""Spatial attention of an ARL block (Zhang, Xie, Xia and Shen 2019), in three dimensions, for systems E and G.

An attention residual learning block adds a third term to a residual block's two, and no layer of its own. The residual
branch's output, normalised over all positions, weights the shortcut:

    y = F(x) + x + alpha * M(F(x)) * x,    M(F)_k(p) = exp(F_k(p)) / sum over positions q of exp(F_k(q)),

for every channel k ("Attention Residual Learning for Skin Lesion Classification", IEEE TMI 38(9), 2019). alpha is
learned, one scalar for each block, so that Table 1's parameter counts of E and G are those of D and F. Choices of this
adaptation: positions are the cells of the 3-D grid; x is the *projected* shortcut, since the blocks of Fig. 2 change
the number of channels; F is the branch after its last normalisation; alpha starts at 0, where E is D and G is F.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

INITIAL_ALPHA = 0.0


def spatial_softmax(features: Tensor) -> Tensor:
    """M: [B, C, L, W, H] to maps that add up to 1 over the positions of each channel, in float32 or better."""
    logits = features.to(torch.promote_types(features.dtype, torch.float32))
    return torch.exp(logits - logits.logsumexp(dim=(2, 3, 4), keepdim=True))


class SpatialAttention(nn.Module):
    """The attention term of an ARL block."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(INITIAL_ALPHA))

    def forward(self, residual: Tensor, shortcut: Tensor) -> Tensor:
        """``alpha * M(residual) * shortcut``, all [B, C, L, W, H]."""
        return self.alpha * spatial_softmax(residual) * shortcut
