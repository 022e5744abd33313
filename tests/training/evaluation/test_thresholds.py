"""Where SegNet's map is cut: what other folds choose, against counting by hand, and what a cut is."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage
from typer.testing import CliRunner

from nodule_diag_training.cli import app
from nodule_diag_training.data import Sample
from nodule_diag_training.evaluation import metrics
from nodule_diag_training.evaluation.judgement import OTHER_THRESHOLDS, Cut, Judgement, judge
from nodule_diag_training.evaluation.thresholds import (
    THRESHOLDS,
    at,
    by_fold,
    chosen,
    cut_out_of_fold,
    threshold_section,
)
from nodule_diag_training.model import SynergicOutput

NAN = float("nan")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 20)


def judged(name: str, *, fold: int, dice: dict[float, float], form: str = "cube") -> Judgement:
    """At one half Dice is 0.5 and the diameter 2 mm short; at another threshold t they are ``dice[t]`` and t."""
    cuts = tuple(
        Cut(threshold=t, dice_grid=dice.get(t, 0.0) / 2, dice_half_mm=dice.get(t, 0.0), diameter_error_mm=t)
        for t in OTHER_THRESHOLDS
    )
    return Judgement(
        case_id=name, patient_id=name, fold=fold, form=form, in_paper_cohort=True, diameter_mm=9.0, reader_scores=(3,),
        reader_score=3.0, label=None, certainty=None, malignancy=0.5, expert_score=3.0, dice_grid=0.4,
        dice_half_mm=0.5, diameter_error_mm=-2.0, cam_nodule=0.6, cam_background=0.1, cuts=cuts,
    )  # fmt: skip


def test_a_fold_is_cut_where_the_others_choose():
    folds = [judged("a", fold=0, dice={0.25: 0.9}), judged("b", fold=1, dice={0.4: 0.8}), judged("c", fold=2, dice={})]
    # 0 and 2: 0.25 has (0.9 + 0) / 2, one half 0.5; 1 and 2: 0.4 has 0.4, one half 0.5; 0 and 1: 0.25 has 0.45.
    assert by_fold(folds) == {0: 0.5, 1: 0.5, 2: 0.5}
    better = [replace(one, dice_half_mm=0.3) for one in folds]
    assert by_fold(better) == {0: 0.4, 1: 0.25, 2: 0.25}
    cut = cut_out_of_fold(better)
    assert [(one.dice_half_mm, one.dice_grid, one.diameter_error_mm) for one in cut] == [
        (0.0, 0.0, 0.4), (0.0, 0.0, 0.25), (0.0, 0.0, 0.25)
    ]  # fmt: skip
    assert chosen([replace(one, dice_half_mm=0.2) for one in folds]) == 0.25  # 0.9 / 3
    assert [one.malignancy for one in cut] == [0.5] * 3


def test_forms_weigh_the_same_and_a_cube_cut_as_a_voi_says_nothing():
    many = [judged(f"v{i}", fold=0, dice={0.45: 0.6}, form="voi") for i in range(9)]
    one = judged("c", fold=0, dice={0.3: 0.9, 0.45: 0.2})
    aside = [judged(f"x{i}", fold=0, dice={0.25: 1.0}, form="cube-cut") for i in range(9)]
    assert chosen([*many, *aside]) == 0.45
    # 0.45: (0.6 + 0.2) / 2; 0.3: (0 + 0.9) / 2; one half: 0.5.
    assert chosen([*many, one, *aside]) == 0.5
    low = [replace(j, dice_half_mm=0.1) for j in [*many, one, *aside]]
    assert chosen(low) == 0.3


def test_of_equals_the_highest():
    assert chosen([judged("a", fold=0, dice={0.3: 0.5, 0.4: 0.5})]) == 0.5
    assert chosen([judged("a", fold=0, dice={0.3: 0.7, 0.4: 0.7})]) == 0.4


def test_one_fold_alone_or_a_report_without_cuts_stays_at_one_half():
    alone = [judged("a", fold=1, dice={0.25: 0.9})]
    assert by_fold(alone) == {}
    assert cut_out_of_fold(alone) == alone
    old = [replace(judged(str(fold), fold=fold, dice={}), cuts=()) for fold in range(3)]
    assert chosen(old) is None
    assert cut_out_of_fold(old) == old
    assert threshold_section(old).rows == ()


def test_the_table_has_each_threshold_and_what_came_out_of_fold():
    folds = [judged(f"n{i}", fold=i % 3, dice={0.35: 0.8}) for i in range(9)]
    section = threshold_section(folds)
    value = {(row.group, row.metric): row.value for row in section.rows}
    assert {group for group, _ in value} == {*(f"{t:.2f}" for t in THRESHOLDS), "out of fold (0.35, 0.35, 0.35)"}
    assert value["0.35", "real surroundings: Dice"] == pytest.approx(0.8)
    assert value["0.50", "real surroundings: Dice"] == pytest.approx(0.5)
    assert value["0.50", "real surroundings: diameter error, median, mm"] == pytest.approx(2.0)
    assert value["0.50", "real surroundings: diameter minus the outline's, mean, mm"] == pytest.approx(-2.0)
    assert value["out of fold (0.35, 0.35, 0.35)", "real surroundings: diameter error, median, mm"] == 0.35
    assert np.isnan(value["0.35", "VOIs: Dice"])


def test_a_cut_is_the_interpolated_map_from_the_threshold_on():
    """Against scipy's interpolation and labelling of a made-up map, and counting."""
    rng = np.random.default_rng(4)
    map_ = ndimage.gaussian_filter(rng.random((16, 16, 16)), 1.0)
    # In steps of 1/256 every interpolated value is exact in float32 too, so no rounding decides what reaches it.
    map_ = (np.round((map_ - map_.min()) / np.ptp(map_) * 254 + 1) / 256).astype(np.float32)
    occupancy = (np.linalg.norm(np.indices((64, 64, 64)) - 31.5, axis=0) < 12).astype(np.float32)
    sample = Sample(patch=np.zeros((2, 64, 64, 64), np.float32), occupancy=occupancy)
    logit = torch.logit(torch.from_numpy(map_))[None]

    def model(_patches: torch.Tensor) -> SynergicOutput:
        return SimpleNamespace(logit=None, cam=None, score=None, segmentation_logit=logit)  # type: ignore[return-value]

    nodule = SimpleNamespace(
        case_id="a", patient_id="p", outlined=True, in_paper_cohort=True, diameter_mm=12.0, reader_scores=(),
        mean_score=NAN, sure=None,
    )  # fmt: skip
    (found,) = judge(model, [nodule], [sample], fold=0, form="cube", thresholds=(0.25, 0.375))
    at_grid = np.clip((np.arange(64) + 0.5) / 4 - 0.5, 0, 15)
    fine = ndimage.map_coordinates(map_.astype(float), np.meshgrid(at_grid, at_grid, at_grid, indexing="ij"), order=1)
    truth = occupancy > 0.5
    distance = np.linalg.norm(np.indices((64, 64, 64)) - 31.5, axis=0)
    counts = []
    for threshold in (0.25, 0.375, 0.5):
        labels, parts = ndimage.label(fine >= threshold)
        counts.append(parts)
        cut, mask = at(found, threshold), labels == labels.flat[np.where(labels > 0, distance, np.inf).argmin()]
        assert cut.dice_half_mm == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()), abs=1e-4)
        wanted = np.cbrt(6 * mask.sum() / 8 / np.pi) - np.cbrt(6 * truth.sum() / 8 / np.pi)
        assert cut.diameter_error_mm == pytest.approx(wanted, abs=1e-3)
        cells = occupancy.reshape(16, 4, 16, 4, 16, 4).mean(axis=(1, 3, 5)) >= 0.5
        both = ((map_ >= threshold) & cells).sum()
        assert cut.dice_grid == pytest.approx(2 * both / ((map_ >= threshold).sum() + cells.sum()), abs=1e-4)
    assert max(counts) > 1
    assert [cut.threshold for cut in found.cuts] == [0.25, 0.375]


