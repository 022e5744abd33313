"""Which side and which score a nodule teaches, in every scenario of Table 6."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import get_args

import pytest

from nodule_diag_training.config import Scenario, TrainingConfig
from nodule_diag_training.data.labels import cnet_label, rounded_score, scenario_label, score_target
from nodule_diag_training.data.lidc.diagnosed import load_nodules

SIDES = {
    "1/2345": (0, 1, 1, 1, 1),
    "12/345": (0, 0, 1, 1, 1),
    "12/45": (0, 0, None, 1, 1),
    "123/45": (0, 0, 0, 1, 1),
    "1234/5": (0, 0, 0, 0, 1),
}
"""Table 6, for the scores 1 to 5."""


@pytest.mark.parametrize("scenario", get_args(Scenario))
def test_scenarios_are_those_of_table_6(scenario):
    assert tuple(scenario_label(scenario, float(score)) for score in range(1, 6)) == SIDES[scenario]


@pytest.mark.parametrize(
    ("readers", "score"),
    [((1, 2, 1), 1), ((1, 2), 2), ((2, 3, 2, 3), 3), ((3, 4, 3, 3), 3), ((4, 5, 4, 5), 5), ((5, 5, 5), 5)],
)
def test_halves_are_rounded_up(readers, score):
    assert rounded_score(fmean(readers)) == score


@pytest.mark.real_data
def test_the_rounded_scores_of_the_cohort_are_those_of_its_table(data_root):
    cohort = [n for n in load_nodules(data_root) if n.in_paper_cohort and not n.is_cube]
    counts = [sum(rounded_score(n.mean_score) == score for n in cohort) for score in range(1, 6)]
    assert counts == [66, 73, 241, 91, 50]


def test_a_scenario_decides_only_where_no_diagnosis_does(tiny_nodules):
    nodule = replace(tiny_nodules[0], reader_scores=(5, 5, 4))
    assert nodule.sure.malignant == 0
    mixed = TrainingConfig(system="A", scenario="12/45")
    unsure = TrainingConfig(system="A", scenario="12/45", diagnosis_teaches=False)
    assert cnet_label(nodule, drawn_as_sure=False, config=mixed) == 0.0
    assert cnet_label(nodule, drawn_as_sure=False, config=unsure) == 1.0
    undiagnosed = replace(nodule, sure=None, reader_scores=(3, 3, 3))
    assert cnet_label(undiagnosed, drawn_as_sure=False, config=mixed) is None
    assert cnet_label(replace(undiagnosed, reader_scores=(1, 2, 1)), drawn_as_sure=False, config=mixed) == 0.0


def test_rnet_learns_a_sure_nodule_where_it_is_told_to(tiny_nodules):
    nodule = replace(tiny_nodules[1], reader_scores=(2, 2, 2))
    assert nodule.sure.malignant == 1

    def target(*, as_sure: bool, **settings: bool) -> float | None:
        return score_target(nodule, drawn_as_sure=as_sure, config=TrainingConfig(**settings))

    assert target(as_sure=False) == 2.0
    assert target(as_sure=True) is None
    assert target(as_sure=True, sure_teaches_unsure=True) == 2.0
    assert target(as_sure=True, diagnosis_as_score=True) == 5.0
    assert target(as_sure=False, diagnosis_as_score=True) == 2.0
