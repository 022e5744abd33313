"""Targets, groups of nodules, the reliability curve and tables made again, against literal references."""

from __future__ import annotations

import csv
import json
import lzma
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata
from typer.testing import CliRunner

from nodule_diag.bundle import Bundle
from nodule_diag_training.cli import app
from nodule_diag_training.data import TrainingDataError
from nodule_diag_training.evaluation import metrics
from nodule_diag_training.evaluation.appearance import Appearance, looked_at, read_appearance
from nodule_diag_training.evaluation.breakdown import GROUPS, breakdown_section
from nodule_diag_training.evaluation.calibration import BINS, Diagnosed, fit_platt, sigmoid
from nodule_diag_training.evaluation.crossval import FoldResult, sections_of
from nodule_diag_training.evaluation.judgement import Judgement
from nodule_diag_training.evaluation.reliability import reliability_section
from nodule_diag_training.evaluation.reports import judged_in, of_fold, open_report
from nodule_diag_training.evaluation.rows import Row, Target
from nodule_diag_training.evaluation.targets import target_section

SPACES = ("machine", "expert", "machine+expert")
NAN = float("nan")


def made(count: int, *, form: str = "cube", seed: int = 0, first: int = 0) -> list[Judgement]:
    """Judgements at random, two a patient, in three folds."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(first, first + count):
        scores = tuple(int(s) for s in rng.integers(1, 6, rng.integers(2, 5)))
        found.append(
            Judgement(
                case_id=f"{form}-{i}", patient_id=f"p{i // 2}", fold=i // 2 % 3, form=form, in_paper_cohort=i % 3 > 0,
                diameter_mm=float(rng.uniform(3, 25)), reader_scores=scores, reader_score=float(np.mean(scores)),
                label=i // 2 % 2, certainty="nodule", malignancy=float(rng.uniform()),
                expert_score=float(rng.uniform(1, 5)), dice_grid=float(rng.uniform()), dice_half_mm=0.5,
                diameter_error_mm=float(rng.normal(0, 2)), cam_nodule=float(rng.uniform()),
                cam_background=float(rng.uniform(0, 0.4)), texture=float(rng.choice([1.0, 1.49, 1.5, 4.49, 4.5, 5.0])),
                slice_thickness_mm=float(rng.choice([0.6, 1.0, 1.25, 2.0, 2.5])),
            )
        )  # fmt: skip
    return found


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 20)


def area(label: np.ndarray, score: np.ndarray) -> float:
    """AUC as the share of pairs in order."""
    one, other = score[label == 1][:, None], score[label == 0][None]
    return float(((one > other) + 0.5 * (one == other)).mean())


def test_every_target_is_that_of_a_literal_count():
    cubes, vois = made(80), made(90, form="voi", seed=1, first=200)
    rows = target_section(cubes, vois).rows
    three = [j for j in cubes if len(j.reader_scores) > 2]
    score, readers = (np.array([getattr(j, name) for j in three]) for name in ("expert_score", "reader_score"))
    margin = np.array([j.cam_nodule - j.cam_background for j in cubes])
    clear = [j for j in vois if j.in_paper_cohort and math.floor(j.reader_score + 0.5) != 3]
    label = np.array([j.reader_score > 3 for j in clear]).astype(int)
    p, mm = (np.array([getattr(j, name) for j in clear]) for name in ("malignancy", "diameter_mm"))
    wanted = [
        (np.corrcoef(rankdata(score), rankdata(readers))[0, 1], len(three), ">= 0.75"),
        (np.abs(score - readers).mean(), len(three), "<= 0.42"),
        (np.mean([j.dice_grid for j in cubes]), 80, ">= 0.72"),
        (np.median([abs(j.diameter_error_mm) for j in cubes]), 80, "<= 1"),
        (np.median(margin), 80, ">= 0.65"),
        ((margin < 0).mean(), 80, "< 0.02"),
        (area(label, p), len(clear), ">= 0.97"),
        (area(label, mm), len(clear), None),
        (area(label, p) - area(label, mm), len(clear), "> 0, all of the interval"),
    ]
    assert [row.n for row in rows] == [n for _, n, _ in wanted]
    assert [row.target for row in rows] == [target for _, _, target in wanted]
    np.testing.assert_allclose([row.value for row in rows], [value for value, _, _ in wanted], atol=1e-12)
    assert all(row.low < row.high for row in rows)
    assert rows[5].note.endswith(f"; {int((margin < 0).sum())} of them")


def test_the_difference_of_the_areas_is_paired_and_of_whole_patients():
    """The interval is that of draws of patients in which both areas are of the same nodules."""
    vois = [replace(j, in_paper_cohort=True) for j in made(60, form="voi", seed=2)]
    row = target_section([], vois).rows[-1]
    clear = [j for j in vois if math.floor(j.reader_score + 0.5) != 3]
    names = sorted({j.patient_id for j in clear})
    rng = np.random.default_rng(metrics.BOOTSTRAP_SEED)
    drawn = []
    for _ in range(20):
        some = [j for i in rng.integers(len(names), size=len(names)) for j in clear if j.patient_id == names[i]]
        label = np.array([int(j.reader_score > 3) for j in some])
        p, mm = (np.array([getattr(j, name) for j in some]) for name in ("malignancy", "diameter_mm"))
        drawn.append(area(label, p) - area(label, mm))
    np.testing.assert_allclose([row.low, row.high], np.quantile(drawn, [0.025, 0.975]), atol=1e-12)
    same = target_section([], [replace(j, diameter_mm=j.malignancy) for j in vois]).rows[-1]
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert same.note == "missed"


@pytest.mark.parametrize(
    ("target", "figures", "note"),
    [
        (Target(">=", 0.75), (0.75, 0.7, 0.8), "met; the interval reaches both sides"),
        (Target(">=", 0.75), (0.8, 0.76, 0.9), "met"),
        (Target("<=", 1.0), (1.08, 0.8, 1.5), "missed; the interval reaches both sides"),
        (Target("<", 0.02), (0.02, 0.02, 0.05), "missed"),
        (Target(">", 0.0, whole=True), (0.02, 0.01, 0.04), "met"),
        (Target(">", 0.0, whole=True), (0.02, -0.01, 0.04), "missed; the interval reaches both sides"),
        (Target(">", 0.0), (NAN, NAN, NAN), "not defined"),
    ],
)
def test_a_target_is_met_or_missed(target, figures, note):
    value, low, high = figures
    assert target.judged(Row(metric="m", value=value, low=low, high=high, n=3)).note == note


def test_groups_are_those_of_their_rule():
    vois = made(120, form="voi", seed=3)
    rows = {(row.group, row.metric): row for row in breakdown_section("VOIs", vois).rows}
    assert len(rows) == 5 * len(GROUPS)

    def check(name: str, inside: list[Judgement]) -> None:
        assert rows[name, "Dice"].n == len(inside)
        assert rows[name, "Dice"].value == pytest.approx(np.mean([j.dice_grid for j in inside]))
        errors = [abs(j.expert_score - j.reader_score) for j in inside if len(j.reader_scores) >= 3]
        assert rows[name, "score, MAE"].value == pytest.approx(np.mean(errors))
        assert rows[name, "score, MAE"].n == len(errors)
        absolute = sorted(abs(j.diameter_error_mm) for j in inside)
        assert rows[name, "diameter error, median, mm"].value == pytest.approx(np.median(absolute))
        signed = sum(j.diameter_error_mm for j in inside) / len(inside)
        assert rows[name, "diameter minus the outline's, mean, mm"].value == pytest.approx(signed)

    check("all", vois)
    for name, low, high in (
        ("under 6 mm", 0, 6),
        ("6 to 8 mm", 6, 8),
        ("8 to 15 mm", 8, 15),
        ("15 mm and more", 15, 99),
    ):
        check(name, [j for j in vois if low <= j.diameter_mm < high])
    check("ground glass", [j for j in vois if j.texture in (1.0, 1.49)])
    check("part-solid", [j for j in vois if j.texture in (1.5, 4.49)])
    check("solid", [j for j in vois if j.texture in (4.5, 5.0)])
    check("slices up to 1 mm", [j for j in vois if j.slice_thickness_mm in (0.6, 1.0)])
    check("slices above 1, below 2 mm", [j for j in vois if j.slice_thickness_mm == 1.25])
    check("slices of 2 mm and more", [j for j in vois if j.slice_thickness_mm in (2.0, 2.5)])


@pytest.mark.parametrize(("patients", "there"), [(9, False), (10, True)])
def test_few_patients_have_no_interval(patients, there):
    rows = breakdown_section("VOIs", [replace(j, diameter_mm=5.0) for j in made(2 * patients)]).rows
    (row,) = [row for row in rows if row.group == "under 6 mm" and row.metric == "Dice"]
    assert row.n == 2 * patients
    assert math.isfinite(row.low) is there


def test_what_a_store_does_not_know_has_no_rows():
    unknown = [replace(j, texture=NAN, slice_thickness_mm=NAN) for j in made(30)]
    sections = {s.title: s for s in sections_of([FoldResult(judgements=tuple(unknown), diagnosed=(), retrieved={
        space: {} for space in SPACES})])}  # fmt: skip
    groups = {row.group for row in sections["By size, solidity and slices: nodules in their real surroundings"].rows}
    assert groups == {"all", "under 6 mm", "6 to 8 mm", "8 to 15 mm", "15 mm and more"}


def diagnosed(count: int = 120) -> Diagnosed:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2, count)
    labels = (rng.random(count) < sigmoid(0.5 * logits + 1)).astype(np.float64)
    names = tuple(f"p{i // 2}" for i in range(count))
    return Diagnosed(case_ids=tuple(map(str, range(count))), patients=names, logits=logits, labels=labels)


def test_the_curve_is_that_of_fifths_by_weight():
    nodules = diagnosed()
    rows = reliability_section(nodules, draws=100).rows
    after = np.empty(120)
    for patient in set(nodules.patients):  # each patient by a fit of the others
        own = np.array([name == patient for name in nodules.patients])
        (slope,), (shift,) = fit_platt(nodules.logits, nodules.labels, np.where(own, 0.0, 1.0)[None])
        after[own] = sigmoid(slope * nodules.logits[own] + shift)
    weight = np.where(nodules.labels == 1, 0.5 / nodules.labels.sum(), 0.5 / (1 - nodules.labels).sum())
    for when, p in (("before calibration", sigmoid(nodules.logits)), ("after", after)):
        mine = [row for row in rows if row.metric.endswith(when)]
        means, shares = mine[::2], mine[1::2]
        assert len(shares) == BINS
        order, done, fifths = np.argsort(p), 0.0, [[] for _ in range(BINS)]
        for i in order:
            fifths[int((done + weight[i] / 2) * BINS)].append(i)
            done += weight[i]
        for inside, mean, share in zip(fifths, means, shares, strict=True):
            assert share.n == mean.n == len(inside)
            assert mean.value == pytest.approx(np.average(p[inside], weights=weight[inside]))
            assert share.value == pytest.approx((weight * nodules.labels)[inside].sum() / weight[inside].sum())
            assert share.low <= share.value <= share.high
        total = sum(s.value * weight[inside].sum() for s, inside in zip(shares, fifths, strict=True))
        assert total == pytest.approx(0.5)  # the prior


def test_the_curve_is_left_out_where_nothing_could_be_fitted():
    retrieved = {space: {} for space in SPACES}
    few, enough = made(36), made(80)
    for judgements, there in ((few, False), (enough, True)):
        titles = [s.title for s in sections_of([FoldResult(judgements=tuple(judgements), diagnosed=tuple(judgements),
                                                           retrieved=retrieved)])]  # fmt: skip
        assert ("Reliability of P on the diagnosed nodules" in titles) is there


def report_of(judgements: list[Judgement], **more: object) -> dict[str, object]:
    """As an older ``train evaluate`` wrote it: without texture, slices and the list of the diagnosed."""
    lines = [j.to_dict() for j in judgements]
    for line in lines:
        del line["texture"], line["slice_thickness_mm"]
    asked = [
        {
            space: {j.case_id: j.malignancy for j in judgements if j.fold == fold and j.form == "cube"}
            for space in SPACES
        }
        for fold in range(3)
    ]
    return {
        "sections": [], "command": "nodule-diag train evaluate fold-0 fold-1 fold-2 --out e.json",
        "folds": {"judged": [0, 1, 2], "of": 3}, "config": {"seed": 7}, "seconds": 60.0, "judgements": lines,
        "retrieved": asked, **more,
    }  # fmt: skip


@pytest.fixture
def lidc(tmp_path):
    """Tables of one VOI and two cubes; the second cube's series has no VOI."""
    root = tmp_path / "data"
    for folder in ("lidc_vois", "lidc_cubes", "tables"):
        (root / folder).mkdir(parents=True)
    head = "voi,seriesuid,slice_thickness,texture\n"
    (root / "lidc_vois" / "vois.csv").write_text(f"{head}voi-1,1.2,2.5,5;4;3\n")
    (root / "tables" / "lidc_luna16_cohort.csv").write_text("seriesuid,slice_thickness\n1.3,0.6\n")
    cubes = [
        {"file": "a", "series": "1.2", "texture": [1, 2]},
        {"file": "b", "series": "1.3", "texture": [5]},
        {"file": "c", "series": "1.4"},
    ]
    (root / "lidc_cubes" / "index.json").write_text(json.dumps(cubes))
    return root


