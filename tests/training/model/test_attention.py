"""ARL blocks against their formula written out position by position (Zhang et al. 2019)."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch

from nodule_diag_training.model.attention import SpatialAttention, spatial_softmax
from nodule_diag_training.model.synergic import ResidualBlock


def block(*, attention: bool, final_relu: bool = True) -> ResidualBlock:
    torch.manual_seed(0)
    return ResidualBlock(8, 16, stride=2, dilation=1, final_relu=final_relu, attention=attention).eval()


@pytest.mark.parametrize("final_relu", [False, True])
def test_an_arl_block_is_its_formula(final_relu):
    """y = F(x) + x + alpha M(F(x)) x, position by position, from the block's own F(x) and shortcut."""
    arl = block(attention=True, final_relu=final_relu)
    x = torch.randn(2, 8, 6, 8, 4, generator=torch.Generator().manual_seed(1))
    alpha = 30.0  # large, since 24 positions share an attention of 1
    with torch.no_grad():
        arl.attention.alpha.fill_(alpha)
        found = arl(x).numpy()
        residual = arl.norm2(arl.conv2(torch.relu(arl.norm1(arl.conv1(x))))).double().numpy()
        shortcut = arl.projection_norm(arl.projection(x)).double().numpy()
    expected = np.zeros_like(residual)
    for b, channel in product(range(2), range(16)):
        positions = list(product(*(range(n) for n in residual.shape[2:])))
        total = sum(math.exp(residual[(b, channel, *p)]) for p in positions)
        for p in positions:
            at = (b, channel, *p)
            expected[at] = residual[at] + shortcut[at] * (1.0 + alpha * math.exp(residual[at]) / total)
    if final_relu:
        expected = np.maximum(expected, 0.0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_alpha_is_all_that_attention_adds_and_starts_at_0():
    plain, arl = block(attention=False), block(attention=True)
    added = {name: p for name, p in arl.named_parameters() if name not in dict(plain.named_parameters())}
    assert {name: p.numel() for name, p in added.items()} == {"attention.alpha": 1}
    assert added["attention.alpha"].item() == 0.0
    x = torch.randn(1, 8, 8, 8, 8)
    torch.testing.assert_close(arl(x), plain(x), rtol=0, atol=0)


def test_alpha_learns_from_0():
    arl = block(attention=True)
    arl(torch.randn(1, 8, 8, 8, 8)).square().sum().backward()
    assert arl.attention.alpha.grad.abs() > 0


def test_attention_adds_up_to_1_for_each_channel_and_survives_large_values():
    maps = spatial_softmax(1e4 * torch.randn(2, 3, 4, 5, 6))
    assert torch.isfinite(maps).all()
    torch.testing.assert_close(maps.sum(dim=(2, 3, 4)), torch.ones(2, 3))


def test_attention_is_computed_in_float32_at_least():
    half = torch.randn(1, 2, 4, 4, 4).bfloat16()
    assert spatial_softmax(half).dtype == torch.float32
    assert spatial_softmax(half.double()).dtype == torch.float64


def test_the_gradients_of_attention_are_those_of_finite_differences():
    attention = SpatialAttention().double()
    with torch.no_grad():
        attention.alpha.fill_(0.7)
    generator = torch.Generator().manual_seed(2)
    residual, shortcut = (
        torch.randn(1, 2, 2, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    assert torch.autograd.gradcheck(attention, (residual, shortcut))
