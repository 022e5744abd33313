"""P against diagnoses: Platt's two numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodule_diag.results import Calibration

LOGITS = st.floats(-1e4, 1e4)


@given(logit=LOGITS, slope=st.floats(1e-3, 1e3), intercept=st.floats(-1e3, 1e3))
def test_it_is_the_sigmoid_and_never_leaves_the_range(logit: float, slope: float, intercept: float) -> None:
    p = Calibration(slope=slope, intercept=intercept).probability(logit)
    with np.errstate(over="ignore"):
        assert p == pytest.approx(1.0 / (1.0 + np.exp(-(slope * logit + intercept))), abs=1e-12)
    assert 0.0 <= p <= 1.0


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=20), st.floats(0.01, 2.0), st.floats(-3, 3))
def test_it_keeps_the_order(logits: list[float], slope: float, intercept: float) -> None:
    made = Calibration(slope=slope, intercept=intercept)
    found = [made.probability(logit) for logit in sorted(logits)]
    assert found == sorted(found)


def test_the_spread_is_that_of_the_calibrated_views() -> None:
    made = Calibration(slope=0.5, intercept=-0.25)
    logits = np.array([-2.0, 0.0, 3.0, 4.0])
    assert made.spread(logits.tolist()) == pytest.approx(np.std(1 / (1 + np.exp(-(0.5 * logits - 0.25)))))