def test_looks_come_from_the_tables(lidc, tmp_path):
    looks = read_appearance(lidc)
    assert looks["voi-1"] == Appearance(texture=4.0, slice_thickness_mm=2.5)
    assert looks["cube/a"] == Appearance(texture=1.5, slice_thickness_mm=2.5)
    assert looks["cube/b"] == Appearance(texture=5.0, slice_thickness_mm=0.6)
    assert math.isnan(looks["cube/c"].texture)
    assert math.isnan(looks["cube/c"].slice_thickness_mm)
    assert read_appearance(tmp_path / "nothing") == {}
    (lidc / "lidc_vois" / "vois.csv").write_text("voi,texture\nv,solid\n")
    with pytest.raises(TrainingDataError, match="cannot be read"):
        read_appearance(lidc)


def run(*words: object) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


def test_tables_are_made_again_without_the_networks(tmp_path, lidc):
    judgements = [*made(60), *made(60, form="voi", seed=5, first=200), replace(made(1)[0], form="cube-cut")]
    judgements[60] = replace(judgements[60], case_id="voi-1", expert_score=NAN, label=None)
    old = tmp_path / "old.json"
    old.write_text(json.dumps(report_of(judgements)).replace("NaN", "null"))
    new, newer = tmp_path / "new.json.xz", tmp_path / "newer.json"
    said = run("--again", old, "--out", new, "--data", lidc)
    assert "target >= 0.72: missed" in said
    made_new = json.loads(lzma.decompress(new.read_bytes()))
    want = sections_of([looked_at(judged_in(old, open_report(old)), read_appearance(lidc))])
    assert [s["title"] for s in made_new["sections"]] == [s.title for s in want]
    figures = [row["value"] for s in made_new["sections"] for row in s["rows"]]
    np.testing.assert_allclose(figures, [row.value for s in want for row in s.rows])
    assert made_new["command"].splitlines() == [
        "nodule-diag train evaluate fold-0 fold-1 fold-2 --out e.json",
        "nodule-diag train evaluate --again old.json --out new.json.xz",
    ]
    assert len(made_new["diagnosed"]) == len(set(made_new["diagnosed"])) == 60  # none of them a cube that was cut
    assert (made_new["folds"], made_new["seconds"]) == ({"judged": [0, 1, 2], "of": 3}, 60.0)
    (told,) = [j for j in made_new["judgements"] if j["case_id"] == "voi-1"]
    assert (told["texture"], told["slice_thickness_mm"], told["expert_score"]) == (4.0, 2.5, None)
    # What it holds by now needs no tables, and nothing else moves.
    run("--again", new, "--out", newer, "--data", tmp_path / "nowhere")
    again = json.loads(newer.read_text())
    assert again["sections"] == made_new["sections"]
    assert again["judgements"] == made_new["judgements"]
    assert again["diagnosed"] == made_new["diagnosed"]
    assert len(again["command"].splitlines()) == 2


