"""The packaged model's one command, in miniature: from a data folder to a judged model, and the same again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nodule_diag.errors import UsageError
from nodule_diag_training.cli import app
from nodule_diag_training.config import RECIPE, Stage, TrainingConfig
from nodule_diag_training.data import TrainingDataError
from nodule_diag_training.data.lung import load_lung
from nodule_diag_training.engine.checkpoint import CHECKPOINT, MODEL, load_model
from nodule_diag_training.engine.runlog import LOG, read_log
from nodule_diag_training.recipe import command
from nodule_diag_training.recipe.command import lung_of_fold, scaled
from nodule_diag_training.recipe.finish import Start

PATIENTS = 9
SMALL = RECIPE.model_copy(
    update={
        "stages": (Stage(size=32, steps=200), Stage(size=36, steps=100)),
        "unsure_per_step": 2,
        "lung_per_step": 1,
        "precision": "fp32",
    }
)
"""A step in bf16 takes 70 times as long on a CPU without AVX-512."""
SCALE = "0.01"
"""Two steps and one."""


@pytest.fixture(autouse=True)
def miniature(monkeypatch) -> None:
    """A small recipe."""
    monkeypatch.setattr(command, "RECIPE", SMALL)


def train(root: Path, out: Path, *arguments: str) -> None:
    arguments_ = ["packaged", "--out", str(out), "--steps-scale", SCALE, "--data", str(root), *arguments]
    result = CliRunner().invoke(app, arguments_, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_one_command_trains_and_judges_a_fold_twice_with_equal_bytes(tmp_path, root):
    for name in ("one", "two"):
        train(root, tmp_path / name, "--fold", "1")
    one, two = (tmp_path / name / "fold-1" for name in ("one", "two"))
    for file in (MODEL, CHECKPOINT, command.LUNG_REPORT):
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
    _, config, provenance = load_model(one / MODEL)
    assert [stage.steps for stage in config.stages] == [2, 1]
    assert provenance["command"] == f"nodule-diag train packaged --fold 1 --steps-scale {SCALE}"
    assert len(provenance["held_out_patients"]) == PATIENTS // 3
    assert provenance["lung"] == {"places": 3, "patients": ["L1"]}
    assert provenance["held_out_lung_patients"] == ["L0"]
    said = json.loads((one / command.LUNG_REPORT).read_text())["answers"]
    assert {a["patient_id"] for a in said} == {"L0", *provenance["held_out_patients"]}
    report = json.loads((one / command.REPORT).read_text())
    assert {j["patient_id"] for j in report["judgements"]} == set(provenance["held_out_patients"])
    (one / CHECKPOINT).unlink()
    written = (one / MODEL).stat().st_mtime_ns
    train(root, tmp_path / "one", "--fold", "1")
    assert (one / MODEL).stat().st_mtime_ns == written
    assert not (one / CHECKPOINT).exists(), "a finished fold is judged and not trained again"


def test_the_recipe_is_trained_in_the_precision_that_is_given(tmp_path, root, monkeypatch):
    monkeypatch.setattr(command, "RECIPE", SMALL.in_precision("bf16"))
    train(root, tmp_path, "--fold", "0", "--precision", "fp32")
    _, config, provenance = load_model(tmp_path / "fold-0" / MODEL)
    assert config.precision == "fp32"
    assert provenance["command"].endswith(" --precision fp32")


def test_each_fold_is_judged_on_lung_that_it_has_not_seen(root):
    places = load_lung(root)
    for fold in range(3):
        learned, judged = lung_of_fold(places, fold)
        assert len(judged) == 1
        assert {p.patient_id for p in learned} == {"L0", "L1"} - set(judged)
    assert {lung_of_fold(places, fold)[1][0] for fold in range(3)} == {"L0", "L1"}
    assert lung_of_fold(places, None) == (places, [])


def test_a_scaled_recipe_keeps_every_stage():
    assert [stage.steps for stage in scaled(TrainingConfig(), 0.25).stages] == [250]
    assert [stage.steps for stage in scaled(RECIPE, 1e-9).stages] == [1, 1]
    assert scaled(RECIPE, 1.0) == RECIPE


def test_a_finished_run_goes_on_from_its_weights_with_the_rate_falling_to_zero(tmp_path, root):
    train(root, tmp_path / "first", "--fold", "1")
    start = tmp_path / "first" / "fold-1"
    train(root, tmp_path / "last", "--finish", str(start), "--steps-scale", "0.05")
    folder = tmp_path / "last" / "fold-1"
    model, config, provenance = load_model(folder / MODEL)
    first, first_config, first_provenance = load_model(start / MODEL)
    log = read_log(folder / LOG)
    assert config.schedule == "annealing"
    assert [stage.size for stage in config.stages] == [36], "whole patches alone"
    assert config.learning_rate == read_log(start / LOG)[-1].learning_rate
    assert log[-1].learning_rate < log[0].learning_rate <= config.learning_rate
    assert provenance["held_out_patients"] == first_provenance["held_out_patients"]
    assert provenance["started_from"] == {"config": first_config.model_dump(mode="json"), **first_provenance}
    assert provenance["command"] == "nodule-diag train packaged --finish fold-1 --steps-scale 0.05"
    moved = [torch.dist(own, other).item() for own, other in zip(model.parameters(), first.parameters(), strict=True)]
    weights = [other.norm().item() for other in first.parameters()]
    assert 0.0 < max(moved) < 0.2 * max(weights), "a new start would lie further off"
    assert (folder / command.REPORT).exists()


def test_a_run_is_not_finished_for_a_fold_whose_patients_it_saw(tmp_path, root):
    train(root, tmp_path, "--fold", "1")
    start = Start.read(tmp_path / "fold-1")
    held_out = start.provenance["held_out_patients"]
    start.require_unseen(held_out, ["L0"])
    for patients, lung in (([*held_out, "other"], []), (held_out, ["L1"])):
        with pytest.raises(UsageError, match="trained on 1 of the patients"):
            start.require_unseen(patients, lung)


def test_what_cannot_be_finished_is_refused(tmp_path, root):
    train(root, tmp_path, "--fold", "1")
    start = str(tmp_path / "fold-1")
    for arguments, refusal in (
        (("--fold", "1", "--finish", start), "--finish knows its fold"),
        (("--finish", start, "--finish", start), "are of one fold"),
    ):
        with pytest.raises(UsageError, match=refusal):
            train(root, tmp_path / "last", *arguments)
    (tmp_path / "fold-1" / "log.csv").unlink()
    with pytest.raises(TrainingDataError, match="learning rate at step 2"):
        train(root, tmp_path / "last", "--finish", start)
