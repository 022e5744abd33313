"""The report over judgements that are known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.case import Case
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.results.spaces import SPACES
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.evaluation import metrics
from nodule_diag_training.evaluation.crossval import FoldResult, retrieve, sections_of
from nodule_diag_training.evaluation.judgement import Judgement
from nodule_diag_training.evaluation.report import side_section, symmetry_section
from nodule_diag_training.evaluation.similar_cases import nearest_cases


def judgement(index: int, *, form: str = "cube", fold: int = 0, patient: str | None = None, **changes) -> Judgement:
    """A nodule whose P, score and readers agree; even ones are malignant."""
    score = 5.0 if index % 2 == 0 else 1.0
    values = {
        "case_id": f"case-{index}",
        "patient_id": patient or f"patient-{index}",
        "fold": fold,
        "form": form,
        "in_paper_cohort": True,
        "diameter_mm": 5.0 + index,
        "reader_scores": (int(score),) if index == 0 else (int(score), int(score)),
        "reader_score": score,
        "label": 1 - index % 2,
        "certainty": "nodule",
        "malignancy": 0.9 if index % 2 == 0 else 0.1,
        "expert_score": score,
        "dice_grid": 0.5 + index / 100,
        "dice_half_mm": 0.6,
        "diameter_error_mm": -1.0,
        "cam_nodule": 0.8,
        "cam_background": 0.1,
    }
    return Judgement(**{**values, **changes})


@pytest.fixture
def report(monkeypatch) -> dict[str, dict]:
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 10)
    cubes = [judgement(i) for i in range(8)]
    cut = [judgement(i, form="cube-cut", malignancy=0.5) for i in range(8)]
    vois = [judgement(i, form="voi") for i in range(8, 16)]
    retrieved = {
        space: {j.case_id: j.malignancy for j in cubes + vois} for space in ("machine", "expert", "machine+expert")
    }
    sections = sections_of(
        [FoldResult(judgements=(*cubes, *cut, *vois), diagnosed=(*cubes, *vois), retrieved=retrieved)]
    )
    first = [section.title.split(" ")[0] for section in sections]
    assert first == ["Targets", "Nodules", "By", "By", "The", "Diagnosed", "All", "Calibration", "Scenario"]
    return {name: {row.metric: row for row in own.rows} for name, own in zip(first, sections, strict=True)}


def test_figures_are_those_of_the_judgements(report):
    cubes = report["Nodules"]
    assert cubes["SegNet Dice on its 16-grid"].value == pytest.approx(0.535)
    assert cubes["SegNet Dice on its 16-grid"].n == 8
    assert cubes["Diameter error of SegNet, mm (absolute)"].value == 1.0
    assert cubes["CAM margin (eq. 8 - eq. 9, reader mask)"].value == pytest.approx(0.7)
    assert cubes["Expert score (RNet) against the readers' mean: MAE"].value == 0.0
    diagnosed = report["Diagnosed"]
    assert diagnosed["CNet (P), AUC"].value == 1.0
    assert diagnosed["CNet (P), AUC"].n == 16
    assert diagnosed["Base rate of malignancy"].value == 0.5


def test_scenario_12_45_leaves_out_what_rounds_to_3(monkeypatch):
    """A mean of 2.5 is a 3 and one of 3.5 a 4, as in training and in the paper's tables."""
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 10)
    scores = (1.0, 2.25, 2.5, 3.0, 3.25, 3.5, 5.0)
    judged = [judgement(i, form="voi", reader_score=score) for i, score in enumerate(scores)]
    assert {row.n for row in side_section("VOIs", judged).rows} == {4}


def test_a_patient_is_judged_once():
    fold = FoldResult(judgements=(judgement(0),), diagnosed=(), retrieved={})
    with pytest.raises(TrainingDataError, match="patient-0"):
        sections_of([fold, fold])


def test_calibration_is_counted_by_hand(report):
    calibration = report["Calibration"]
    assert calibration["Brier score of P"].value == pytest.approx(0.01)
    assert calibration["Yardstick: Brier score of the base rate"].value == pytest.approx(0.25)


def test_a_single_reader_is_no_yardstick_and_no_crash(report):
    # Fifteen scores: case 0 has one reader, the other seven have two.
    assert report["Nodules"]["Yardstick: one reader against the others, MAE"].n == 14


def test_the_cut_is_compared_case_by_case(report):
    assert report["The"]["P, absolute difference"].value == pytest.approx(0.4)
    assert report["The"]["P, difference"].value == pytest.approx(0.0)


