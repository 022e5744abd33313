"""What each departure is worth: the short recipe without it, judged on the same patients."""

from __future__ import annotations

import json
import lzma

import pytest
import torch
from typer.testing import CliRunner

from nodule_diag_training.cli import app
from nodule_diag_training.config import RECIPE, Stage
from nodule_diag_training.engine.checkpoint import MODEL, load_model
from nodule_diag_training.model import build_model
from nodule_diag_training.recipe import departures
from nodule_diag_training.recipe.ablation import (
    FIGURES,
    JUDGED,
    REPORT,
    Ablation,
    Figure,
    columns,
    gain,
    table,
)
from nodule_diag_training.recipe.departures import DEPARTURES, WHOLE, configured, first_weights

SMALL = RECIPE.model_copy(update={"unsure_per_step": 2, "lung_per_step": 1})


def row(case: int, **values: float | None) -> dict[str, object]:
    return {
        "case_id": f"c{case}", "patient_id": f"p{case}", "is_nodule": 1.0, "evidence": case, "reader_score": 1.0 + case,
        "malignancy": 0.2 * case, "expert_score": 1.5 + case, "dice_grid": 0.5, "diameter_error_mm": -1.0,
        "cam_nodule": 0.8, "cam_background": 0.1, "label": float(case % 2), **values,
    }  # fmt: skip


@pytest.mark.parametrize("name", DEPARTURES)
def test_each_run_is_the_short_recipe_but_for_its_departure(name):
    config, whole = (configured(DEPARTURES[own], steps=7) for own in (name, WHOLE))
    assert config.stages == (Stage(size=40, steps=7),)
    changed = {key for key in type(config).model_fields if getattr(config, key) != getattr(whole, key)}
    assert changed == set(DEPARTURES[name].off)
    assert bool(changed) == (name not in (WHOLE, "segnet"))
    assert config.unsure_draws + config.sure_draws == whole.unsure_draws, "as many nodules a step"


def test_segnet_starts_blunter_and_all_else_alike():
    config = configured(DEPARTURES["segnet"], steps=1)
    weights = first_weights(config, DEPARTURES["segnet"])
    torch.manual_seed(config.seed)
    own = build_model(config).state_dict()
    differing = {name for name, value in own.items() if not torch.equal(value, weights[name])}
    assert differing == {"segnet.norm3.weight", "segnet.norm3.bias"}
    assert (weights["segnet.norm3.weight"].item(), weights["segnet.norm3.bias"].item()) == (4.0, -3.0)
    assert first_weights(config, DEPARTURES[WHOLE]) is None


def test_a_gain_is_of_the_same_nodules_in_whatever_order():
    base = [row(case, dice_grid=0.1 * case) for case in range(5)]
    better = [row(case, dice_grid=0.1 * case + 0.2) for case in reversed(range(5))]
    found = gain(FIGURES[0], better, base)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.2, 0.2))


def test_the_figures_are_what_they_say():
    rows = [row(case) for case in range(5)]
    rows.append({"case_id": "l", "patient_id": "l", "is_nodule": 0.0, "evidence": 0.5})
    rows.append(row(9, reader_score=float("nan"), label=None, dice_grid=None, expert_score=3.0, evidence=9))
    found = {figure.title: figure.value(columns(rows)) for figure in FIGURES}
    assert found == {
        "Dice": pytest.approx(0.5),
        "diameter error, mm": pytest.approx(1.0),
        "score, Spearman": pytest.approx(1.0),
        "score, MAE": pytest.approx(0.5),
        "CAM margin": pytest.approx(0.7),
        "12/45, AUC of P": pytest.approx(1.0),
        "diagnoses, AUC of P": pytest.approx(0.5),
        "presence, AUC": pytest.approx(5 / 6),
    }


def test_the_table_has_a_line_for_each_judged_run():
    rows = [row(case) for case in range(5)]
    text = table({WHOLE: rows, "lung": [row(case, dice_grid=0.4) for case in range(5)]})
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| the recipe | 0.500 | 1.00 |")
    assert lines[3].startswith("| no lung without a nodule | -0.100 [-0.100, -0.100] |")
    assert all(isinstance(figure, Figure) for figure in FIGURES)


def test_a_departure_is_trained_and_judged_on_patients_set_aside(tmp_path, root, monkeypatch):
    monkeypatch.setattr(departures, "RECIPE", SMALL)
    arguments = ["ablate", WHOLE, "lung", "--out", str(tmp_path), "--steps", "1", "--seed", "9"]
    arguments += ["--data", str(root), "--precision", "fp32"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(lzma.decompress((tmp_path / REPORT).read_bytes()))
    assert table(report["judged"]) in result.stdout
    assert (report["steps"], report["seed"], list(report["judged"])) == (1, 9, [WHOLE, "lung"])
    _, config, provenance = load_model(tmp_path / "lung" / MODEL)
    assert (config.lung_per_step, config.seed, config.precision) == (0, 9, "fp32")
    judged = json.loads((tmp_path / "lung" / JUDGED).read_text())
    outside = set(provenance["held_out_patients"])
    assert {r["patient_id"] for r in judged} < outside, "fold 0 is left alone"
    assert {r["is_nodule"] for r in judged} == {0.0, 1.0}
    assert provenance["patients"] + len(outside - {"L0", "L1"}) == 9
    fp32 = {"steps": 1, "seed": 9, "precision": "fp32"}
    for other in ({"precision": "bf16"}, {"steps": 2}, {"seed": 7}):
        own = fp32 | other
        assert not Ablation(tmp_path, root=root, **own).gathered()["judged"], "runs of another kind are no rows"


def test_an_unknown_departure_is_named(tmp_path, root):
    result = CliRunner().invoke(app, ["ablate", "gama", "--out", str(tmp_path), "--data", str(root)])
    assert "'gama' is not a departure" in str(result.exception)
