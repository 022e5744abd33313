"""A vendor's own cases, from stores to a bundle: trained on, judged, packaged and found similar, by command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nodule_diag.bundle.bundle import Bundle
from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.ct.reading import read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import UsageError
from nodule_diag.results import UNCALIBRATED
from nodule_diag_export.bundle.index import cases_of
from nodule_diag_export.cli import app as export_app
from nodule_diag_export.errors import ExportError
from nodule_diag_export.parity.onnx import OnnxModel
from nodule_diag_export.parity.real_patches import diagnosed_patches
from nodule_diag_training.cli import app as train_app
from nodule_diag_training.config import Stage, TrainingConfig
from nodule_diag_training.data.training_data import TrainingData
from nodule_diag_training.evaluation import metrics
from tiny_stores import PATIENTS, fill


def invoke(app, *arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.mark.slow
def test_own_cases_become_a_bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("NODULE_DIAG_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 10)
    lidc, clinic = fill(tmp_path / "lidc", sure=False), fill(tmp_path / "clinic", sure=True)
    stores = ("--store", lidc, "--store", clinic)
    config = tmp_path / "config.json"
    config.write_text(TrainingConfig(stages=(Stage(size=32, steps=1),)).model_dump_json())
    run, results, bundle = tmp_path / "run", tmp_path / "results.json", tmp_path / "bundle"
    invoke(train_app, "run", "--config", config, *stores, "--fold", 0, "--folds", 2, "--out", run)
    invoke(train_app, "evaluate", run, *stores, "--out", results)
    report = json.loads(results.read_text())
    assert (
        report["command"]
        == "nodule-diag train evaluate run --store lidc --store clinic --symmetries 1 --out results.json"
    )
    titles = [section["title"].split(" ")[0] for section in report["sections"]]
    assert [title for title in titles if title in ("Targets", "Nodules", "The")] == ["Targets", "Nodules", "The"]
    assert {"All", "Calibration"} <= set(titles)
    rows = {row["metric"]: row for row in report["sections"][titles.index("Nodules")]["rows"]}
    judged = [entry for entry in report["judgements"] if entry["form"] == "cube"]
    outlined = sum(entry["dice_grid"] is not None for entry in judged)
    assert 0 < outlined < len(judged)
    assert rows["SegNet Dice on its 16-grid"]["n"] == outlined

    for missing, message in ((("--store", lidc), "was trained from lidc, clinic"), ((), "the data are of LIDC-IDRI")):
        with monkeypatch.context() as patch:
            patch.setattr("nodule_diag_training.data.training_data.load_nodules", lambda _: [])
            refused = CliRunner().invoke(train_app, [*map(str, ("evaluate", run, *missing, "--out", results))])
        assert message in str(refused.exception)
    invoke(train_app, "symmetries", run, *stores, "--views", 8, "--out", tmp_path / "symmetries.json")
    (section,) = json.loads((tmp_path / "symmetries.json").read_text())["sections"]
    assert {row["n"] for row in section["rows"]} == {outlined}

    packaged = ("--results", results, *stores, "--license", "Proprietary", "--k", 3, "--threads", 2)
    invoke(export_app, "bundle", run / "model.safetensors", *packaged, "--out", bundle)
    opened = Bundle.open(bundle)
    assert opened.manifest.license == "Proprietary"
    cases = CaseIndex(opened).cases
    assert [case.case_id for case in cases] == [f"clinic-{number}" for number in range(PATIENTS)]
    assert [case.label for case in cases] == [number % 2 for number in range(PATIENTS)]
    card = opened.read("MODEL_CARD.md").decode()
    assert "- lidc: 6 nodules of LIDC-IDRI" in card
    assert "- clinic: 6 diagnosed nodules of CTs that its maker listed" in card
    assert "patients (fold 0 of 2, from 0)" in card
    assert "Armato" in card  # LIDC-IDRI has to be named, for it is among the stores
    assert "Licence of the weights: Proprietary" in card
    assert "tightly cut boxes" not in card
    assert str(tmp_path) not in card
    invoke(export_app, "parity", bundle, *stores, "--out", tmp_path / "measured", "--threads", 2)
    assert {record.patches for record in Bundle.open(tmp_path / "measured").manifest.parity} == {2 * PATIENTS}


@pytest.mark.parametrize("license_", ["", "x" * 201])
def test_a_licence_of_no_length_is_refused_before_any_work(license_, tmp_path):
    command = ["bundle", str(tmp_path / "absent"), "--results", "absent", "--data", str(tmp_path), "--out", "x"]
    refused = CliRunner().invoke(export_app, [*command, "--license", license_])
    assert isinstance(refused.exception, UsageError)
    assert "--license" in refused.exception.hint


def test_scores_without_a_diagnosis_are_no_case_base(tmp_path):
    data = TrainingData.of(Path(), [fill(tmp_path / "lidc", sure=False)])
    with pytest.raises(ExportError, match="no nodule of the store lidc has a diagnosis") as caught:
        list(diagnosed_patches(data))
    assert "train prepare sure" in caught.value.hint


@pytest.mark.real_data
def test_a_case_is_what_predict_says_of_its_nodule(data_root, tmp_path):
    """A stored nodule is cut, windowed and resampled as one that is diagnosed, but for half precision."""
    table = tmp_path / "own.csv"
    rows = [
        f"{data_root}/ct/LIDC-IDRI-0314.nii.gz,-56.94,131.27,-520.6,22,malignant,p1,biopsy",
        f"{data_root}/ct/LIDC-IDRI-0001_dicom.zip,56.17,86.20,-115.86,20,malignant,p2,",
    ]
    table.write_text("\n".join(["path,x,y,z,diameter,label,patient,method", *rows]) + "\n")
    store = tmp_path / "own"
    invoke(train_app, "prepare", "sure", "--csv", table, "--out", store)
    bundle = Bundle.default()
    patches = diagnosed_patches(TrainingData.of(Path(), [store]))
    cases = cases_of(OnnxModel(bundle.read("model.onnx")), patches)
    assert [case.label_source for case in cases] == ["biopsy", "unknown method"]
    base = CaseBase.of(cases, name="own", model_sha256=bundle.model_sha256)
    diagnoser = Diagnoser.load(cases=base, backend="onnxruntime")
    for row in rows:
        path, *xyz = row.split(",")[:4]
        found = diagnoser.predict(read_ct(Path(path)), [tuple(map(float, xyz))])[0]
        nearest = found.similar["machine+expert"][0]
        assert nearest.malignancy == pytest.approx(UNCALIBRATED.probability(found.logit), abs=1e-3)
        assert nearest.expert_score == pytest.approx(found.expert_score, abs=4e-3)
        assert nearest.distance < 1e-3
