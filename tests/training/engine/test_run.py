"""The training loop: resumes exactly, is deterministic, and fails without harm."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nodule_diag_training.config import RECIPE, Stage, TrainingConfig
from nodule_diag_training.data.draws import PairSource
from nodule_diag_training.data.labels import cnet_label, normalised_score
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.engine.checkpoint import CHECKPOINT, MODEL, load_model
from nodule_diag_training.engine.objective import step_losses
from nodule_diag_training.engine.optimiser import damp_mean_direction, learning_rate
from nodule_diag_training.engine.run import NonFiniteLossError, Run
from nodule_diag_training.engine.runlog import LOG, read_log
from nodule_diag_training.losses import paper as losses
from nodule_diag_training.model.synergic import SynergicOutput

TINY = TrainingConfig(stages=(Stage(size=32, steps=4),), cohort="all", checkpoint_every=2, schedule="one-cycle")
ONE_STEP = (Stage(size=32, steps=1),)


def train(folder, nodules, voxels, *, config=TINY, until=None):
    return Run(folder, config=config, nodules=nodules, voxels=voxels).train(until=until)


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, tiny_nodules, tiny_voxels):
    whole = train(tmp_path / "whole", tiny_nodules, tiny_voxels)
    train(tmp_path / "killed", tiny_nodules, tiny_voxels, until=2)
    resumed = train(tmp_path / "killed", tiny_nodules, tiny_voxels)
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    logs = [read_log(tmp_path / folder / LOG) for folder in ("whole", "killed")]
    assert [line.total for line in logs[0]] == [line.total for line in logs[1]]
    assert [line.step for line in logs[1]] == [0, 1, 2, 3]


def test_the_finished_model_carries_configuration_and_provenance(tmp_path, tiny_nodules, tiny_voxels):
    config = TINY.model_copy(update={"stages": ONE_STEP})
    provenance = {"held_out_patients": ["x"]}
    trained = Run(tmp_path, config=config, nodules=tiny_nodules, voxels=tiny_voxels, provenance=provenance).train()
    model, stored, found = load_model(tmp_path / MODEL)
    assert stored == config
    assert found["held_out_patients"] == ["x"]
    assert found["patients"] == 8
    patch = torch.rand(1, 2, 32, 32, 32)
    torch.testing.assert_close(model(patch).logit, trained.eval()(patch).logit, rtol=0, atol=1e-5)


def test_another_configuration_is_refused_and_nothing_lost(tmp_path, tiny_nodules, tiny_voxels):
    train(tmp_path, tiny_nodules, tiny_voxels, until=2)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(TrainingDataError, match=r"differs in margin"):
        train(tmp_path, tiny_nodules, tiny_voxels, config=TINY.model_copy(update={"margin": 0.1}))
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_damaged_checkpoint_is_named(tmp_path, tiny_nodules, tiny_voxels):
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingDataError, match="is not a checkpoint"):
        train(tmp_path, tiny_nodules, tiny_voxels)


def test_a_nan_loss_stops_and_keeps_the_checkpoint(tmp_path, tiny_nodules, tiny_voxels):
    train(tmp_path, tiny_nodules, tiny_voxels, until=2)
    before = (tmp_path / CHECKPOINT).read_bytes()
    voxels = {name: replace(v, channels=v.channels.copy()) for name, v in tiny_voxels.items()}
    run = Run(tmp_path, config=TINY, nodules=tiny_nodules, voxels=voxels)
    for own in voxels.values():
        own.channels[...] = np.nan  # after the run has seen that they are those of its checkpoint
    with pytest.raises(NonFiniteLossError, match="the loss is nan at step 2"):
        run.train()
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("system", ["A", "B", "C", "D", "F", "J"])
def test_every_system_takes_a_step(system, tmp_path, tiny_nodules, tiny_voxels):
    config = TINY.model_copy(update={"system": system, "stages": ONE_STEP})
    train(tmp_path, tiny_nodules, tiny_voxels, config=config)
    line = read_log(tmp_path / LOG)[0]
    assert (line.segmentation > 0) == (system in "BDFJ")
    assert (line.score > 0) == (system in "CDFJ")
    assert line.total == pytest.approx(line.classification + line.cam + line.segmentation + line.score, rel=1e-5)


def test_sure_nodules_are_balanced_and_the_cohort_is_kept(tiny_nodules, tiny_voxels):
    config = TINY.model_copy(update={"cohort": "paper", "stages": (Stage(size=32, steps=300),)})
    source = PairSource(config, tiny_nodules, tiny_voxels)
    steps = [source.draw(step) for step in range(60)]
    assert all(d.nodule.in_paper_cohort for unsure, _ in steps for d in unsure)
    assert 15 < sum(d.nodule.sure.malignant for _, sure in steps for d in sure) < 45


def test_cnet_learns_diagnoses_and_where_asked_the_side_of_scores(tiny_nodules):
    diagnosed = replace(tiny_nodules[0], reader_scores=(5, 5, 5))
    malignant, benign, undecided = (
        replace(tiny_nodules[2], reader_scores=scores) for scores in ((4, 3, 3), (3, 3, 2), (4, 3, 2))
    )
    assert diagnosed.sure.malignant == 0
    paper = TrainingConfig()
    assert cnet_label(diagnosed, drawn_as_sure=True, config=paper) == 0.0
    assert cnet_label(diagnosed, drawn_as_sure=False, config=paper) is None
    assert cnet_label(malignant, drawn_as_sure=False, config=paper) is None
    assert cnet_label(diagnosed, drawn_as_sure=False, config=RECIPE) == 0.0, "a diagnosis outweighs the readers"
    assert cnet_label(malignant, drawn_as_sure=False, config=RECIPE) == 1.0
    assert cnet_label(benign, drawn_as_sure=False, config=RECIPE) == 0.0
    assert cnet_label(undecided, drawn_as_sure=False, config=RECIPE) is None


def test_the_cam_of_unlabelled_nodules_is_guided_where_asked(tiny_nodules, tiny_voxels):
    source = PairSource(TINY, tiny_nodules, tiny_voxels)
    unsure, sure = source.draw(0)
    generator = torch.Generator().manual_seed(0)
    cam = torch.rand(2, 8, 8, 8, generator=generator)
    output = SynergicOutput(
        logit=torch.tensor([2.0, 1.0]),
        cam=cam,
        pooled=torch.zeros(2, 256),
        segmentation_logit=-cam,
        score=torch.tensor([0.2, 0.3]),
    )
    one, both = (
        step_losses(output, unsure, sure, TrainingConfig(ad_csl_on_all=everywhere)) for everywhere in (False, True)
    )

    def expected(i):
        maps = losses.class_cam(cam[i : i + 1], output.logit[i : i + 1])
        return losses.adaptive_cam_sem_loss(maps, torch.sigmoid(-cam[i : i + 1]), output.logit[i : i + 1]).item()

    assert one.cam.item() == pytest.approx(expected(1))
    assert both.cam.item() == pytest.approx((expected(0) + expected(1)) / 2)
    heavier = step_losses(output, unsure, sure, TrainingConfig(score_weight=4.0))
    assert heavier.total.item() == pytest.approx(one.total.item() + 3.0 * one.score.item())


def test_a_run_starts_from_the_weights_it_is_given(tmp_path, tiny_nodules, tiny_voxels):
    config = TINY.model_copy(update={"stages": ONE_STEP})
    first = train(tmp_path / "first", tiny_nodules, tiny_voxels, config=config)
    second = Run(
        tmp_path / "second", config=config, nodules=tiny_nodules, voxels=tiny_voxels, initial=first.state_dict()
    )
    for one, two in zip(first.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_the_heads_move_at_their_own_rate(tmp_path, tiny_nodules, tiny_voxels):
    moved = {}
    watched = ("cnet.weight", "rnet.weight", "resnet.head.weight")
    for factor in (1.0, 5.0):
        config = TINY.model_copy(update={"stages": ONE_STEP, "head_rate": factor})
        run = Run(tmp_path / str(factor), config=config, nodules=tiny_nodules, voxels=tiny_voxels)
        before = {name: value.clone() for name, value in run.model.state_dict().items()}
        after = run.train().state_dict()
        moved[factor] = [float((after[name] - before[name]).abs().max()) for name in watched]
    # Adam's first step is the rate itself.
    assert moved[5.0] == pytest.approx([5 * moved[1.0][0], 5 * moved[1.0][1], moved[1.0][2]], rel=1e-3)


def test_only_the_direction_that_all_nodules_share_is_damped():
    pooled = torch.tensor([[1.0, 3.0, 0.0], [3.0, 5.0, 0.0]])  # mean (2, 4, 0)
    gradient = torch.tensor([[1.0, 2.0, 7.0]]) + torch.tensor([[4.0, -2.0, 0.0]])  # along it, and across it
    damp_mean_direction(gradient, pooled, share=0.1)
    torch.testing.assert_close(gradient, torch.tensor([[4.1, -1.8, 7.0]]))


def test_learning_rates():
    constant = TrainingConfig()
    assert {learning_rate(constant, step) for step in range(0, 1000, 100)} == {1e-3}
    cycle = TrainingConfig(stages=(Stage(size=40, steps=1560),), schedule="one-cycle")
    rates = [learning_rate(cycle, step) for step in range(cycle.steps)]
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] < 1e-4
    assert rates[-1] < 2e-5


def test_scores_are_normalised(tiny_nodules):
    nodule = tiny_nodules[0]
    assert normalised_score(nodule.mean_score) == pytest.approx((np.mean(nodule.reader_scores) - 1) / 4)


def test_configurations_are_validated():
    with pytest.raises(ValidationError, match="multiple of 4"):
        Stage(size=42, steps=1)
    with pytest.raises(ValidationError, match="Extra inputs"):
        TrainingConfig.model_validate_json(json.dumps({"sytem": "J"}))
    assert [RECIPE.patch_size(s) for s in (0, 2399, 2400)] == [40, 40, 64]
