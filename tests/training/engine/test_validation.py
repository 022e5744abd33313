"""Patients set aside, the best checkpoint by them, and batches in parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nodule_diag_training.config import Stage, TrainingConfig
from nodule_diag_training.data.draws import Draw, PairSource
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.engine.checkpoint import MODEL, load_model
from nodule_diag_training.engine.objective import LossTerms
from nodule_diag_training.engine.run import Run
from nodule_diag_training.engine.runlog import VALIDATION_LOG, ValidationLog, read_lines
from nodule_diag_training.engine.shares import TermCounts, count_terms, weigh
from nodule_diag_training.engine.validation import Validation, criterion, set_aside
from nodule_diag_training.losses.paper import LossWeights

CONFIG = TrainingConfig(
    stages=(Stage(size=32, steps=3),), cohort="all", validation_share=0.25, validate_every=1, learning_rate=0.05,
    best_by="total", checkpoint_every=2,
)  # fmt: skip


def test_patients_set_aside_are_a_fixed_share_and_taught_nothing(tiny_nodules, tiny_voxels, tmp_path):
    aside = set_aside(tiny_nodules, share=0.25, seed=3)
    assert len(aside) == 3
    assert {n.sure and n.sure.malignant for n in tiny_nodules if n.patient_id in aside} == {None, 0, 1}
    assert aside == set_aside(tiny_nodules, share=0.25, seed=3)
    assert len({frozenset(set_aside(tiny_nodules, share=0.25, seed=seed)) for seed in range(8)}) > 1
    aside = set_aside(tiny_nodules, share=0.25, seed=CONFIG.seed)
    run = Run(tmp_path, config=CONFIG, nodules=tiny_nodules, voxels=tiny_voxels)
    drawn = {d.nodule.patient_id for step in range(3) for part in run._source.draw(step) for d in part}
    assert not drawn & aside
    many = [replace(tiny_nodules[6 + i % 2], patient_id=f"p{i}") for i in range(50)]
    assert len(set_aside(many, share=0.2, seed=0)) == 10
    with pytest.raises(TrainingDataError, match="1 patients are too few"):
        set_aside(tiny_nodules[:1], share=0.2, seed=0)


def test_the_model_is_the_best_by_validation_and_says_so(tmp_path, tiny_nodules, tiny_voxels):
    """The rate is so high that the last step is worse than an earlier one."""
    Run(tmp_path / "first", config=CONFIG, nodules=tiny_nodules, voxels=tiny_voxels).train(until=2)
    run = Run(tmp_path / "first", config=CONFIG, nodules=tiny_nodules, voxels=tiny_voxels)
    run.train()
    seen = read_lines(tmp_path / "first" / VALIDATION_LOG, ValidationLog)
    assert [line.step for line in seen] == [0, 1, 2]
    best = min(seen, key=lambda line: line.total)
    assert best.step != 2, "choose a rate at which the last step is not the best"
    model, _, provenance = load_model(tmp_path / "first" / MODEL)
    assert provenance["best"] == {"step": best.step, "by": "total", "value": best.total}
    assert set(provenance["validation_patients"]) == set_aside(tiny_nodules, share=0.25, seed=0)
    run.model.load_state_dict(model.state_dict())
    again = run._validation.log(run._validation.sums(run._measure), step=best.step)
    assert again == best


def test_validation_is_the_mean_over_nodules_with_equal_say_for_both_classes(tiny_nodules, tiny_voxels):
    config = CONFIG.model_copy(update={"best_by": "auto"})
    validation = Validation(config, nodules=tiny_nodules, voxels=tiny_voxels, lenders=tiny_nodules)
    value = {n.case_id: float(i + 1) for i, n in enumerate(tiny_nodules)}

    def measure(unsure, sure):
        mean = torch.tensor([value[d.nodule.case_id] for d in [*unsure, *sure]]).mean()
        return LossTerms(classification=mean, cam=mean, segmentation=mean, score=mean, weights=LossWeights())

    whole = validation.log(validation.sums(measure), step=0)
    parts = sum(validation.sums(measure, part=part, parts=3) for part in range(3))
    assert validation.log(parts, step=0) == whole
    sides = [[value[n.case_id] for n in tiny_nodules if n.sure and n.sure.malignant == label] for label in (0, 1)]
    assert whole.classification == pytest.approx(sum(sum(side) / len(side) for side in sides) / 2)
    unsure = [value[n.case_id] for n in tiny_nodules if n.sure is None]
    assert whole.segmentation == pytest.approx(sum(unsure) / len(unsure))


def test_what_the_best_is_the_best_by():
    assert criterion(TrainingConfig()) == "classification"
    assert criterion(TrainingConfig(best_by="total")) == "total"
    assert criterion(TrainingConfig(diagnosis_teaches=False, scenario="12/45")) == "total"


@pytest.mark.parametrize("settings", [{}, {"scores_teach_cnet": True}, {"sure_teaches_unsure": True}])
def test_parts_of_a_batch_add_up_to_it(settings, tiny_nodules, tiny_voxels, tmp_path):
    config = TrainingConfig(
        stages=(Stage(size=32, steps=1),),
        cohort="all",
        unsure_per_step=3,
        sure_per_step=2,
        ad_csl_on_all=True,
        **settings,
    )
    unsure, sure = PairSource(config, tiny_nodules, tiny_voxels).draw(0)
    run = Run(tmp_path, config=config, nodules=tiny_nodules, voxels=tiny_voxels)
    whole = count_terms(unsure, sure, config)
    together = run._measure(unsure, sure)
    parts = [(unsure[:1], sure[:1]), (unsure[1:], sure[1:])]
    assert sum((count_terms(*part, config) for part in parts), TermCounts()) == whole
    weighed = [weigh(run._measure(*part), part=count_terms(*part, config), whole=whole) for part in parts]
    for name in ("classification", "cam", "segmentation", "score", "total"):
        expected = getattr(together, name).item()
        assert sum(getattr(terms, name).item() for terms in weighed) == pytest.approx(expected, rel=1e-4), name
    assert all(isinstance(draw, Draw) for draw in unsure)


def test_accumulated_batches_are_one_step_of_them_all(monkeypatch, tmp_path, tiny_nodules, tiny_voxels):
    """Against the gradient of one batch of the same nodules."""
    config = TrainingConfig(
        stages=(Stage(size=32, steps=1),), cohort="all", accumulate=2, scores_teach_cnet=True, head_mean_share=0.1
    )
    run = Run(tmp_path / "two", config=config, nodules=tiny_nodules, voxels=tiny_voxels)
    groups = [run._source.draw(0, group=group) for group in (0, 1)]
    unsure, sure = ([draw for group in groups for draw in group[kind]] for kind in (0, 1))
    assert not np.array_equal(unsure[0].sample.patch, unsure[1].sample.patch)
    config = config.model_copy(update={"accumulate": 1})
    one = Run(tmp_path / "one", config=config, nodules=tiny_nodules, voxels=tiny_voxels)
    monkeypatch.setattr(one._source, "draw", lambda *_, **__: (unsure, sure))
    logs = [run._step(0, run._drawn(0)), one._step(0, one._drawn(0))]
    assert logs[0].total == pytest.approx(logs[1].total, rel=1e-5)
    for (name, ours), theirs in zip(run.model.named_parameters(), one.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)
