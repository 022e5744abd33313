"""Rows of the catalogue end to end on tiny data: trained, judged, recorded; what is there is not made again."""

from __future__ import annotations

import numpy as np
import pytest

from nodule_diag_training.checkpoint import MODEL, load_model
from nodule_diag_training.experiments import judging, running, schedules
from nodule_diag_training.experiments.catalogue import catalogue, find
from nodule_diag_training.experiments.records import read_record
from nodule_diag_training.experiments.running import FoldRun, TrainingData, judge_fold, train_fold
from nodule_diag_training.lidc import TrainingDataError

FOLDS = 6
RUNS = sorted({row.run for row in catalogue()})
FAST = ("table1/A", "table1/J")


@pytest.fixture
def data(monkeypatch, paired_nodules, paired_voxels) -> TrainingData:
    monkeypatch.setattr(schedules, "SHORT_SIZE", 32)
    monkeypatch.setattr(schedules, "SHORT_STEPS", 2)
    monkeypatch.setattr(judging, "CURVES_PER_FOLD", 1)
    return TrainingData(paired_nodules, load=lambda _: paired_voxels)


def fold_run(tmp_path, name: str, *, fold: int = 0) -> FoldRun:
    return FoldRun(
        experiment=find(name), schedule="short", seed=0, fold=fold, folds=FOLDS, root=tmp_path / "runs",
        results=tmp_path / "results",
    )  # fmt: skip


def run(tmp_path, data, name: str):
    it = fold_run(tmp_path, name)
    train_fold(it, data)
    written = judge_fold(it, data)
    assert it.is_done()
    assert read_record(it.record) == written
    return it, written


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in RUNS])
def test_every_run_of_the_catalogue_is_trained_and_judged(name, tmp_path, data):
    it, record = run(tmp_path, data, name)
    system = it.experiment.config.modules
    assert {n.patient_id for n in record.nodules} == set(record.held_out) == data.held_out(it)
    assert len(record.nodules) == 4
    for nodule in record.nodules:
        assert 0.0 <= nodule.probability <= 1.0
        assert (nodule.malignancy is not None) == (nodule.cam is not None) == system.cnet
        assert (nodule.expert_score is not None) == system.rnet
        assert (nodule.dice is not None) == system.segnet
    assert sum(n.cam is not None and n.cam.deletion is not None for n in record.nodules) == int(system.cnet)
    assert {c.patient_id for c in record.cases}.isdisjoint(record.held_out)
    assert len(record.cases) == (20 if system.cnet and system.rnet else 0)
    assert len(record.configs) == len(it.experiment.phases)


def test_a_finished_fold_is_not_trained_again(tmp_path, data, monkeypatch):
    it, _ = run(tmp_path, data, "table1/A")
    before = it.model.read_bytes()
    monkeypatch.setattr(running, "Run", None)
    train_fold(it, data)
    assert it.model.read_bytes() == before


def test_an_older_record_is_judged_again(tmp_path, data, monkeypatch):
    it, record = run(tmp_path, data, "table1/A")
    monkeypatch.setattr(running, "RECORD_FORMAT", record.format + 1)
    assert not it.is_done()
    it.record.write_text("{}")
    assert not it.is_done()


def test_results_of_other_folds_are_not_mixed(tmp_path, data):
    it, _ = run(tmp_path, data, "table1/A")
    other = FoldRun(
        experiment=it.experiment, schedule="short", seed=0, fold=0, folds=5, root=it.root, results=it.results
    )
    with pytest.raises(TrainingDataError, match="is of 6 folds, not 5"):
        other.is_done()
    with pytest.raises(TrainingDataError, match="did not leave out"):
        judge_fold(other, data)


def test_the_judged_probability_is_the_models(tmp_path, data, paired_nodules):
    it, record = run(tmp_path, data, "table1/J")
    model, config, _ = load_model(it.folder / MODEL)
    judge = judging.Judge.of(model, config, nodules=paired_nodules, voxels=data.voxels)
    nodule = next(n for n in paired_nodules if n.case_id == record.nodules[2].case_id)
    logit = float(judge.run([judge.sample(nodule).patch]).logit)
    assert record.nodules[2].malignancy == pytest.approx(1.0 / (1.0 + np.exp(-logit)), abs=1e-5)
