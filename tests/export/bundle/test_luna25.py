"""LUNA25 in miniature as the sure data of Table 1's row J: from the CSV to a judged row and to a bundle, by command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from luna25_files import annotations, write_blocks, write_cts, write_table
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag_export.cli import app as export_app
from nodule_diag_training.cli import app as train_app
from nodule_diag_training.evaluation import metrics
from nodule_diag_training.experiments import judging, schedules
from nodule_diag_training.experiments.records import read_record
from tiny_stores import PATIENTS, fill

METHOD = "LUNA25's label"


def invoke(app, *arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.mark.slow
@pytest.mark.parametrize("write_images", [write_cts, write_blocks])
def test_from_the_table_to_row_j_and_to_a_bundle(tmp_path, monkeypatch, write_images):
    monkeypatch.setenv("NODULE_DIAG_DATA", str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 10)
    monkeypatch.setitem(schedules.REDUCED, "short", schedules.Reduced(size=32, steps=2))
    monkeypatch.setattr(judging, "CURVES_PER_FOLD", 1)
    fill(Path("lidc"), sure=False)
    write_table(Path("luna25.csv"))
    write_images(Path("images"))
    invoke(train_app, "prepare", "luna25", "--csv", "luna25.csv", "--images", "images", "--out", "luna25")
    stores = ("--store", "lidc", "--store", "luna25")

    invoke(train_app, "run", "table1/J", "--schedule", "short", "--folds", 2, "--fold", 0, *stores, "--out", "runs")
    fold = Path("table1-J/short/seed-0/fold-0")
    record = read_record(Path("runs/results") / fold.with_suffix(".npz"))
    labels = {own.annotation: own.label for own in annotations()}
    judged = {nodule.case_id: nodule for nodule in record.nodules if nodule.label is not None}
    assert 0 < len(judged) < len(labels)
    assert {case_id: nodule.label for case_id, nodule in judged.items()} == {own: labels[own] for own in judged}
    assert {nodule.patient_id for nodule in judged.values()} <= set(record.held_out), "all years of a patient"
    assert 0 < record.provenance["sure"] <= len(labels) - len(judged)
    assert all(nodule.dice is None and nodule.malignancy is not None for nodule in judged.values())
    table = invoke(train_app, "table", 1, "--results", "runs/results")
    assert "stores lidc, luna25" in table

    run = Path("runs") / fold
    invoke(train_app, "evaluate", run, *stores, "--out", "results.json")
    rows = [row for section in json.loads(Path("results.json").read_text())["sections"] for row in section["rows"]]
    assert any(row["metric"] == "CNet (P), AUC" and row["n"] == len(judged) for row in rows)
    assert not any(row["metric"] == "Yardstick: diameter alone, AUC" and row["n"] == len(judged) for row in rows)
    if write_images is write_blocks:  # a bundle is made of the store, whatever filled it, in two minutes
        return
    invoke(
        export_app, "bundle", run / "model.safetensors", *stores, "--results", "results.json", "--k", 3,
        "--license", "as agreed", "--threads", 2, "--out", "bundle",
    )  # fmt: skip
    opened = Bundle.open(Path("bundle"))
    cases = {case.case_id: case for case in CaseIndex(opened).cases}
    assert {case_id: case.label for case_id, case in cases.items()} == labels
    assert {(case.label_source, case.diameter_mm) for case in cases.values()} == {(METHOD, None)}
    card = opened.read("MODEL_CARD.md").decode()
    assert f"- lidc: {PATIENTS} nodules of LIDC-IDRI" in card
    assert f"- luna25: {len(labels)} nodules of LUNA25, in low-dose CTs of the National Lung Screening Trial" in card
