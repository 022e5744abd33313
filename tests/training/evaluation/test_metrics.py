"""Metrics against literal counting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodule_diag_training.evaluation.metrics import auc, dice, estimate, mean_absolute_error, mean_value, spearman


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(pairs):
    label = np.array([float(p) for p, _ in pairs])
    score = np.array([float(s) for _, s in pairs])
    if len(set(label)) < 2:
        assert np.isnan(auc(label, score))
        return
    contests = itertools.product(score[label == 1], score[label == 0])
    assert auc(label, score) == pytest.approx(np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in contests]))


def test_dice_by_hand():
    one, two = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    assert dice(one, two) == 1.0
    one[0, 0, :3] = True
    two[0, 0, 1:] = True
    assert dice(one, two) == pytest.approx(2 * 2 / 6)


def test_spearman_and_mae_by_hand():
    truth, value = np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0, 40.0, 30.0])
    assert spearman(truth, value) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert mean_absolute_error(truth, truth + 0.5) == pytest.approx(0.5)
    assert np.isnan(spearman(truth, np.ones(4)))


def test_the_interval_is_over_patients_not_nodules():
    # Ten nodules of one patient say no more than one nodule does.
    few = estimate(mean_value, [0.0] * 20, [0.0] * 10 + [1.0] * 10, ["a"] * 10 + ["b"] * 10)
    many = estimate(mean_value, [0.0] * 20, [0.0] * 10 + [1.0] * 10, [str(i) for i in range(20)])
    assert (few.low, few.high) == (0.0, 1.0)
    assert 0.2 < many.low < many.high < 0.8
    assert few.value == many.value == 0.5


def test_an_interval_of_nothing_is_undefined_not_a_crash():
    result = estimate(mean_value, [], [], [])
    assert result.n == 0
    assert np.isnan([result.value, result.low, result.high]).all()
