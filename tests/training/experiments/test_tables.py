"""Tables from synthetic results: every cell follows from the records, and nothing is claimed that was not run."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from nodule_diag_training.data.confounder import CueTest
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.evaluation import metrics
from nodule_diag_training.experiments import scores
from nodule_diag_training.experiments.catalogue import find
from nodule_diag_training.experiments.records import (
    RECORD_FORMAT,
    CamFigures,
    FoldRecord,
    NoduleRecord,
    record_path,
    write_record,
)
from nodule_diag_training.experiments.retrieval import relabel, retrieve
from nodule_diag_training.experiments.scores import METRICS, Scored, over_folds, pooled_auc
from nodule_diag_training.experiments.tables import TABLES, make_table, results_of
from nodule_diag_training.experiments.tested import scored, yardsticks

OURS = "short: 250 steps at 40, seed 0, 2 of 2 folds"


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    for module in (metrics, scores):
        monkeypatch.setattr(module, "BOOTSTRAP_DRAWS", 20)


def nodule(index: int, *, p: float | None = None, **changes) -> NoduleRecord:
    """Even ones are malignant; P, score and readers agree."""
    malignant = index % 2 == 0
    p = (0.9 if malignant else 0.1) if p is None else p
    values = {
        "case_id": f"case-{index}",
        "patient_id": f"patient-{index}",
        "form": "cube",
        "in_paper_cohort": True,
        "diameter_mm": 5.0 + index,
        "reader_scores": (5, 4) if malignant else (1, 2),
        "label": int(malignant),
        "certainty": "nodule" if index % 4 < 2 else "patient",
        "malignancy": p,
        "expert_score": 1.0 + 4.0 * p,
        "dice": 0.75,
        "cam": CamFigures(nodule=0.8, background=0.1, energy=0.6, pointing=1.0, iou=0.4, deletion=0.3, insertion=0.7),
    }
    return NoduleRecord.model_validate({**values, **changes})


def fold_record(fold: int, nodules, *, run="table1/J", cases=(), seed=0, **changes) -> FoldRecord:
    record = FoldRecord(
        format=RECORD_FORMAT,
        version="0.1.0",
        code=None,
        run=run,
        schedule="short",
        seed=seed,
        fold=fold,
        folds=2,
        split_seed=0,
        configs=({"stages": [{"size": 40, "steps": 250}]},),
        provenance={},
        held_out=tuple(n.patient_id for n in nodules),
        training_seconds=1.0,
        judging_seconds=1.0,
        patch_size=40,
        nodules=tuple(nodules),
        cases=tuple(cases),
    )
    return record.model_copy(update=changes)


def save(root, *records, name="table1/J"):
    for record in records:
        path = record_path(root, find(name), schedule=record.schedule, seed=record.seed, fold=record.fold)
        write_record(path, record)


def rows_of(text: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_a_short_run_gives_way_to_the_same_folds_of_a_medium_one(tmp_path):
    nodules = list(map(nodule, range(4)))
    for seed, folds in ((0, (0, 1)), (1, (0,))):
        for fold in folds:
            save(tmp_path, fold_record(fold, nodules, seed=seed))
    save(tmp_path, *(fold_record(fold, nodules, schedule="medium") for fold in (0, 1)))
    save(tmp_path, fold_record(1, nodules, seed=1, schedule="medium"))
    found = [result.key for result in results_of(tmp_path, [find("table1/J")])["table1/J"]]
    assert found == [("medium", 0, (0, 1)), ("medium", 1, (1,)), ("short", 1, (0,))]


def test_like_is_compared_with_like(tmp_path):
    """A short run gives way to the medium one once every row has the medium one."""
    for name in ("table1/J", "table1/A"):
        for fold in (0, 1):
            save(tmp_path, fold_record(fold, [nodule(i + 4 * fold) for i in range(4)], run=name), name=name)
    for name, shown in (("table1/A", {"medium", "short", "paper"}), ("table1/J", {"medium", "paper"})):
        longer = (
            fold_record(fold, [nodule(i + 4 * fold) for i in range(4)], run=name, schedule="medium") for fold in (0, 1)
        )
        save(tmp_path, *longer, name=name)
        rows = rows_of(make_table("1", tmp_path, command="x"))
        assert {r[1].partition(":")[0] for r in rows if r[0].startswith("A: ")} == shown
        (difference,) = [r for r in rows if r[0] == "J minus A"]
        assert difference[1].startswith("short: " if "short" in shown else "medium: ")


def test_metrics_are_those_of_the_confusion_matrix():
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, 200).astype(float), rng.random(200)
    tn, fp, fn, tp = confusion_matrix(label, score >= 0.5).ravel().tolist()
    pairs = [(a, b) for a in score[label == 1] for b in score[label == 0]]
    expected = {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "precision": tp / (tp + fp),
        "precision_b": tn / (tn + fn),
        "accuracy": (tp + tn) / 200,
        "auc": sum(a > b for a, b in pairs) / len(pairs),
        "f1": 2 * tp / (2 * tp + fp + fn),
    }
    assert {name: metric(label, score) for name, metric in METRICS.items()} == pytest.approx(expected)


def test_a_constant_answer_has_an_auc_of_one_half():
    nodules = [Scored(label=i % 2, score=0.7, patient_id=str(i), fold=i % 3) for i in range(12)]
    assert pooled_auc(nodules).value == 0.5
    assert over_folds("auc", nodules).mean == 0.5
    assert over_folds("sensitivity", nodules).mean == 1.0
    assert np.isnan(over_folds("precision_b", nodules).mean), "nothing is called benign"


def test_the_interval_is_that_of_the_general_bootstrap():
    rng = np.random.default_rng(1)
    nodules = [
        Scored(label=int(rng.random() < 0.3), score=float(rng.integers(6)), patient_id=f"p{rng.integers(25)}", fold=0)
        for _ in range(60)
    ]
    columns = [[getattr(n, name) for n in nodules] for name in ("label", "score", "patient_id")]
    expected = metrics.estimate(metrics.auc, *columns)
    found = pooled_auc(nodules)
    assert [found.value, found.low, found.high, found.n] == pytest.approx(
        [expected.value, expected.low, expected.high, expected.n], abs=1e-12
    )
    assert np.isnan(pooled_auc([n for n in nodules if n.label == 1]).value)
    assert np.isnan(pooled_auc([]).low)


def test_the_deviation_over_folds_is_the_papers():
    """Table 6, 1/2345 on sure: two of 33 benign nodules right in one fold, none in four, is printed as 1.21 ± 2.42."""
    nodules = [
        Scored(label=0, score=0.1 if fold == 0 and i < 2 else 0.9, patient_id=f"{fold}-{i}", fold=fold)
        for fold in range(5)
        for i in range(33)
    ]
    figure = over_folds("specificity", nodules)
    assert (round(100 * figure.mean, 2), round(100 * figure.std, 2)) == (1.21, 2.42)


def test_a_fold_with_one_class_is_left_out_and_counted():
    nodules = [Scored(label=1, score=0.9, patient_id=str(i), fold=0) for i in range(3)]
    nodules += [Scored(label=i % 2, score=0.1 + 0.8 * (i % 2), patient_id=f"b{i}", fold=1) for i in range(4)]
    auc = over_folds("auc", nodules)
    assert (auc.mean, auc.folds, auc.undefined) == (1.0, 1, 1)


def test_table_1_has_our_figures_the_papers_and_the_yardsticks(tmp_path):
    # In fold 0 one of four is wrong, in fold 1 none: accuracy 75 and 100.
    first = fold_record(0, [nodule(0, p=0.2), *map(nodule, (1, 2, 3))])
    save(tmp_path, first, fold_record(1, list(map(nodule, range(4, 8)))))
    text = make_table("1", tmp_path, command="the command")
    assert text.startswith("# Table 1: ")
    assert "Made by `the command`" in text
    assert "schedule `short`: " in text
    rows = rows_of(text)
    everything = [r for r in rows if r[0].startswith("J: ")]
    certain, paper, all_, _, faithful = everything
    assert (certain[1], paper[1], all_[1]) == (OURS, "paper", OURS)
    assert all_[2:6] == ["75.00 ± 25.00", "100.00 ± 0.00", "100.00 ± 0.00", "83.33 ± 16.67"]
    assert all_[6:9] == ["87.50 ± 12.50", "100.00 ± 0.00", "83.33 ± 16.67"]
    assert all_[-1] == "8 (4 malignant)"
    assert certain[-1] == "4 (2 malignant)"
    assert paper[2] == "76.97 ± 4.11"
    assert faithful[2].startswith("0.700 [")
    assert ["A: C", "not run"] in [r[:2] for r in rows]
    heights = [(r[0], r[-1]) for r in rows if len(r) == 3 and r[0] != "---" and "Yardstick" not in r[0]]
    names = ("diameter alone", "readers' mean score", "a single reader's score")
    assert heights == [*zip(names, ("4", "4", "8"), strict=True), *zip(names, ("8", "8", "16"), strict=True)]
    assert "order" not in text, "the order is told once J, F, D and A are run"


def test_the_order_of_the_four_models_is_told_as_it_is(tmp_path):
    for system, wrong in (("A", 0), ("D", 1), ("F", 2), ("J", 3)):
        nodules = [nodule(i, p=0.05 * i if i < wrong else None) for i in range(8)]
        run = f"table1/{system}"
        save(tmp_path, fold_record(0, nodules[:4], run=run), fold_record(1, nodules[4:], run=run), name=run)
    text = make_table("1", tmp_path, command="x")
    assert "the paper's J > F > D > A does not hold" in text
    assert "A (100.00)" in text
    differences = [r for r in rows_of(text) if r[0].startswith("J minus ")]
    assert [r[0] for r in differences] == ["J minus A", "J minus D", "J minus F"]
    # J: malignant 0, 0.1, 0.9, 0.9 against benign 0.05, 0.1, 0.1, 0.1: 10.5 of 16 pairs in order.
    assert differences[0][3].startswith(f"{100 * (10.5 / 16 - 1):.2f} [")


def test_every_table_can_be_made_without_any_result(tmp_path):
    for number in TABLES:
        text = make_table(number, tmp_path, command="x")
        assert "not run" in text
        assert "schedule `" not in text
    with pytest.raises(TrainingDataError, match="no table '8'"):
        make_table("8", tmp_path, command="x")


def test_rows_that_share_a_run_show_the_same_figures(tmp_path):
    save(tmp_path, fold_record(0, list(map(nodule, range(4)))), fold_record(1, list(map(nodule, range(4, 8)))))
    one, four = (rows_of(make_table(number, tmp_path, command="x")) for number in ("1", "4"))
    line = next(r for r in one if r[0].startswith("J: "))
    assert next(r[1:] for r in four if r[0] == "ndl >= bkg + 0.5, ad-CSL") == line[1:]


def test_table_7_takes_sides_from_scores_and_readers_against_each_other(tmp_path):
    middle = nodule(8, reader_scores=(3, 3))
    outside = nodule(9, in_paper_cohort=False)
    record = fold_record(0, [*map(nodule, range(8)), middle, outside], run="table6/12-45/unsure")
    assert [s.label for s in scored([record], "scores", "12/45")] == [1, 0] * 4
    found = {y.title: y.auc for y in yardsticks([record], "scores", "12/45")}
    assert found["one reader against the others"].value == 1.0
    assert found["one reader against the others"].n == 16
    assert found["diameter alone"].value == pytest.approx(6 / 16)
    split = fold_record(0, [*map(nodule, range(8)), nodule(12, reader_scores=(1, 5))])
    one_reader = yardsticks([split], "scores", "12/45")[1].auc
    # The 1 stands against a 5, and the 5 against a 1: 8 malignant of 4 or 5 and a 1, 8 benign of 1 or 2 and a 5.
    right = 8 * 8 + 4 * 0.5 + 4 * 0.5
    assert (one_reader.n, one_reader.value) == (18, pytest.approx(right / 81))
    save(tmp_path, record, name="table7/C")
    text = make_table("7", tmp_path, command="x")
    assert "8 (4 malignant)" in text
    assert "Xu et al., 2020" in text
    assert "has on the others" not in text
    worse = [nodule(i, p=0.99 if i == 1 else None) for i in range(8)]
    save(tmp_path, fold_record(0, [*worse, middle, outside], run="table7/CSF+ad-CSL"), name="table7/CSF+ad-CSL")
    (difference,) = [r for r in rows_of(make_table("7", tmp_path, command="x")) if " minus " in r[0]]
    ours, other = (
        roc_auc_score([i % 2 == 0 for i in range(8)], [n.malignancy for n in nodules[:8]])
        for nodules in (worse, record.nodules)
    )
    assert difference[0] == "CSF+ad-CSL minus C"
    assert ours < other
    assert difference[2].startswith(f"{100 * (ours - other):.2f} [")


def test_the_confounders_table_says_what_is_lost(tmp_path):
    tests: tuple[CueTest, ...] = ("as trained", "independent", "reversed")

    def cued(i):
        malignant = i % 2 == 0
        return nodule(i, cued=dict(zip(tests, (float(malignant), 0.5, float(not malignant)), strict=True)))

    save(tmp_path, fold_record(0, list(map(cued, range(8))), run="confounder/A"), name="confounder/A")
    rows = rows_of(make_table("confounder", tmp_path, command="x"))
    line = next(r for r in rows if len(r) == 8 and r[0].startswith("A, "))
    assert [cell.split(" ")[0] for cell in line[2:]] == ["100.00", "100.00", "50.00", "0.00", "50.00", "100.00"]


def test_retrieval_is_the_mean_label_of_the_nearest():
    cases = [nodule(100 + i, p=i / 10) for i in range(10)]  # labels 1, 0, 1, 0, ...
    query = nodule(0, p=0.21)
    answer = retrieve([query], cases, space="machine", k=3)[0]
    assert [c.case_id for c in answer.cases] == ["case-102", "case-103", "case-101"]
    assert answer.diagnosis == pytest.approx(1 / 3)
    with pytest.raises(TrainingDataError, match="patient-100"):
        retrieve([nodule(100)], cases, space="machine")
    with pytest.raises(TrainingDataError, match="no P or no expert score"):
        retrieve([nodule(0, expert_score=None)], cases, space="expert")


def test_table_2_and_the_relabelling(tmp_path):
    cases = [nodule(100 + i) for i in range(60)]
    three = [nodule(20 + i, p=p, reader_scores=(3, 3), label=None, certainty=None) for i, p in enumerate((0.1, 0.9))]
    record = fold_record(0, [*map(nodule, range(4)), *three], cases=cases)
    counts = relabel([record])
    assert counts.benign == (0, 2, 1, 0, 0)  # readers' means of 1.5 round to 2
    assert counts.malignant == (0, 0, 1, 0, 2)
    save(tmp_path, record)
    rows = rows_of(make_table("2", tmp_path, command="x"))
    machine = next(r for r in rows if r[:2] == ["Machine (CNet)", OURS.replace("2 of", "1 of")])
    assert machine[2] == "100.00 (1 fold)"
    assert ["Machine and expert", "paper", "78.18"] in [r[:3] for r in rows]


def test_a_table_says_which_version_its_models_are_of(tmp_path):
    """And of which row where they differ; what a version is follows from the records, not from the code that reads."""
    nodules = list(map(nodule, range(4)))
    save(tmp_path, fold_record(0, nodules))
    assert "The models were trained by nodule-diag 0.1.0.\n" in make_table("1", tmp_path, command="x")
    newer = {"version": "0.9.0", "code": "0123456789abcdef", "provenance": {"stores": [{"name": "own"}]}}
    save(tmp_path, fold_record(0, nodules, run="table1/A", **newer), name="table1/A")
    told = "nodule-diag 0.9.0, code 01234567, stores own (table1/A); nodule-diag 0.1.0 (table1/J)."
    assert f"The models were trained by {told}\n" in make_table("1", tmp_path, command="x")
