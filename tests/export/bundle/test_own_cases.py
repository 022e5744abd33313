"""A vendor's own cases, from stores to a bundle: trained on, judged, packaged and found similar, by command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bundle_factory import make_tiny_bundle
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.ct.reading import read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import UsageError
from nodule_diag_export.cli import app as export_app
from nodule_diag_export.cli import index_app
from nodule_diag_training.cli import app as train_app
from nodule_diag_training.config import Stage, TrainingConfig
from nodule_diag_training.data.case import Case, Preprocessing
from nodule_diag_training.data.regions import Region
from nodule_diag_training.data.store import NoduleStore
from nodule_diag_training.evaluation import metrics
from tiny_nodules import make_voxels

PATIENTS = 6


def invoke(app, *arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def fill(path: Path, *, sure: bool) -> Path:
    """Nodules with outlines and scores, or with a diagnosis and nothing else; a patient each."""
    store = NoduleStore(path, preprocessing=Preprocessing(kind="sure" if sure else "lidc"))
    for number in range(PATIENTS):
        voxels = make_voxels(seed=number + 10 * sure, radius=4.0 + number, extension=0)
        case = Case(
            case_id=f"{path.name}-{number}",
            patient_id=f"{path.name}-patient-{number}",
            kind="sure" if sure else "lidc",
            source="ct",
            reader_scores=() if sure else (1 + number % 5, 1 + number % 5, 3),
            diameter_mm=4.0 + number,
            in_paper_cohort=not sure,
            malignant=number % 2 if sure else None,
            method="resection" if sure else "",
            mask_known=not sure,
        )
        occupancy = None if sure else voxels.occupancy
        region = Region(channels=voxels.channels, occupancy=occupancy, center=voxels.center, extension=0)
        store.add(case, region, fingerprint="")
    return store.path


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
    assert titles[:2] == ["Nodules", "The"]
    assert {"All", "Calibration"} <= set(titles)
    rows = {row["metric"]: row for row in report["sections"][0]["rows"]}
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

    out = invoke(index_app, "build", bundle, "--store", clinic, "--out", tmp_path / "again")
    assert "6 cases" in out
    again = Bundle.open(tmp_path / "again")
    np.testing.assert_allclose(
        [case.malignancy for case in CaseIndex(again).cases], [case.malignancy for case in cases], atol=1e-6
    )
    assert "from the store clinic" in again.read("MODEL_CARD.md").decode()


def test_a_masked_bundle_takes_no_unmasked_cases(tmp_path):
    """Its network takes CT x lung mask, and a store holds CTs as they are."""
    clinic = fill(tmp_path / "clinic", sure=True)
    bundle = make_tiny_bundle(tmp_path / "masked", masked_input=True)
    command = ["build", str(bundle.path), "--store", str(clinic), "--out", str(tmp_path / "b")]
    refused = CliRunner().invoke(index_app, command)
    assert "takes CT x lung mask" in str(refused.exception)


@pytest.mark.parametrize("license_", ["", "x" * 201])
def test_a_licence_of_no_length_is_refused_before_any_work(license_, tmp_path):
    command = ["bundle", str(tmp_path / "absent"), "--results", "absent", "--data", str(tmp_path), "--out", "x"]
    refused = CliRunner().invoke(export_app, [*command, "--license", license_])
    assert isinstance(refused.exception, UsageError)
    assert "--license" in refused.exception.hint


def test_scores_without_a_diagnosis_are_no_case_base(tiny_bundle, tmp_path):
    lidc = fill(tmp_path / "lidc", sure=False)
    result = CliRunner().invoke(
        index_app, ["build", str(tiny_bundle), "--store", str(lidc), "--out", str(tmp_path / "b")]
    )
    assert result.exception is not None
    assert "no nodule of the store lidc has a diagnosis" in str(result.exception)
    assert "train prepare sure" in result.exception.hint
    assert not (tmp_path / "b").exists()
    both = ["build", str(tiny_bundle), "--store", str(lidc), "--cases", "x.json", "--out", str(tmp_path / "b")]
    assert "--cases and --store" in str(CliRunner().invoke(index_app, both).exception)


@pytest.mark.real_data
def test_a_case_is_what_predict_says_of_its_nodule(data_root, tmp_path):
    """A stored nodule is cut, windowed and resampled as one that is diagnosed, but for half precision."""
    table = tmp_path / "own.csv"
    rows = [
        f"{data_root}/ct/LIDC-IDRI-0314.nii.gz,-56.94,131.27,-520.6,22,malignant,p1,biopsy",
        f"{data_root}/ct/LIDC-IDRI-0001_dicom.zip,56.17,86.20,-115.86,20,malignant,p2,",
    ]
    table.write_text("\n".join(["path,x,y,z,diameter,label,patient,method", *rows]) + "\n")
    store, out = tmp_path / "own", tmp_path / "bundle"
    invoke(train_app, "prepare", "sure", "--csv", table, "--out", store)
    invoke(index_app, "build", "--store", store, "--out", out)
    assert [case.label_source for case in CaseIndex(Bundle.open(out)).cases] == ["biopsy", "unknown method"]
    diagnoser = Diagnoser.load(out, backend="onnxruntime")
    for row in rows:
        path, *xyz = row.split(",")[:4]
        found = diagnoser.predict(read_ct(Path(path)), [tuple(map(float, xyz))])[0]
        nearest = found.similar["machine+expert"][0]
        assert nearest.malignancy == pytest.approx(found.malignancy, abs=1e-3)
        assert nearest.expert_score == pytest.approx(found.expert_score, abs=4e-3)
        assert nearest.distance < 1e-3
