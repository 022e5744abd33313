"""Winograd's filtering against torch's own convolution, in values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from nodule_diag_training.model.winograd import (
    INPUT_TRANSFORM,
    KERNEL_TRANSFORM,
    OUTPUT_TRANSFORM,
    DilatedConv3d,
    pays,
    winograd_conv3d,
)

TOLERANCE = 1e-4
"""Of the largest value, in float32."""


def _relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_the_transforms_filter_one_line_exactly() -> None:
    rng = np.random.default_rng(0)
    line, kernel = rng.normal(size=6), rng.normal(size=3)
    ours = OUTPUT_TRANSFORM @ ((KERNEL_TRANSFORM @ kernel) * (INPUT_TRANSFORM @ line))
    np.testing.assert_allclose(ours, np.correlate(line, kernel, mode="valid"), atol=1e-12)


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(1, 18), st.integers(1, 18), st.integers(1, 18)),
    dilation=st.sampled_from([1, 2, 3, 4]),
    seed=st.integers(0, 2**16),
)
def test_any_grid_and_dilation(size: tuple[int, int, int], dilation: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, weight = torch.randn(2, 3, *size), torch.randn(5, 3, 3, 3, 3)
    theirs = functional.conv3d(x, weight, padding=dilation, dilation=dilation)
    assert _relative_error(winograd_conv3d(x, weight, dilation=dilation), theirs) < TOLERANCE


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_gradients_are_those_of_the_direct_convolution(dilation: int) -> None:
    torch.manual_seed(dilation)
    x = torch.randn(2, 8, 16, 16, 16).to(memory_format=torch.channels_last_3d).requires_grad_()
    weight = torch.randn(6, 8, 3, 3, 3).requires_grad_()
    upstream = torch.randn(2, 6, 16, 16, 16)
    outputs = (
        winograd_conv3d(x, weight, dilation=dilation),
        functional.conv3d(x, weight, padding=dilation, dilation=dilation),
    )
    gradients = [torch.autograd.grad(output, (x, weight), upstream) for output in outputs]
    for ours, theirs in zip(*gradients, strict=True):
        assert _relative_error(ours, theirs) < TOLERANCE


def test_only_training_takes_the_short_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def recorded(x: Tensor, weight: Tensor, *, dilation: int) -> Tensor:
        calls.append((weight is layer.weight, dilation))
        return x

    monkeypatch.setattr("nodule_diag_training.model.winograd.winograd_conv3d", recorded)
    layer = DilatedConv3d(2, 2, 3, padding=2, dilation=2, bias=False)
    x = torch.randn(1, 2, 8, 8, 8)
    layer.eval()(x)
    assert not calls
    layer.train()(torch.randn(1, 2, 4, 4, 4))  # two of a tile's four cells would be padding
    assert not calls
    layer(x)
    assert calls == [(True, 2)]


@pytest.mark.parametrize(("size", "dilation", "expected"), [(16, 4, True), (8, 2, True), (8, 4, False), (10, 2, False)])
def test_it_pays_where_tiles_fit(size: int, dilation: int, expected: bool) -> None:
    assert pays([size] * 3, dilation) is expected