def test_the_report_says_where_all_choose(tmp_path):
    folds = [judged(f"n{i}", fold=i % 3, dice={0.35: 0.8}) for i in range(12)]
    spaces = {space: {} for space in ("machine", "expert", "machine+expert")}
    report = {
        "sections": [], "command": "nodule-diag train evaluate a b c --out e.json", "config": {}, "diagnosed": [],
        "folds": {"judged": [0, 1, 2], "of": 3}, "judgements": [j.to_dict() for j in folds], "retrieved": [spaces],
    }  # fmt: skip
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(report))
    command = ["evaluate", "--again", str(old), "--out", str(new), "--data", str(tmp_path)]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 0, ended.output
    told = json.loads(new.read_text())
    assert told["segmentation"] == {"threshold": 0.35}
    assert told["thresholds"] == {"0": 0.35, "1": 0.35, "2": 0.35}
    assert told["judgements"][0]["dice_half_mm"] == 0.5  # as it was judged
    targets = next(s for s in told["sections"] if s["title"] == "Targets")
    (error,) = [row for row in targets["rows"] if row["metric"] == "Diameter error, median, mm"]
    assert error["value"] == pytest.approx(0.35)
    ended = CliRunner().invoke(app, [*command, "--fold", "1"])
    assert ended.exit_code == 0, ended.output
    assert json.loads(new.read_text())["segmentation"] is None
