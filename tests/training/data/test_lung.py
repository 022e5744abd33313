"""Lung without a nodule: drawn and cut as nodules are, and taught nothing but that there is none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nodule_diag_training.config import RECIPE, Stage, TrainingConfig
from nodule_diag_training.data.draws import PairSource
from nodule_diag_training.data.lung import (
    CLEARANCE,
    THINNEST,
    LungSource,
    boxes_beside,
    load_lung,
    load_lung_voxels,
    piece_like,
    with_lung,
)
from nodule_diag_training.data.nodule import LungPlace, TrainingDataError
from nodule_diag_training.data.patches import PatchSampler
from nodule_diag_training.data.training_data import TrainingData
from nodule_diag_training.data.voxels import EXTENSION, NoduleVoxels
from nodule_diag_training.engine.objective import step_losses
from nodule_diag_training.engine.run import Run
from nodule_diag_training.engine.shares import TermCounts, count_terms
from nodule_diag_training.losses import paper as losses
from nodule_diag_training.model.synergic import SynergicOutput
from tiny_nodules import make_lung

CONFIG = RECIPE.model_copy(
    update={"stages": (Stage(size=32, steps=2),), "unsure_per_step": 3, "precision": "fp32", "seed": 3}
)


@pytest.fixture(scope="module")
def places():
    return make_lung()[0]


@pytest.fixture(scope="module")
def everything(tiny_nodules, tiny_voxels):
    places, voxels = make_lung()
    return [*tiny_nodules, *places], {**tiny_voxels, **voxels}


def test_a_step_draws_the_same_nodules_and_then_lung(tiny_nodules, everything):
    nodules, voxels = everything
    with_, without = (
        PairSource(CONFIG.model_copy(update={"lung_per_step": count}), nodules, voxels) for count in (2, 0)
    )
    for step in range(2):
        drawn, plain = with_.draw(step)[0], without.draw(step)[0]
        assert [d.nodule.case_id for d in drawn[:3]] == [d.nodule.case_id for d in plain]
        for one, two in zip(drawn[:3], plain, strict=True):
            np.testing.assert_array_equal(one.sample.patch, two.sample.patch)
        assert all(isinstance(d.nodule, LungPlace) for d in drawn[3:])
        assert len(drawn) == 5
        for d in drawn[3:]:
            assert d.sample.occupancy.max() == 0
            assert d.sample.patch.shape == (2, 32, 32, 32)
            assert d.sample.patch[0].mean() > 0.05, "tissue, not nothing"


def test_nodules_are_drawn_as_before_where_there_is_no_lung(tiny_nodules, tiny_voxels):
    """The generator is asked nothing new: draws of runs without lung stay what they were."""
    drawn = PairSource(CONFIG.model_copy(update={"lung_per_step": 0}), tiny_nodules, tiny_voxels).draw(0)[0]
    rng = np.random.default_rng([CONFIG.seed, 0])
    sampler = PatchSampler(tiny_voxels, tiny_nodules)
    for d in drawn:
        cube = rng.random() < CONFIG.cube_share
        pool = [n for n in tiny_nodules if n.is_cube == cube]
        nodule = pool[int(rng.integers(len(pool)))]
        assert d.nodule is nodule
        np.testing.assert_array_equal(d.sample.patch, sampler.draw(nodule, rng, size=32).patch)


def test_a_piece_is_cut_as_the_voi_was_round_its_nodule(everything):
    nodules, voxels = everything
    voi = voxels[nodules[4].case_id]
    lung = voxels["lung/a-0"]
    piece = piece_like(lung, voi)
    assert piece.channels.shape[1:] == voi.channels.shape[1:]
    assert piece.extension == EXTENSION
    assert not piece.occupancy.any()
    start = [round(middle - (own - EXTENSION)) for middle, own in zip(lung.center, voi.center, strict=True)]
    size = [n - 2 * EXTENSION for n in voi.occupancy.shape]
    box = tuple(slice(low, low + n) for low, n in zip(start, size, strict=True))
    inner = (slice(None), *(slice(EXTENSION, -EXTENSION),) * 3)
    np.testing.assert_array_equal(piece.channels[inner], lung.channels[(slice(None), *box)])
    assert [c - EXTENSION + low for c, low in zip(piece.center, start, strict=True)] == pytest.approx(list(lung.center))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*3 * [st.integers(20, 50)]),
    where=st.tuples(*3 * [st.floats(0.0, 1.0)]),
    side=st.integers(1, 12),
    extension=st.sampled_from([0, EXTENSION]),
)
def test_what_is_beside_a_nodule_holds_none_of_it(shape, where, side, extension):
    occupancy = np.zeros(shape, dtype=np.float16)
    room = [n - 2 * extension - side for n in shape]
    if min(room) < 0:
        return
    start = [extension + round(w * r) for w, r in zip(where, room, strict=True)]
    occupancy[tuple(slice(low, low + side) for low in start)] = 1
    voxels = NoduleVoxels(
        channels=np.zeros((2, *shape), dtype=np.float16),
        occupancy=occupancy,
        center=(0.0, 0.0, 0.0),
        extension=extension,
    )
    for box in boxes_beside(voxels):
        grown = tuple(slice(max(0, part.start - CLEARANCE), part.stop + CLEARANCE) for part in box)
        assert not occupancy[grown].any()
        for part, size in zip(box, shape, strict=True):
            assert extension <= part.start
            assert part.stop <= size - extension
        assert min(part.stop - part.start for part in box) >= min(THINNEST, *(n - 2 * extension for n in shape))
    widest = max(
        max(low - extension, n - extension - low - side) - CLEARANCE for low, n in zip(start, shape, strict=True)
    )
    assert bool(boxes_beside(voxels)) == (widest >= THINNEST)


def test_pieces_come_from_lung_and_from_beside_nodules(everything):
    nodules, voxels = everything
    source = LungSource(nodules, voxels, PatchSampler(voxels, nodules))
    rng = np.random.default_rng(0)
    drawn = [source.draw(rng, size=32, whole_share=0.3)[0] for _ in range(120)]
    assert {type(place) for place in drawn} == {LungPlace}
    beside = [place.case_id.startswith("beside/") for place in drawn]
    assert 20 < sum(beside) < 65  # 0.7 * 0.5 of them, 42


def test_surroundings_come_from_lung_half_of_the_time(everything):
    nodules, voxels = everything
    marked = {
        name: replace(own, channels=np.full_like(own.channels, 0.9 if name.startswith("lung/") else 0.1))
        for name, own in voxels.items()
        if not name.startswith("voi")
    }
    sampler = PatchSampler(marked, [n for n in nodules if n.is_cube])
    means = [
        float(sampler._surroundings(np.random.default_rng(seed), size=32, not_patient="x").mean())
        for seed in range(200)
    ]
    assert 70 < sum(mean > 0.5 for mean in means) < 130


def test_lung_teaches_segnet_alone(everything):
    nodules, voxels = everything
    unsure, sure = PairSource(CONFIG, nodules, voxels).draw(0)
    assert sure == []
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(5, 8, 8, 8, generator=generator)
    output = SynergicOutput(
        logit=torch.tensor([2.0, 1.0, -1.0, 3.0, -3.0]),
        cam=maps,
        pooled=torch.zeros(5, 256),
        segmentation_logit=4 * maps - 2,
        score=torch.linspace(0, 1, 5),
    )
    terms = step_losses(output, unsure, sure, CONFIG)
    without = step_losses(
        SynergicOutput(
            logit=output.logit[:3], cam=maps[:3], pooled=output.pooled[:3],
            segmentation_logit=output.segmentation_logit[:3], score=output.score[:3],
        ),
        unsure[:3], sure, CONFIG,
    )  # fmt: skip
    for name in ("classification", "cam", "score"):
        assert getattr(terms, name).item() == pytest.approx(getattr(without, name).item()), name
    found = torch.sigmoid(output.segmentation_logit[3:]).sum(dim=(1, 2, 3))
    empty = found / (found + losses.EMPTY_SMOOTH)
    assert terms.segmentation.item() == pytest.approx((3 * without.segmentation.item() + empty.sum().item()) / 5)
    both, three = count_terms(unsure, sure, CONFIG), count_terms(unsure[:3], sure, CONFIG)
    assert both == three + TermCounts(segmentation=2)


def test_finding_a_ball_of_8_mm_costs_a_half():
    axis = (torch.arange(16) - 7.5) * 2.0
    ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= 16.0).float()[None]
    loss = losses.dice_loss(ball, torch.zeros_like(ball), smooth=losses.EMPTY_SMOOTH)
    assert loss.item() == pytest.approx(0.5, abs=0.03)
    nothing = torch.zeros_like(ball)
    assert losses.dice_loss(nothing, nothing, smooth=losses.EMPTY_SMOOTH).item() == 0.0


def test_a_run_learns_from_lung_and_says_so(tmp_path, everything):
    nodules, voxels = everything
    bytes_ = []
    for name in ("one", "two"):
        run = Run(tmp_path / name, config=CONFIG, nodules=nodules, voxels=voxels)
        run.train(until=1)
        Run(tmp_path / name, config=CONFIG, nodules=nodules, voxels=voxels).train()
        bytes_.append((tmp_path / name / "model.safetensors").read_bytes())
    assert bytes_[0] == bytes_[1]
    from nodule_diag_training.engine.checkpoint import load_model

    _, stored, provenance = load_model(tmp_path / "one" / "model.safetensors")
    assert stored == CONFIG
    assert provenance["lung"] == {"places": 4, "patients": ["a", "b"]}
    assert provenance["nodules"] == 8


def test_lung_is_not_set_aside_for_validation(tmp_path, everything):
    nodules, voxels = everything
    config = CONFIG.model_copy(update={"validation_share": 0.3})
    run = Run(tmp_path, config=config, nodules=nodules, voxels=voxels)
    assert run._set_aside
    assert not run._set_aside & {"a", "b"}


def test_a_configuration_without_lung_is_written_as_before():
    assert "lung_per_step" not in json.loads(TrainingConfig().model_dump_json())
    assert "lung_per_step" not in TrainingConfig().model_dump(mode="json")
    config = TrainingConfig(lung_per_step=2)
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"system": "C"}, "no SegNet"), ({"input": "x-padding-64"}, "leave input at '64'"), ({}, None)],
)
def test_lung_needs_segnet_and_whole_patches(changes, message):
    if message is None:
        TrainingConfig(lung_per_step=1, **changes)
        return
    with pytest.raises(ValidationError, match=message):
        TrainingConfig(lung_per_step=1, **changes)


def test_a_run_that_wants_lung_needs_some(tmp_path, tiny_nodules, tiny_voxels):
    with pytest.raises(TrainingDataError, match="none of the 8 places is lung"):
        Run(tmp_path, config=CONFIG, nodules=tiny_nodules, voxels=tiny_voxels)


def test_lung_is_read_from_its_folder_with_the_nodules_beside(tmp_path, tiny_nodules, tiny_voxels):
    folder = tmp_path / "lung_cubes"
    folder.mkdir()
    hu = np.full((51, 51, 51), -800, dtype=np.int16)
    hu[25:, :, :] = 40
    np.savez(folder / "x.npz", hu=hu)
    (folder / "index.json").write_text(json.dumps([{"file": "x", "patient": "p", "kind": "blob", "more": 1}]))
    (place,) = load_lung(tmp_path)
    assert (place.case_id, place.patient_id, place.kind, place.diameter_mm) == ("lung/x", "p", "blob", 0.0)
    data = TrainingData(tiny_nodules, load=lambda some: {n.case_id: tiny_voxels[n.case_id] for n in some})
    whole = with_lung(data, [place])
    assert len(whole.nodules) == len(tiny_nodules) + 1
    voxels = whole.voxels_of([tiny_nodules[0], place])
    assert voxels[tiny_nodules[0].case_id] is tiny_voxels[tiny_nodules[0].case_id]
    own = voxels["lung/x"]
    assert own.channels.shape == (2, 101, 101, 101)
    assert own.center == (50.0, 50.0, 50.0)
    assert own.channels[0, 10, 5, 5] == pytest.approx(200 / 1400, abs=1e-3)
    assert own.channels[0, 90, 5, 5] == pytest.approx(1040 / 1400, abs=1e-3)
    assert not own.occupancy.any()


def test_a_missing_or_damaged_index_is_named(tmp_path):
    with pytest.raises(TrainingDataError, match=r"index\.json cannot be read"):
        load_lung(tmp_path)
    (tmp_path / "lung_cubes").mkdir()
    (tmp_path / "lung_cubes" / "index.json").write_text('[{"file": "x"}]')
    with pytest.raises(TrainingDataError, match=r"index\.json cannot be read: 'patient'"):
        load_lung(tmp_path)


def test_an_unreadable_cube_is_named(places, tmp_path):
    with pytest.raises(TrainingDataError, match=r"lung/a-0: gone\.npz cannot be read"):
        load_lung_voxels(replace(places[0], image=tmp_path / "gone.npz"))


@pytest.mark.real_data
def test_the_shared_lung_is_of_patients_without_a_nodule_in_training(data_root):
    from nodule_diag_training.data.lidc.diagnosed import load_nodules

    places = load_lung(data_root)
    assert len(places) == 360
    assert not {p.patient_id for p in places} & {n.patient_id for n in load_nodules(data_root)}
    voxels = load_lung_voxels(places[0])
    assert 0.0 < float(voxels.channels.astype(np.float32).mean()) < 1.0
