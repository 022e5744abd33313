"""The packaged model in miniature: ``train packaged``, then ``export bundle``; from data to a bundle, twice, alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nodule_diag.bundle.bundle import Bundle
from nodule_diag_export.cli import app as export_app
from nodule_diag_training.cli import app as train_app
from nodule_diag_training.config import Stage
from nodule_diag_training.data.lidc import diagnosed
from nodule_diag_training.engine import provenance
from nodule_diag_training.engine.checkpoint import load_model
from nodule_diag_training.engine.provenance import code_digest
from nodule_diag_training.evaluation import metrics
from nodule_diag_training.recipe import command
from tiny_data_folder import DIAGNOSES, PATIENTS, write_data_folder


def invoke(app, *arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def from_data_to_bundle(root: Path, folder: Path) -> Path:
    """With one date, and judging that took one time: neither is what a bundle is made of.

    Without presence: a model of three steps tells no nodule from lung, and the export refuses what it says of them.
    """
    torch.set_num_threads(1)  # sums depend on it, and the export leaves it at what it was told
    invoke(train_app, "packaged", "--out", folder / "runs", "--data", root)
    report = folder / "runs" / command.REPORT
    report.write_text(json.dumps(json.loads(report.read_text()) | {"seconds": 60.0}))
    invoke(
        export_app, "bundle", folder / "runs" / "all" / "model.safetensors", "--data", root, "--k", 3, "--threads", 1,
        "--results", report, "--out", folder / "bundle",
    )  # fmt: skip
    return folder / "bundle"


@pytest.mark.slow
def test_two_commands_make_the_same_bundle_twice(tmp_path, monkeypatch):
    stages = (Stage(size=32, steps=2), Stage(size=36, steps=1))
    small = command.RECIPE.model_copy(
        update={"stages": stages, "unsure_per_step": 2, "lung_per_step": 1, "precision": "fp32"}
    )
    monkeypatch.setattr(command, "RECIPE", small)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setattr(provenance, "_revision", lambda _: "one")  # other tests change the checkout meanwhile
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 5)
    monkeypatch.setattr(diagnosed, "read_diagnoses", lambda _: DIAGNOSES)
    write_data_folder(tmp_path / "data")
    one, two = (from_data_to_bundle(tmp_path / "data", tmp_path / name) for name in ("one", "two"))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    assert [name for name in files if (one / name).read_bytes() != (two / name).read_bytes()] == []

    assert (one / "../runs" / command.LUNG_REPORT).read_bytes() == (two / "../runs" / command.LUNG_REPORT).read_bytes()

    manifest = Bundle.open(one).manifest
    data = manifest.training["data"]
    assert data["command"] == "nodule-diag train packaged"
    assert data["code"] == code_digest()
    assert data["patients"] == PATIENTS

    runs = tmp_path / "one" / "runs"
    _, _, origin = load_model(runs / "all" / "model.safetensors")
    assert origin["lung"]["patients"] == ["L0", "L1"]
    assert "held_out_patients" not in origin, "everybody is learned from"
    lung = json.loads((runs / command.LUNG_REPORT).read_text())
    assert lung["command"] == "nodule-diag train lung fold-0 fold-1 fold-2 --out lung.json"
    asked = [a["patient_id"] for a in lung["answers"]]
    assert {patient: asked.count(patient) for patient in asked} == {
        **{f"P{patient}": 1 for patient in range(PATIENTS)},
        **{"L0": 3, "L1": 6},  # three places each, asked about by one of the three folds, and by two
    }
    report = json.loads((runs / command.REPORT).read_text())
    assert report["folds"] == {"judged": [0, 1, 2], "of": 3}
    assert {j["patient_id"] for j in report["judgements"]} == {f"P{patient}" for patient in range(PATIENTS)}
