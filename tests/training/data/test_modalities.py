"""Table 5's inputs: what is cut, enlarged and padded, and that nodules of all sizes learn together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from nodule_diag_training.config import Stage, TrainingConfig
from nodule_diag_training.data.draws import PairSource, same_sized
from nodule_diag_training.data.modalities import MINIMUM_SIDE, as_input, cube_side
from nodule_diag_training.data.patches import PatchSampler, Sample
from nodule_diag_training.engine.objective import step_losses
from nodule_diag_training.engine.run import Run
from nodule_diag_training.engine.shares import TermCounts, count_terms, weigh
from nodule_diag_training.evaluation.judgement import judge, samples_of
from nodule_diag_training.model import synergic as model_module
from nodule_diag_training.model.synergic import SynergicOutput, build_model

SIZE = 32


def sample(*, size: int = SIZE, radius: float = 4.0, seed: int = 0) -> Sample:
    """A smooth random patch with a ball in its middle."""
    rng = np.random.default_rng(seed)
    patch = np.stack([ndimage.gaussian_filter(rng.random((size,) * 3), 2.0) for _ in range(2)]).astype(np.float32)
    grid = np.indices((size,) * 3) - (size - 1) / 2
    return Sample(patch=patch, occupancy=(np.sqrt((grid**2).sum(axis=0)) <= radius).astype(np.float32))


@pytest.mark.parametrize(
    ("diameter_mm", "side"),
    [(3.0, 8), (4.0, 8), (4.1, 12), (8.0, 16), (15.9, 32), (16.0, 32), (16.5, 32), (29.9, 32)],
)
def test_the_cube_is_the_diameter_in_whole_cells(diameter_mm, side):
    assert cube_side(diameter_mm, size=SIZE) == side


@given(diameter=st.floats(3.0, 29.99))
def test_a_cube_in_a_full_patch_holds_the_nodule_and_less_than_a_cell_more(diameter):
    side = cube_side(diameter, size=64)
    assert side % 4 == 0
    assert side == MINIMUM_SIDE or diameter <= side * 0.5 < diameter + 2.0


@pytest.mark.parametrize("diameter", [0.0, -1.0, float("nan")])
def test_a_nodule_without_a_size_is_refused(diameter):
    with pytest.raises(ValueError, match="above 0"):
        cube_side(diameter, size=64)


def test_x_is_the_middle_of_the_patch():
    whole = sample()
    cube = as_input(whole, "x", diameter_mm=8.0)
    np.testing.assert_array_equal(cube.patch, whole.patch[:, 8:24, 8:24, 8:24])
    np.testing.assert_array_equal(cube.occupancy, whole.occupancy[8:24, 8:24, 8:24])
    assert cube.nodule.shape == (4, 4, 4)
    assert cube.spacing_mm == 0.5
    assert as_input(whole, "64", diameter_mm=8.0) is whole


def test_x_follows_the_nodules_position_and_stays_inside():
    whole = sample()
    cube = as_input(whole, "x", diameter_mm=4.0, center=(9.5, 20.4, 30.0))
    np.testing.assert_array_equal(cube.patch, whole.patch[:, 6:14, 17:25, 24:32])


def test_padding_is_zero_round_the_cube():
    whole = sample(radius=6.0)
    padded = as_input(whole, "x-padding-64", diameter_mm=8.0)
    inside = np.zeros((SIZE,) * 3, dtype=bool)
    inside[8:24, 8:24, 8:24] = True
    np.testing.assert_array_equal(padded.patch, np.where(inside, whole.patch, 0.0))
    np.testing.assert_array_equal(padded.occupancy, np.where(inside, whole.occupancy, 0.0))


def test_resizing_is_scipys_cubic_zoom_and_the_mask_follows():
    whole = sample(radius=5.0)
    resized = as_input(whole, "x-resize-64", diameter_mm=8.0)
    cube = as_input(whole, "x", diameter_mm=8.0)
    expected = np.stack([ndimage.zoom(c, 2, order=3, mode="mirror", grid_mode=True) for c in cube.patch])
    # scipy's grid mode reflects positions beyond the outer centres otherwise; all but the outer voxel must agree.
    np.testing.assert_allclose(resized.patch[:, 1:-1, 1:-1, 1:-1], expected[:, 1:-1, 1:-1, 1:-1], atol=1e-4)
    assert resized.occupancy.shape == (SIZE,) * 3
    assert 0.0 <= resized.occupancy.min() <= resized.occupancy.max() <= 1.0
    mask = ndimage.zoom(cube.occupancy, 2, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(resized.occupancy, mask, atol=1e-5)
    assert resized.occupancy.mean() == pytest.approx(cube.occupancy.mean(), rel=0.02)
    assert resized.spacing_mm == 0.25


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(model_module, "HEAD_CHANNELS", 8)
    monkeypatch.setattr(model_module, "BLOCKS", ((8, 2, 1), (16, 1, 2), (32, 1, 4)))
    monkeypatch.setattr(model_module, "FEATURE_CHANNELS", 32)
    monkeypatch.setattr(model_module, "SEGNET_CHANNELS", 8)


STEPS = 6
CONFIG = TrainingConfig(system="D+ad-CSL", cohort="all", input="x", stages=(Stage(size=SIZE, steps=STEPS),), margin=0.9)


def test_cubes_are_drawn_round_the_nodules_centre(tiny_nodules, tiny_voxels):
    source = PairSource(CONFIG, tiny_nodules, tiny_voxels)
    for step in range(STEPS):
        for draw in [d for drawn in source.draw(step) for d in drawn]:
            side = cube_side(draw.nodule.diameter_mm, size=SIZE)
            assert draw.sample.patch.shape == (2, side, side, side)
            middle = ndimage.center_of_mass(draw.sample.occupancy)
            np.testing.assert_allclose(middle, (side - 1) / 2, atol=0.75)


def test_the_whole_patch_keeps_its_jitter(tiny_nodules, tiny_voxels):
    source = PairSource(CONFIG.model_copy(update={"input": "64"}), tiny_nodules, tiny_voxels)
    drawn = [d for step in range(STEPS) for kind in source.draw(step) for d in kind]
    middles = np.array([ndimage.center_of_mass(d.sample.occupancy) for d in drawn])
    assert np.abs(middles - (SIZE - 1) / 2).max() > 1.5


def test_the_parts_of_a_step_of_cubes_add_up_to_it(narrow, tiny_nodules, tiny_voxels):
    """Gradients of the parts, weighed, against the mean over nodules taken one by one."""
    config = CONFIG.model_copy(update={"unsure_per_step": 4, "sure_per_step": 2})
    torch.manual_seed(0)
    model = build_model(config)
    unsure, sure = PairSource(config, tiny_nodules, tiny_voxels).draw(1)
    parts = same_sized(unsure, sure)
    assert len(parts) > 1
    assert sum(len(u) + len(s) for u, s in parts) == 6

    def run(unsure, sure):
        batch = torch.from_numpy(np.stack([d.sample.patch for d in [*unsure, *sure]]))
        return step_losses(model(batch), unsure, sure, config)

    whole = count_terms(unsure, sure, config)
    for u, s in parts:
        weigh(run(u, s), part=count_terms(u, s, config), whole=whole).total.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    segmentation = [run([d], []).segmentation for d in unsure]
    score = [run([d], []).score for d in unsure]
    taught = [run([], [d]) for d in sure]
    total = sum(segmentation) / 4 + sum(score) / 4 + sum(t.classification + t.cam for t in taught) / 2
    total.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-3, msg=name)
    assert sum((count_terms(u, s, config) for u, s in parts), TermCounts()) == whole


@pytest.mark.parametrize("modality", ["x", "x-resize-64", "x-padding-64"])
def test_a_diameter_is_in_mm_whatever_the_modality(modality, tiny_nodules):
    """A model that segments nothing is wrong by the whole nodule: 8 voxels of 0.5 mm, enlarged or not."""

    class Blind(torch.nn.Module):
        def forward(self, patch):
            grid = patch.shape[-1] // 4
            nothing = torch.full((len(patch), grid, grid, grid), -9.0)
            pooled = torch.zeros(len(patch), 1)
            return SynergicOutput(logit=None, cam=None, pooled=pooled, segmentation_logit=nothing, score=None)

    shown = as_input(sample(radius=4.0), modality, diameter_mm=8.0)
    (found,) = judge(Blind(), tiny_nodules[:1], [shown], fold=0, form="cube")
    assert found.diameter_error_mm == pytest.approx(-4.0, abs=0.15)


@pytest.mark.parametrize("modality", ["x", "x-resize-64", "x-padding-64"])
def test_every_modality_trains_validates_and_is_judged(modality, narrow, tmp_path, tiny_nodules, tiny_voxels):
    config = CONFIG.model_copy(
        update={
            "input": modality,
            "stages": (Stage(size=SIZE, steps=2),),
            "validation_share": 0.5,
            "best_by": "total",
        }
    )
    twice = [replace(n, case_id=f"{n.case_id}-b", patient_id=f"{n.patient_id}-b") for n in tiny_nodules]
    voxels = dict(tiny_voxels) | {f"{name}-b": v for name, v in tiny_voxels.items()}
    nodules = [*tiny_nodules, *twice]
    model = Run(tmp_path, config=config, nodules=nodules, voxels=voxels).train()
    samples = samples_of(tiny_nodules, voxels, PatchSampler(voxels, nodules), form="cube", modality=modality)
    found = judge(model.eval(), tiny_nodules, samples, fold=0, form="cube")
    assert all(np.isfinite([j.malignancy, j.expert_score, j.dice_half_mm, j.margin]).all() for j in found)
    for nodule, judgement, shown in zip(tiny_nodules, found, samples, strict=True):
        (alone,) = judge(model, [nodule], [shown], fold=0, form="cube")
        assert alone.malignancy == pytest.approx(judgement.malignancy, abs=1e-5)
