"""The packaged model's one command, in miniature: from a data folder to a judged model, and the same again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from nodule_diag_training import packaged
from nodule_diag_training.cli import app
from nodule_diag_training.config import Stage, TrainingConfig
from nodule_diag_training.data.lidc import diagnosed
from nodule_diag_training.data.lung import load_lung
from nodule_diag_training.engine.checkpoint import CHECKPOINT, MODEL, load_model
from nodule_diag_training.evaluation import metrics
from nodule_diag_training.packaged import RECIPE, lung_of_fold, scaled

PATIENTS = 9
SMALL = RECIPE.model_copy(
    update={
        "stages": (Stage(size=32, steps=200), Stage(size=36, steps=100)),
        "unsure_per_step": 2,
        "lung_per_step": 1,
    }
)
SCALE = "0.01"
"""Two steps and one."""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Nine patients with a VOI and a cube each, six of them diagnosed, and lung of two more."""
    root = tmp_path_factory.mktemp("data")
    for folder in ("lidc_vois/image", "lidc_vois/mask", "lidc_cubes", "lung_cubes"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["voi,patient_id,malignancy,eq_diameter_mm,in_paper_cohort,annotation_ids"]
    cubes = []
    for patient in range(PATIENTS):
        score = 1 + patient % 5
        for shape, name in (((8, 40, 40), "voi"), ((51, 51, 51), "cube")):
            grid = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
            mask = (grid**2).sum(axis=0) <= (3.0 + patient / 3) ** 2
            hu = (np.where(mask, 40, -850) + rng.integers(-20, 20, shape)).astype(np.int16)
            if name == "cube":
                np.savez(root / "lidc_cubes" / f"c{patient}.npz", hu=hu, mask=mask.astype(np.uint8))
                continue
            for part, array in (("image", hu), ("mask", mask.astype(np.uint8))):
                image = sitk.GetImageFromArray(array)
                image.SetSpacing((0.7, 0.7, 1.25))
                sitk.WriteImage(image, str(root / "lidc_vois" / part / f"P{patient}_R_1.nii.gz"))
        rows.append(f"P{patient}_R_1,P{patient},{score};{score};3,8.0,1,{patient}")
        cubes.append(
            {
                "file": f"c{patient}",
                "patient": f"P{patient}",
                "malignancy": [score, score, 3],
                "mask_mm3": 200,
                "in_paper_cohort": True,
                "annotation_id": patient,
            }
        )
    (root / "lidc_vois" / "vois.csv").write_text("\n".join(rows) + "\n")
    (root / "lidc_cubes" / "index.json").write_text(json.dumps(cubes))
    places = []
    for number in range(6):
        hu = (rng.integers(-900, -700, (51, 51, 51))).astype(np.int16)
        hu[:, 20:24, 25:28] = 20
        np.savez(root / "lung_cubes" / f"l{number}.npz", hu=hu)
        places.append({"file": f"l{number}", "patient": f"L{number % 2}", "kind": ("blob", "lung")[number // 3]})
    (root / "lung_cubes" / "index.json").write_text(json.dumps(places))
    return root


@pytest.fixture(autouse=True)
def miniature(monkeypatch) -> None:
    """A small recipe, few resamplings, and diagnoses in place of TCIA's spreadsheet."""
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 5)
    monkeypatch.setattr(packaged, "RECIPE", SMALL)
    known = {f"P{patient}": ([1 + patient % 3], [2]) for patient in range(PATIENTS) if patient % 3 < 2}
    monkeypatch.setattr(diagnosed, "read_diagnoses", lambda _: known)


def train(root: Path, out: Path, *arguments: str) -> None:
    command = ["packaged", "--out", str(out), "--steps-scale", SCALE, "--data", str(root), *arguments]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_one_command_trains_and_judges_a_fold_twice_with_equal_bytes(tmp_path, root):
    for name in ("one", "two"):
        train(root, tmp_path / name, "--fold", "1")
    one, two = (tmp_path / name / "fold-1" for name in ("one", "two"))
    for file in (MODEL, CHECKPOINT, packaged.LUNG_REPORT):
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
    _, config, provenance = load_model(one / MODEL)
    assert [stage.steps for stage in config.stages] == [2, 1]
    assert provenance["command"] == f"nodule-diag train packaged --fold 1 --steps-scale {SCALE}"
    assert len(provenance["held_out_patients"]) == PATIENTS // 3
    assert provenance["lung"] == {"places": 3, "patients": ["L1"]}
    assert provenance["held_out_lung_patients"] == ["L0"]
    said = json.loads((one / packaged.LUNG_REPORT).read_text())["answers"]
    assert {a["patient_id"] for a in said} == {"L0", *provenance["held_out_patients"]}
    report = json.loads((one / packaged.REPORT).read_text())
    assert {j["patient_id"] for j in report["judgements"]} == set(provenance["held_out_patients"])
    (one / CHECKPOINT).unlink()
    written = (one / MODEL).stat().st_mtime_ns
    train(root, tmp_path / "one", "--fold", "1")
    assert (one / MODEL).stat().st_mtime_ns == written
    assert not (one / CHECKPOINT).exists(), "a finished fold is judged and not trained again"


@pytest.mark.slow
def test_without_a_fold_everybody_is_judged_and_learned_from(tmp_path, root):
    train(root, tmp_path)
    _, _, provenance = load_model(tmp_path / "all" / MODEL)
    assert provenance["patients"] == PATIENTS
    assert provenance["lung"]["patients"] == ["L0", "L1"]
    assert "held_out_patients" not in provenance
    report = json.loads((tmp_path / packaged.REPORT).read_text())
    assert report["folds"] == {"judged": [0, 1, 2], "of": 3}
    assert {j["patient_id"] for j in report["judgements"]} == {f"P{patient}" for patient in range(PATIENTS)}


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
