"""Faithfulness figures against literal definitions, and on maps whose figures are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nodule_diag.ct import distance_from_middle
from nodule_diag_training.data.confounder import cue_present, dilated, with_cue
from nodule_diag_training.data.patches import Sample
from nodule_diag_training.experiments.faithfulness import (
    CURVE_STEPS,
    blur,
    cam_figures,
    cells,
    curve_area,
    energy_share,
    pointing,
    threshold_iou,
)
from nodule_diag_training.losses import paper as losses

SIDE = 32
GRID = SIDE // 4


def ball_sample(radius: float = 6.0, *, seed: int = 0) -> Sample:
    """A ball of 6 mm in the middle of noise."""
    ball = (distance_from_middle((SIDE,) * 3) <= radius).astype(np.float32)
    noise = np.random.default_rng(seed).uniform(0.1, 0.4, (2, SIDE, SIDE, SIDE))
    return Sample(patch=(noise + 0.5 * ball).astype(np.float32), occupancy=ball)


def test_dilation_is_every_voxel_within_two_millimetres():
    mask = np.zeros((16, 16, 16), dtype=bool)
    mask[7, 7, 7] = mask[7, 7, 9] = True
    literal = np.zeros_like(mask)
    for voxel in np.argwhere(np.ones_like(mask)):
        literal[tuple(voxel)] = min(np.linalg.norm((voxel - m) * 0.5) for m in np.argwhere(mask)) <= 2.0
    sample = Sample(patch=np.zeros((2, 16, 16, 16), np.float32), occupancy=mask.astype(np.float32))
    np.testing.assert_array_equal(dilated(sample), literal)
    assert not dilated(replace(sample, occupancy=np.zeros_like(sample.occupancy))).any()
    # In an enlarged cube (Table 5) 2 mm are more voxels.
    assert dilated(replace(sample, spacing_mm=0.25)).sum() > 4 * literal.sum()


def test_a_perfect_map_a_uniform_one_and_an_inverted_one():
    sample = ball_sample()
    inside = sample.nodule_cells
    perfect = cam_figures(inside.astype(np.float32), sample)
    assert (perfect.energy, perfect.pointing, perfect.iou) == (pytest.approx(1.0), 1.0, 1.0)
    assert perfect.margin > 0.5, "the ball fills its cells only by half"
    uniform = cam_figures(np.ones((GRID,) * 3, dtype=np.float32), sample)
    around = cells(dilated(sample))
    assert uniform.margin == pytest.approx(0.0, abs=1e-6)
    assert uniform.energy == pytest.approx(around.mean(), rel=1e-6)
    assert uniform.pointing == pytest.approx((around >= 0.5).mean())
    assert uniform.iou == pytest.approx(inside.mean())
    inverted = cam_figures((around == 0.0).astype(np.float32), sample)
    assert (inverted.energy, inverted.pointing, inverted.iou) == (0.0, 0.0, 0.0)
    assert inverted.margin < -0.8
    flat = cam_figures(np.zeros((GRID,) * 3, dtype=np.float32), sample)
    assert flat.energy is None


maps = arrays(np.float32, (3, 3, 3), elements=st.floats(0.0, 1.0, width=32, allow_subnormal=False))


@settings(max_examples=30)
@given(maps, arrays(np.bool_, (3, 3, 3)))
def test_figures_are_their_literal_definitions(cam, mask):
    places = [tuple(i) for i in np.argwhere(np.ones_like(mask))]
    total = sum(float(cam[p]) for p in places)
    share = energy_share(cam, mask.astype(np.float32))
    if total == 0.0:
        assert share is None
    else:
        assert share == pytest.approx(sum(float(cam[p]) for p in places if mask[p]) / total)
    best = max(cam[p] for p in places)
    peaks = [p for p in places if cam[p] == best]
    assert pointing(cam, mask) == pytest.approx(sum(bool(mask[p]) for p in peaks) / len(peaks))
    if mask.any():
        high = {p for p in places if cam[p] >= 0.5}
        true = {p for p in places if mask[p]}
        assert threshold_iou(cam, mask) == pytest.approx(len(high & true) / len(high | true))


@settings(max_examples=20)
@given(maps, maps)
def test_the_sdks_averages_are_those_that_training_uses(cam, occupancy):
    sample = Sample(patch=np.zeros((2, 12, 12, 12), np.float32), occupancy=_fine(occupancy))
    figures = cam_figures(cam, sample)
    expected = losses.average_cam(torch.from_numpy(cam)[None], torch.from_numpy(cells(_fine(occupancy)))[None])
    assert figures.nodule == pytest.approx(expected.nodule.item(), abs=1e-5)
    assert figures.background == pytest.approx(expected.background.item(), abs=1e-5)


def _fine(grid):
    return np.kron(grid, np.ones((4, 4, 4), dtype=np.float32))


def brightness(patches):
    """A classifier that looks at the ball alone: how much brighter the middle is than the blurred patch."""
    return np.clip(patches[:, 0, 12:20, 12:20, 12:20].mean(axis=(1, 2, 3)), 0.0, 1.0)


def test_curves_reward_the_map_that_is_on_the_nodule():
    sample = ball_sample()
    on_nodule = cells(sample.occupancy)
    right = cam_figures(on_nodule, sample, classifier=brightness)
    wrong = cam_figures(1.0 - on_nodule, sample, classifier=brightness)
    assert right.deletion < wrong.deletion
    assert right.insertion > wrong.insertion


def test_the_curve_is_the_trapezoid_over_literally_edited_patches():
    sample = ball_sample(seed=3)
    end = blur(sample)
    cam = np.random.default_rng(4).permutation(GRID**3).reshape((GRID,) * 3).astype(np.float32) / GRID**3
    order = sorted(np.ndindex(cam.shape), key=lambda place: -cam[place])
    values = []
    for step in range(CURVE_STEPS + 1):
        patch = sample.patch.copy()
        for z, y, x in order[: GRID**3 * step // CURVE_STEPS]:
            block = (slice(None), slice(4 * z, 4 * z + 4), slice(4 * y, 4 * y + 4), slice(4 * x, 4 * x + 4))
            patch[block] = end[block]
        values.append(float(brightness(patch[None])[0]))
    area = sum((a + b) / 2 for a, b in pairwise(values)) / CURVE_STEPS
    assert curve_area(sample.patch, end, cam, brightness) == pytest.approx(area, rel=1e-5)
    assert values[0] != pytest.approx(values[-1], rel=0.05)


def test_the_cue_is_in_the_background_alone_and_of_its_amplitude():
    sample = ball_sample()
    cued = with_cue(sample, hu=70.0)
    change = cued.patch - sample.patch
    near = dilated(sample)
    assert not change[:, near].any()
    assert np.abs(change[0][~near]).max() == pytest.approx(70.0 / 1400.0, rel=1e-3)
    assert np.abs(change[1][~near]).max() == pytest.approx(min(70.0 / 400.0, 0.4), rel=0.2)
    # A period of 4 mm is 8 voxels: the change repeats along z and is the same all over a slice.
    column = change[0][:, 0, 0]
    np.testing.assert_allclose(column[8:], column[:-8], atol=1e-5)
    air = Sample(patch=np.zeros_like(sample.patch), occupancy=sample.occupancy)
    assert not with_cue(air, hu=70.0).patch.any(), "nothing shows outside a window"


def test_the_cue_tells_the_label_in_training_and_not_in_the_tests(paired_nodules):
    nodules = [replace(paired_nodules[0], patient_id=f"p{i}") for i in range(2000)]
    agree = {
        test: np.mean([cue_present(n, malignant=i % 2 == 0, test=test) == (i % 2 == 0) for i, n in enumerate(nodules)])
        for test in ("as trained", "independent", "reversed")
    }
    assert agree["as trained"] == pytest.approx(0.9, abs=0.02)
    assert agree["independent"] == pytest.approx(0.5, abs=0.03)
    assert agree["reversed"] == 0.0
    assert not any(cue_present(n, malignant=True, test="none") for n in nodules)
