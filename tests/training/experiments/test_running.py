"""Rows of the catalogue end to end on tiny data: trained, judged, recorded; what is there is not made again."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.training_data import TrainingData
from nodule_diag_training.engine.checkpoint import MODEL, load_model
from nodule_diag_training.engine.run import PROVENANCE, Run
from nodule_diag_training.experiments import commands, judging, records, running, schedules
from nodule_diag_training.experiments.catalogue import catalogue, find
from nodule_diag_training.experiments.commands import waiting
from nodule_diag_training.experiments.records import read_record, write_record
from nodule_diag_training.experiments.running import (
    FoldRun,
    held_out_patients,
    judge_fold,
    train_fold,
    training_nodules,
)
from nodule_diag_training.experiments.tested import yardsticks

FOLDS = 6
RUNS = sorted({row.run for row in catalogue()})
FAST = ("table1/A",)
"""J is run by the tests below."""


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Two steps of 32-cubes, and the curves of one nodule."""
    patch.setitem(schedules.REDUCED, "short", schedules.Reduced(size=32, steps=2))
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
    assert it.is_done(data.nodules)
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
    monkeypatch.setitem(schedules.REDUCED, "short", schedules.Reduced(size=32, steps=3))
    with pytest.raises(TrainingDataError, match="another configuration"):
        train_fold(copied, data)


def test_another_precision_is_another_run(copied, data):
    lowered = replace(copied, precision="bf16")
    assert {config.precision for config in lowered.configs(data.nodules)} == {"bf16"}
    assert copied.is_done(data.nodules)
    assert not lowered.is_done(data.nodules)
    assert replace(copied, precision="fp32").is_done(data.nodules), "the schedule's own"


def test_an_older_record_is_judged_again(copied, data, monkeypatch):
    assert copied.is_done(data.nodules)
    monkeypatch.setattr(records, "RECORD_FORMAT", read_record(copied.record).format + 1)
    assert not copied.is_done(data.nodules)
    copied.record.write_text("{}")
    assert not copied.is_done(data.nodules)


def test_a_record_is_of_a_configuration_a_code_and_nodules(copied, data, monkeypatch):
    record = read_record(copied.record)
    # What is new in a configuration has a default, and an older record does not say it.
    config = {name: value for name, value in record.configs[0].items() if name != "cue_hu"}
    write_record(copied.record, record.model_copy(update={"configs": (config,)}))
    assert copied.is_done(data.nodules)
    write_record(copied.record, record.model_copy(update={"configs": ({**config, "gone": 1},)}))
    assert not copied.is_done(data.nodules)
    write_record(copied.record, record)
    with monkeypatch.context() as patch:
        patch.setitem(schedules.REDUCED, "short", schedules.Reduced(size=32, steps=3))
        assert not copied.is_done(data.nodules)
    with monkeypatch.context() as patch:
        patch.setattr(running, "code_digest", lambda: "other")
        assert not copied.is_done(data.nodules)
    patients = {n.patient_id for n in training_nodules(copied, data.nodules)}
    changed = [replace(n, diameter_mm=n.diameter_mm + (n.patient_id in patients)) for n in data.nodules]
    assert not copied.is_done(changed)
    moved = [replace(n, image=n.image.with_name("elsewhere")) for n in data.nodules]
    assert copied.is_done(moved)
    write_record(copied.record, record.model_copy(update={"code": None}))
    assert not copied.is_done(data.nodules), "a result that does not say its code is of another one"


def test_results_of_other_folds_are_not_mixed(copied, data):
    other = replace(copied, folds=5)
    with pytest.raises(TrainingDataError, match="is of 6 folds, not 5"):
        other.is_done(data.nodules)
    with pytest.raises(TrainingDataError, match="did not leave out"):
        judge_fold(other, data)
    with pytest.raises(TrainingDataError, match="fold is 6"):
        replace(copied, fold=6)


def test_a_model_of_other_nodules_is_refused(copied, data):
    changed = [replace(n, reader_scores=(5, 5)) for n in data.nodules]
    with pytest.raises(TrainingDataError, match="learned from other nodules"):
        train_fold(copied, replace(data, nodules=changed))


def test_what_is_done_is_told_and_what_is_in_the_way_renamed(copied, data, capsys, monkeypatch):
    model = copied.model.read_bytes()
    assert waiting([copied], data, again=False) == []
    assert "is there already (--again trains it anew)" in capsys.readouterr().out
    # Begun by this code, judged or not, it goes on where it is.
    copied.record.unlink()
    assert waiting([copied], data, again=False) == [copied]
    assert copied.model.exists()
    for number in (1, 2):
        assert waiting([copied], data, again=True) == [copied]
        aside = copied.folder.with_name(f"fold-0.old-{number}")
        assert f"the earlier run is now {aside}" in capsys.readouterr().out
        assert (aside / MODEL).read_bytes() == model
        assert not copied.folder.exists()
        assert waiting([copied], data, again=True) == [copied], "nothing is in the way"
        shutil.copytree(aside, copied.folder)
    with monkeypatch.context() as patch:
        patch.setattr(commands, "code_digest", lambda: "other")
        assert waiting([copied], data, again=False) == [copied]
    assert copied.folder.with_name("fold-0.old-3").exists()
    shutil.copytree(copied.folder.with_name("fold-0.old-3"), copied.folder)
    (copied.folder / PROVENANCE).unlink()
    assert waiting([copied], data, again=False) == [copied], "a model that says nothing of its code"
    assert copied.folder.with_name("fold-0.old-4").exists()


def test_a_nodule_without_outline_and_scores_is_judged_by_what_is_known(copied, data, monkeypatch):
    """As a store of diagnosed nodules has them; the other nodules' figures stay as they are."""
    before = read_record(copied.record)
    case = next(n.case_id for n in before.nodules if n.label is not None)
    bare = [replace(n, outlined=False, reader_scores=()) if n.case_id == case else n for n in data.nodules]
    again = judge_fold(copied, replace(data, nodules=bare))
    for old, new in zip(before.nodules, again.nodules, strict=True):
        if new.case_id == case:
            assert (new.dice, new.cam, new.reader_scores) == (None, None, ())
            assert (new.malignancy, new.expert_score) == (old.malignancy, old.expert_score)
            assert np.isnan(new.mean_score)
        else:
            assert (new.malignancy, new.dice) == (old.malignancy, old.dice)
    assert read_record(copied.record) == again
    found = {y.title: y.auc for y in yardsticks([again], "all", None)}
    diagnosed = sum(n.label is not None for n in again.nodules)
    assert found["diameter alone"].n == diagnosed
    assert found["readers' mean score"].n == diagnosed - 1


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