NAN = float("nan")
NO_OUTLINE = {"dice_grid": NAN, "dice_half_mm": NAN, "diameter_error_mm": NAN, "cam_nodule": NAN, "cam_background": NAN}


def test_what_is_not_known_of_a_nodule_does_not_count(monkeypatch):
    """Half of the nodules have neither outline nor scores, as ``prepare sure`` stores them; nothing was retrieved."""
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 10)
    scored = [judgement(i, label=None) for i in range(6)]
    sure = [judgement(i, reader_scores=(), reader_score=NAN, in_paper_cohort=False, **NO_OUTLINE) for i in range(6, 10)]
    nothing = {space: {} for space in ("machine", "expert", "machine+expert")}
    fold = FoldResult(judgements=(*scored, *sure), diagnosed=tuple(sure), retrieved=nothing)
    sections = {section.title.split(" ")[0]: section for section in sections_of([fold])}
    assert list(sections) == ["Targets", "Nodules", "By", "Diagnosed", "All", "Calibration", "Scenario"]
    cubes = {row.metric: row for row in sections["Nodules"].rows}
    assert cubes["Expert score (RNet) against the readers' mean: MAE"].n == 6
    assert cubes["SegNet Dice on its 16-grid"].value == pytest.approx(0.525)
    diagnosed = {row.metric: row.n for row in sections["All"].rows}
    assert diagnosed["CNet (P), AUC"] == 4
    assert not any("Retrieval" in name or "readers" in name or "margin" in name for name in diagnosed)


def test_a_report_of_diagnosed_nodules_alone_has_no_empty_tables(monkeypatch):
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 10)
    sure = [judgement(i, reader_scores=(), reader_score=NAN, in_paper_cohort=False, **NO_OUTLINE) for i in range(4)]
    retrieved = {space: {j.case_id: 0.5 for j in sure} for space in ("machine", "expert", "machine+expert")}
    sections = sections_of([FoldResult(judgements=tuple(sure), diagnosed=tuple(sure), retrieved=retrieved)])
    assert [section.title.split(" ")[0] for section in sections] == ["Diagnosed", "All", "Calibration"]


def test_retrieval_is_the_sdks_to_the_last_tie():
    """Many cases at the same distance: both give the same twenty, in the same order."""
    rng = np.random.default_rng(3)
    levels = rng.integers(0, 4, (2, 60)) / 4
    found = [
        judgement(int(i), malignancy=float(p), expert_score=float(1 + 4 * s))
        for i, p, s in zip(rng.permutation(60), *levels, strict=True)
    ]
    cases = [
        Case(
            case_id=j.case_id, patient_id=j.patient_id, label=j.label or 0, label_source="biopsy",
            label_certainty="nodule", malignancy=j.malignancy, expert_score=j.expert_score,
        )
        for j in found
    ]  # fmt: skip
    index = CaseIndex(CaseBase.of(cases, name="folds", model_sha256=64 * "0"))
    for space in SPACES:
        queries = [judgement(100 + n, malignancy=n / 8, expert_score=1 + n / 2) for n in range(9)]
        for query, nearest in zip(queries, nearest_cases(queries, found, space=space), strict=True):
            wanted = index.search(space, malignancy=query.malignancy, expert_score=query.expert_score, k=20)
            assert [case.case_id for case in nearest] == [case.case_id for case in wanted]


def test_retrieval_takes_the_nearest_of_other_patients():
    cases = [judgement(i) for i in range(40)]
    queries = [judgement(100, malignancy=0.85), judgement(101, malignancy=0.15)]
    diagnosis = retrieve(cases, queries)
    assert diagnosis["machine"] == {"case-100": 1.0, "case-101": 0.0}
    with pytest.raises(TrainingDataError, match="among the queries"):
        retrieve(cases, [judgement(3)])


def test_symmetries_are_compared_case_by_case():
    single = [judgement(i, dice_grid=0.5, expert_score=3.0) for i in range(6)]
    averaged = [judgement(i, dice_grid=0.6, expert_score=4.0, malignancy=0.2) for i in reversed(range(6))]
    rows = {row.metric: row for row in symmetry_section(single, averaged, views=8).rows}
    assert rows["SegNet Dice on its 16-grid, difference"].value == pytest.approx(0.1)
    # Readers say 5 or 1: moving the score from 3 to 4 mends as much as it spoils.
    name = "Expert score (RNet) against the readers' mean"
    assert rows[f"{name}: absolute error, difference"].value == pytest.approx(0.0)
    assert rows["P against the readers' mean: Spearman, alone"].value == pytest.approx(1.0)
