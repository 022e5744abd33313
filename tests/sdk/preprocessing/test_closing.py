"""The fast closing against scipy's literal grey closing, and its effect in millimetres."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nodule_diag.preprocessing.closing import LEVEL, closing
from nodule_diag.preprocessing.lungs import HALF_FALL_MM
from nodule_diag.preprocessing.mask import THRESHOLD
from nodule_diag.preprocessing.reference import grey_closing


def literal_closing(image: np.ndarray, spacing_zyx_mm: tuple[float, float, float], half_fall_mm: float) -> np.ndarray:
    """Grey dilation, then grey erosion, with the whole non-flat element written out in 3-D."""
    reach = [min(n - 1, math.ceil(1.5 * half_fall_mm / s)) for n, s in zip(image.shape, spacing_zyx_mm, strict=True)]
    offsets = np.meshgrid(
        *(np.arange(-r, r + 1) * s for r, s in zip(reach, spacing_zyx_mm, strict=True)), indexing="ij"
    )
    element = -0.5 * sum(offset**2 for offset in offsets) / half_fall_mm**2
    box = np.ones(element.shape, dtype=bool)
    dilated = ndimage.grey_dilation(image, footprint=box, structure=element, mode="constant", cval=-99.0)
    return ndimage.grey_erosion(dilated, footprint=box, structure=element, mode="constant", cval=99.0)


@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 8), st.integers(1, 9)),
    spacing=st.tuples(*[st.sampled_from([0.8, 1.0, 2.5])] * 3),
    half_fall=st.sampled_from([1.5, 2.0, 3.3]),
    share=st.sampled_from([0.05, 0.3, 0.7]),
)
@settings(max_examples=25)
def test_both_implementations_are_the_literal_grey_closing(seed, shape, spacing, half_fall, share) -> None:
    mask = np.random.default_rng(seed).random(shape) < share
    expected = literal_closing(mask.astype(np.float64), spacing, half_fall)
    fast = closing(mask, spacing, half_fall_mm=half_fall)
    # Two roundings of half a level on each of three axes.
    np.testing.assert_allclose(fast / LEVEL, expected, atol=6 * 0.5 / LEVEL + 1e-9)
    slow = grey_closing(mask.astype(np.float32), spacing, half_fall_mm=half_fall)
    np.testing.assert_allclose(slow, expected, atol=2e-6)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_closing_never_removes_and_never_leaves_the_range(seed: int) -> None:
    mask = np.random.default_rng(seed).random((6, 9, 9)) < 0.2
    closed = closing(mask, (2.0, 1.0, 1.0), half_fall_mm=2.0)
    assert (closed[mask] == LEVEL).all()
    assert closed.min() >= 0
    assert closed.max() <= LEVEL


def test_flat_pleura_moves_outwards_by_four_millimetres() -> None:
    mask = np.zeros((1, 1, 2000), dtype=bool)
    mask[..., :1000] = True
    closed = closing(mask, (1.0, 1.0, 0.1), half_fall_mm=HALF_FALL_MM) >= THRESHOLD * LEVEL
    moved_mm = (int(closed.sum()) - 1000) * 0.1
    assert moved_mm == pytest.approx((math.sqrt(2) - 1) * HALF_FALL_MM, abs=0.2)


@pytest.mark.parametrize(("gap_mm", "bridged"), [(19.0, True), (21.0, False)])
def test_bridges_gaps_up_to_twice_the_half_fall_distance(gap_mm: float, bridged: bool) -> None:
    mask = np.ones((1, 1, 1000), dtype=bool)
    mask[..., 400 : 400 + round(gap_mm / 0.1)] = False
    closed = closing(mask, (1.0, 1.0, 0.1), half_fall_mm=HALF_FALL_MM) >= THRESHOLD * LEVEL
    assert bool(closed.all()) is bridged


@pytest.mark.parametrize("depth", [0.3, 0.5])
def test_covers_a_juxta_pleural_nodule_of_20_mm(depth: float) -> None:
    """A sphere on a flat pleura, its centre ``depth`` diameters inside: the part inside the chest cavity counts."""
    z, y, x = np.mgrid[-40:40, -30:30, -30:30].astype(float)
    cavity = z < 0
    nodule = ((z + depth * 20) ** 2 + x**2 + y**2 <= 10.0**2) & cavity
    closed = closing(cavity & ~nodule, (1.0, 1.0, 1.0), half_fall_mm=HALF_FALL_MM) >= THRESHOLD * LEVEL
    assert closed[nodule].mean() >= 0.99