def test_one_fold_of_a_report(tmp_path):
    path = tmp_path / "e.json"
    path.write_text(json.dumps(report_of(made(60))))
    out = tmp_path / "fold.json"
    run("--again", path, "--fold", 1, "--out", out, "--data", tmp_path)
    said = json.loads(out.read_text())
    assert said["folds"] == {"judged": [1], "of": 3}
    assert {j["case_id"] for j in said["judgements"]} == {j.case_id for j in made(60) if j.fold == 1}
    assert set(said["retrieved"][0]["machine"]) == set(said["diagnosed"]) == {j["case_id"] for j in said["judgements"]}
    assert said["command"].endswith("--again e.json --fold 1 --out fold.json")
    assert of_fold(judged_in(path, open_report(path)), 9).judgements == ()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "nothing to judge"),
        (("fold-0", "--again", "e.json"), "or twice"),
        (("fold-0", "--fold", "1"), "--fold is 1"),
        (("--again", "e.json", "--fold", "7"), "judges no nodule of fold 7"),
        (("--again", "bare.json"), "not a report of an evaluation"),
        (("--again", "broken.json"), "not a report of an evaluation"),
        (("--again", "torn.json.xz"), "not a report of an evaluation"),
        (("--again", "absent.json"), "not a report of an evaluation"),
    ],
)
def test_what_cannot_be_judged_is_refused(tmp_path, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.json").write_text(json.dumps(report_of(made(6))))
    (tmp_path / "bare.json").write_text("[]")
    broken = report_of(made(6))
    broken["judgements"][0]["form"] = "picture"
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    (tmp_path / "torn.json.xz").write_bytes(lzma.compress(b"{}")[:20])
    result = CliRunner().invoke(app, ["evaluate", *words, "--out", "out.json", "--data", "."])
    assert text in str(result.exception)
    assert not (tmp_path / "out.json").exists()


def test_the_committed_report_counts_as_its_judgements_do(repo_root):
    """Counted anew from the judgements, by other code."""
    report = open_report(repo_root / "results" / "gpu_day" / "evaluation.json.xz")
    cubes = [j for j in report["judgements"] if j["form"] == "cube"]
    (targets,) = [s["rows"] for s in report["sections"] if s["title"] == "Targets"]
    value = {row["metric"]: row for row in targets}
    assert value["CAM margin negative, share"]["value"] == sum(
        j["cam_nodule"] < j["cam_background"] for j in cubes
    ) / len(cubes)
    cut = [next(c for c in j["cuts"] if c["threshold"] == report["thresholds"][str(j["fold"])]) for j in cubes]
    assert value["Diameter error, median, mm"]["value"] == pytest.approx(
        float(np.median([abs(c["diameter_error_mm"]) for c in cut]))
    )
    vois = [j for j in report["judgements"] if j["form"] == "voi"]

    def best(left_out: int | None) -> float:
        """The threshold at which the other folds' Dice is largest."""
        dice: dict[float, list[float]] = {}
        for form in (cubes, vois):
            others = [j for j in form if j["fold"] != left_out]
            at = [{0.5: j} | {c["threshold"]: c for c in j["cuts"]} for j in others]
            for threshold in (0.25, 0.3, 0.35, 0.4, 0.45, 0.5):
                dice.setdefault(threshold, []).append(np.mean([cuts[threshold]["dice_half_mm"] for cuts in at]))
        return max(dice, key=lambda threshold: sum(dice[threshold]))

    assert report["thresholds"] == {str(fold): best(fold) for fold in (0, 1, 2)}
    assert report["segmentation"] == {"threshold": best(None)}
    packaged = Bundle.default().manifest.segmentation
    assert packaged is not None
    assert packaged.threshold == best(None)
    assert {j["fold"] for j in report["judgements"]} == {0, 1, 2}
    assert all(row["target"] is None or row["note"].startswith(("met", "missed")) for row in targets)


@pytest.mark.real_data
def test_the_committed_looks_are_lidcs(repo_root, data_root):
    report = open_report(repo_root / "results" / "gpu_day" / "evaluation.json.xz")
    held = {j["case_id"]: j for j in report["judgements"]}
    with (data_root / "lidc_vois" / "vois.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["voi"] in held:
                texture = [int(part) for part in row["texture"].split(";")]
                assert held[row["voi"]]["texture"] == sum(texture) / len(texture)
                assert held[row["voi"]]["slice_thickness_mm"] == float(row["slice_thickness"])
