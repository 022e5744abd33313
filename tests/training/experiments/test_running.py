"""Rows of the catalogue end to end on tiny data: trained, judged, recorded; what is there is not made again."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.training_data import TrainingData
from nodule_diag_training.engine.checkpoint import MODEL, load_model
from nodule_diag_training.engine.run import Run
from nodule_diag_training.experiments import judging, running, schedules
from nodule_diag_training.experiments.catalogue import catalogue, find
from nodule_diag_training.experiments.records import read_record
from nodule_diag_training.experiments.running import FoldRun, held_out_patients, judge_fold, train_fold

FOLDS = 6
RUNS = sorted({row.run for row in catalogue()})
FAST = ("table1/A",)
"""J is run by the tests below."""


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Two steps of 32-cubes, and the curves of one nodule."""
    patch.setattr(schedules, "SHORT_SIZE", 32)
    patch.setattr(schedules, "SHORT_STEPS", 2)
    patch.setattr(judging, "CURVES_PER_FOLD", 1)


@pytest.fixture
def data(monkeypatch, paired_nodules, paired_voxels) -> TrainingData:
    shorten(monkeypatch)
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
    assert {n.patient_id for n in record.nodules} == set(record.held_out) == held_out_patients(it, data.nodules)
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory, paired_nodules, paired_voxels):
    """Folder of model J's first fold, trained and judged."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        run(folder, TrainingData(paired_nodules, load=lambda _: paired_voxels), "table1/J")
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> FoldRun:
    """A copy of it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return fold_run(tmp_path, "table1/J")


def test_a_finished_fold_is_not_trained_again(copied, data, monkeypatch):
    before = copied.model.read_bytes()
    monkeypatch.setattr(running, "Run", None)
    train_fold(copied, data)
    assert copied.model.read_bytes() == before


def test_a_model_of_another_configuration_is_refused(copied, data, monkeypatch):
    monkeypatch.setattr(schedules, "SHORT_STEPS", 3)
    with pytest.raises(TrainingDataError, match="another configuration"):
        train_fold(copied, data)


def test_an_older_record_is_judged_again(copied, monkeypatch):
    assert copied.is_done()
    monkeypatch.setattr(running, "RECORD_FORMAT", read_record(copied.record).format + 1)
    assert not copied.is_done()
    copied.record.write_text("{}")
    assert not copied.is_done()


def test_results_of_other_folds_are_not_mixed(copied, data):
    other = replace(copied, folds=5)
    with pytest.raises(TrainingDataError, match="is of 6 folds, not 5"):
        other.is_done()
    with pytest.raises(TrainingDataError, match="did not leave out"):
        judge_fold(other, data)
    with pytest.raises(TrainingDataError, match="fold is 6"):
        replace(copied, fold=6)


def test_judging_again_gives_the_same_record(copied, data):
    first = read_record(copied.record)
    again = judge_fold(copied, data)
    assert again.model_copy(update={"judging_seconds": first.judging_seconds}) == first


def test_the_judged_probability_is_the_models(copied, data, paired_nodules):
    record = read_record(copied.record)
    model, config, _ = load_model(copied.model)
    judge = judging.Judge.of(model, config, nodules=paired_nodules, voxels=data.voxels)
    nodule = next(n for n in paired_nodules if n.case_id == record.nodules[2].case_id)
    logit = float(judge.run([judge.sample(nodule).patch]).logit)
    assert record.nodules[2].malignancy == pytest.approx(1.0 / (1.0 + np.exp(-logit)), abs=1e-5)


def test_a_fine_tuned_row_starts_from_the_weights_of_its_first_phase(tmp_path, data, monkeypatch):
    it = fold_run(tmp_path, "table6/12-45/fine-tuned")
    given = []

    class Recorded(Run):
        def __init__(self, *args, initial, **kwargs):
            given.append(initial)
            super().__init__(*args, initial=initial, **kwargs)

    monkeypatch.setattr(running, "Run", Recorded)
    train_fold(it, data)
    first, _, _ = load_model(it.phase_folder(0) / MODEL)
    assert given[0] is None
    assert all((given[1][name] == tensor).all() for name, tensor in first.state_dict().items())
    assert [c.learning_rate for c in (load_model(it.phase_folder(i) / MODEL)[1] for i in (0, 1))] == [
        1e-3,
        pytest.approx(1e-4),
    ]
