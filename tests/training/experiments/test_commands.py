"""``train run NAME`` from stores: judged beside their own results, done once, and again where that is asked."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from nodule_diag.errors import UsageError
from nodule_diag_training.cli import app
from nodule_diag_training.data.case import Case, Preprocessing
from nodule_diag_training.data.regions import Region
from nodule_diag_training.data.store import NoduleStore
from nodule_diag_training.engine.provenance import code_digest
from nodule_diag_training.experiments import judging, schedules
from nodule_diag_training.experiments.records import read_record
from nodule_diag_training.model import synergic as model_module
from tiny_nodules import make_voxels
from tiny_run import NARROW

PATIENTS = 8


@pytest.fixture(autouse=True)
def fast(monkeypatch, tmp_path):
    for name, value in NARROW.items():
        monkeypatch.setattr(model_module, name, value)
    monkeypatch.setitem(schedules.REDUCED, "short", schedules.Reduced(size=32, steps=2))
    monkeypatch.setattr(judging, "CURVES_PER_FOLD", 1)
    monkeypatch.setenv("NODULE_DIAG_DATA", str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stores(tmp_path) -> list[str]:
    """Nodules with outlines and scores, and nodules with a diagnosis and nothing else."""
    for kind in ("lidc", "sure"):
        store = NoduleStore(tmp_path / kind, preprocessing=Preprocessing(kind=kind))
        sure = kind == "sure"
        for number in range(PATIENTS):
            voxels = make_voxels(seed=number, radius=4.0 + number / 2, extension=0)
            case = Case(
                case_id=f"{kind}-{number}",
                patient_id=f"{kind}-patient-{number}",
                kind=kind,
                source="ct",
                reader_scores=() if sure else (1 + number % 5, 3),
                diameter_mm=4.0 + number,
                in_paper_cohort=not sure,
                malignant=number % 2 if sure else None,
                mask_known=not sure,
            )
            occupancy = None if sure else voxels.occupancy
            store.add(case, Region(channels=voxels.channels, occupancy=occupancy, center=voxels.center), fingerprint="")
    return [argument for kind in ("lidc", "sure") for argument in ("--store", kind)]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def run(*arguments: str) -> str:
    row = ("run", "table1/J", "--schedule", "short", "--folds", "2", "--fold", "0", "--out", "runs")
    return invoke(*row, *arguments)


def test_a_row_learns_from_stores_and_is_judged_on_them(tmp_path, stores):
    folder = tmp_path / "runs" / "table1-J" / "short" / "seed-0" / "fold-0"
    path = tmp_path / "runs" / "results" / "table1-J" / "short" / "seed-0" / "fold-0.npz"
    assert "wrote runs/results/table1-J" in run(*stores)
    record = read_record(path)
    assert [store["name"] for store in record.provenance["stores"]] == ["lidc", "sure"]
    assert record.made_by.endswith(f"code {code_digest()[:8]}, stores lidc, sure")
    for nodule in record.nodules:
        sure = nodule.case_id.startswith("sure")
        assert (nodule.label is None, nodule.dice is None, nodule.cam is None) == (not sure, sure, sure)
        assert nodule.malignancy is not None
    assert not (tmp_path / "results").exists(), "LIDC-IDRI's results have a place of their own"

    assert "is there already" in run(*stores)
    assert read_record(path) == record
    said = invoke("judge", "table1/J", "--schedule", "short", "--folds", "2", "--fold", "0", "--out", "runs", *stores)
    assert "wrote runs/results/table1-J" in said
    assert read_record(path).nodules == record.nodules

    said = run(*stores, "--again")
    assert f"the earlier run is now {folder.with_name('fold-0.old-1').relative_to(tmp_path)}" in said
    assert (folder.with_name("fold-0.old-1") / "model.safetensors").exists()
    assert read_record(path).nodules == record.nodules, "the same run"

    text = invoke("table", "1", "--results", "runs/results")
    assert f"trained by {record.made_by}." in text
    assert "short seed 0: 1/2 folds, J" in invoke("list", "--results", "runs/results")


def test_a_row_is_trained_in_the_precision_that_is_given(monkeypatch, tmp_path, stores):
    monkeypatch.setitem(schedules.REDUCED, "medium", schedules.Reduced(size=32, steps=2, precision="bf16"))
    path = tmp_path / "runs" / "results" / "table1-J" / "medium" / "seed-0" / "fold-0.npz"
    for precision in ("fp32", "bf16"):
        assert "wrote" in run(*stores, "--schedule", "medium", "--precision", precision, "--again")
        assert read_record(path).configs[0]["precision"] == precision
        text = invoke("table", "1", "--results", "runs/results")
        assert ("medium: 2 steps at 32 in fp32, seed 0" in text) == (precision == "fp32")
    assert "is there already" in run(*stores, "--schedule", "medium"), "bf16 is the schedule's own"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table1/J", "--from", "x"), "has its own configuration"),
        (("table1/J", "--config", "x"), "has its own configuration"),
        (("--again",), "--again is for rows of the tables"),
    ],
)
def test_options_of_the_other_kind_of_run_are_refused(arguments, message):
    result = CliRunner().invoke(app, ["run", *arguments, "--out", "runs"])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
