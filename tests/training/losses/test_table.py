"""A loss that somebody adds by one line in its table is checked, trained and counted like those that are there."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from nodule_diag_training.config import Stage, TrainingConfig
from nodule_diag_training.engine.run import Run
from nodule_diag_training.losses.table import CAM_LOSSES, SCORE_LOSSES, CamLoss, GuidedNodules, ScoreLoss
from nodule_diag_training.systems import SYSTEMS, System

WHOLE = {"segnet": True, "rnet": True, "fnet": True}


def first_step(tmp_path, nodules, voxels, config: TrainingConfig):
    """The log of one step."""
    logs = []
    Run(tmp_path, config=config, nodules=nodules, voxels=voxels).train(on_step=logs.append)
    return logs[0]


def configuration(**changes) -> TrainingConfig:
    return TrainingConfig(stages=(Stage(size=32, steps=1),), cohort="all", **changes)


@pytest.mark.parametrize("outputs", [1, 5])
def test_a_score_loss_is_one_line(outputs, monkeypatch, tmp_path, tiny_nodules, tiny_voxels):
    def constant(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert prediction.shape == (*target.shape, *([5] if outputs == 5 else []))
        assert target.dtype == (torch.int64 if outputs == 5 else torch.float32)
        return 7.0 + 0.0 * prediction.reshape(len(target), -1).sum(dim=1)

    monkeypatch.setitem(SCORE_LOSSES, "constant", ScoreLoss(function=constant, outputs=outputs))
    config = configuration(system="C", score_loss="constant")
    assert first_step(tmp_path, tiny_nodules, tiny_voxels, config).score == pytest.approx(7.0)
    with pytest.raises(ValidationError, match="system A has no RNet"):
        configuration(system="A", score_loss="constant")


@pytest.mark.parametrize(("needs_label", "guided"), [(False, 3), (True, 1)])
@pytest.mark.parametrize("compares", ["segmentation", "activation"])
def test_a_loss_on_the_cam_is_one_line(compares, needs_label, guided, monkeypatch, tmp_path, tiny_nodules, tiny_voxels):
    seen = []

    def largest(nodules: GuidedNodules) -> torch.Tensor:
        assert nodules.cam.shape == nodules.compared.shape == (guided, 8, 8, 8)
        assert nodules.compared.requires_grad == (compares == "activation")
        seen.append(nodules)
        return nodules.cam.amax(dim=(1, 2, 3)) * 0.0 + 3.0

    line = CamLoss(function=largest, compares=compares, needs_label=needs_label)
    monkeypatch.setitem(CAM_LOSSES, "largest", line)
    monkeypatch.setitem(SYSTEMS, "J", System(**WHOLE, guidance="largest"))
    config = configuration(system="J", unsure_per_step=2, ad_csl_on_all=True, margin=0.25)
    assert first_step(tmp_path, tiny_nodules, tiny_voxels, config).cam == pytest.approx(3.0)
    (told,) = seen
    assert told.margin == 0.25
    assert told.label.isnan().sum() == guided - 1
    # What the line says of the margin and of SegNet is held to.
    background = {"system": "J", "margin_mode": "background"}
    if compares == "segmentation":
        configuration(**background)
        with pytest.raises(ValueError, match="needs segnet=True"):
            System(guidance="largest")
    else:
        System(guidance="largest")
        with pytest.raises(ValidationError, match="has no CSL"):
            configuration(**background)


def test_a_loss_that_is_in_no_table_is_refused_with_those_that_are():
    with pytest.raises(ValidationError, match="'huber' is none of mse, cross-entropy, ordinal"):
        configuration(score_loss="huber")
    with pytest.raises(ValueError, match="guidance='cls' is none of none, csl, ad-csl, cam-loss"):
        System(**WHOLE, guidance="cls")
