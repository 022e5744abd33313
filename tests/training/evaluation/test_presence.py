"""What is said of lung without a nodule, and presence as it is calibrated on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nodule_diag.backends import Outputs
from nodule_diag.ct import chest_phantom
from nodule_diag.preprocessing import lung_mask
from nodule_diag_training.data.nodule import LungPlace
from nodule_diag_training.evaluation import metrics
from nodule_diag_training.evaluation.presence import (
    CLEARANCE_MM,
    Answer,
    TorchBackend,
    ask,
    fit_presence,
    lung_section,
    random_lung_positions,
    whole_patches,
)
from nodule_diag_training.losses import class_cam
from nodule_diag_training.model.synergic import SynergicModel
from nodule_diag_training.systems import SYSTEMS
from tiny_nodules import make_lung


def answer(evidence: float, *, kind: str = "nodule", malignancy: float = 0.2, found_mm: float = 5.0) -> Answer:
    return Answer(
        case_id=f"{kind}-{evidence}",
        patient_id="p",
        kind=kind,
        diameter_mm=0.0,
        malignancy=malignancy,
        expert_score=3.0,
        found_mm=found_mm,
        evidence=evidence,
    )


@pytest.fixture
def few_draws(monkeypatch) -> None:
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 10)


def test_the_fit_gives_back_the_odds_that_made_the_evidence():
    """Two normals of deviation 1 at -1 and 1: the true log-odds are 2 e; there are ten times as many of one kind."""
    rng = np.random.default_rng(0)
    nodules = [answer(float(e)) for e in rng.normal(1, 1, 400)]
    lung = [answer(float(e), kind="blob") for e in rng.normal(-1, 1, 4000)]
    fitted = fit_presence([*nodules, *lung])
    assert fitted.scale == pytest.approx(2.0, abs=0.25)
    assert fitted.shift == pytest.approx(0.0, abs=0.25)
    passing = np.mean([fitted.of_evidence(a.evidence) >= fitted.warn_below for a in nodules])
    assert 0.99 <= passing < 1.0


def test_the_section_counts_what_it_says(few_draws):
    nodules = [answer(e) for e in (1.0, 2.0, 3.0)]
    blobs = [answer(e, kind="blob", malignancy=0.6) for e in (-1.0, 1.5)]
    lung = [answer(e, kind="lung", found_mm=0.0) for e in (-3.0, -2.0)]
    answers = [*nodules, *blobs, *lung]
    rows = {row.metric.strip(): row for row in lung_section("x", answers, fit_presence(answers)).rows}
    assert rows["against blobs"].value == pytest.approx(5 / 6)
    assert rows["Presence, AUC: nodules against any lung"].value == pytest.approx(11 / 12)
    assert rows["Flagged at the warning's threshold: any lung"].value == pytest.approx(0.75)
    assert rows["blobs"].value == pytest.approx(0.5)
    assert rows["Lung: share with P of 0.5 and more"].value == pytest.approx(0.5)
    assert rows["and not flagged"].value == pytest.approx(0.25)  # the blob at 1.5, above the lowest nodule
    assert rows["Lung: diameter found, mm, median"].value == pytest.approx(2.5)
    assert rows["Lung: nothing found"].value == pytest.approx(0.5)
    assert rows["Nodules: nothing found"].value == 0.0
    without = lung_section("x", [*nodules, *lung], fit_presence(answers)).rows
    assert not any("blobs" in row.metric for row in without)


def test_random_positions_lie_in_the_lung_away_from_nodules():
    phantom = chest_phantom(spacing_zyx_mm=(2.5, 2.0, 2.0))
    nodule = phantom.nodules[0].center_xyz_mm
    points = random_lung_positions(phantom.ct, count=20, seed=3, nodules_xyz_mm=[nodule])
    again = random_lung_positions(phantom.ct, count=20, seed=3, nodules_xyz_mm=[nodule])
    np.testing.assert_array_equal(points, again)
    assert points.shape == (20, 3)
    assert len(np.unique(points, axis=0)) == 20
    lungs = lung_mask(phantom.ct)
    assert all(lungs.contains(point) for point in points)
    assert np.linalg.norm(points - np.asarray(nodule), axis=1).min() >= CLEARANCE_MM


class _Echo:
    """A backend that finds a ball in bright patches, and says how many patches it was asked for at once."""

    name, device, precision, threads, batch = "echo", "cpu", "fp32", 1, 3

    def infer(self, patches):
        bright = patches[:, 0, 32, 32, 32]
        maps = np.zeros((len(patches), 16, 16, 16), dtype=np.float32)
        maps[:, 6:10, 6:10, 6:10] = (bright > 0.5)[:, None, None, None]
        return Outputs(malignancy=bright, logit=bright, expert_score=1 + bright, segmentation=maps, cam=maps)


def test_every_place_is_asked_about_in_order():
    places, _ = make_lung()
    patches = [np.full((2, 64, 64, 64), value, dtype=np.float32) for value in (0.1, 0.9, 0.2, 0.8)]
    said = ask(_Echo(), places, patches)
    assert [a.case_id for a in said] == [p.case_id for p in places]
    assert [a.malignancy for a in said] == pytest.approx([0.1, 0.9, 0.2, 0.8])
    assert [a.kind for a in said] == ["blob", "lung", "blob", "lung"]
    assert [a.found_mm > 0 for a in said] == [False, True, False, True]
    assert said[1].evidence > said[0].evidence


def test_a_place_is_seen_as_it_lies_in_its_cube(tiny_nodules, tiny_voxels):
    cubes = [n for n in tiny_nodules if n.is_cube]
    places, voxels = make_lung()
    nodules = [*cubes, *places]
    patches = whole_patches(nodules, {**tiny_voxels, **voxels})
    lung = voxels[places[0].case_id]
    np.testing.assert_array_equal(patches[4][:, 2:62, 2:62, 2:62], lung.channels.astype(np.float32))
    assert all(isinstance(n, LungPlace) == (i >= 4) for i, n in enumerate(nodules))


def test_a_torch_model_answers_as_a_backend():
    torch.manual_seed(0)
    model = SynergicModel()
    patches = np.random.default_rng(0).random((1, 2, 64, 64, 64), dtype=np.float32)
    outputs = TorchBackend(model).infer(patches)
    with torch.inference_mode():
        output = model(torch.from_numpy(patches))
    assert outputs.malignancy == pytest.approx(torch.sigmoid(output.logit).numpy())
    assert outputs.expert_score == pytest.approx(1 + 4 * output.score.numpy())
    np.testing.assert_allclose(outputs.cam, class_cam(output.cam, output.logit).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match="lacks"):
        TorchBackend(SynergicModel(SYSTEMS["A"])).infer(patches)
