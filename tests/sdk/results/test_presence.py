"""Presence: what SegNet sees round the click, as a probability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nodule_diag.results import PresenceCalibration, presence_evidence

AXIS_MM = (np.arange(16) - 7.5) * 2.0
CALIBRATION = PresenceCalibration(scale=1.5, shift=4.0, warn_below=0.3)


def ball(diameter_mm: float, *, offset_mm: float = 0.0) -> np.ndarray:
    distance = np.sqrt((AXIS_MM[:, None, None] - offset_mm) ** 2 + AXIS_MM[:, None] ** 2 + AXIS_MM**2)
    return (distance <= diameter_mm / 2).astype(np.float32)


def test_the_evidence_is_the_log_odds_of_the_weighted_share():
    z, y, x = np.meshgrid(AXIS_MM, AXIS_MM, AXIS_MM, indexing="ij")
    weights = np.exp(-(z**2 + y**2 + x**2) / 32.0)
    share = float((weights * ball(8.0)).sum() / weights.sum())
    assert presence_evidence(ball(8.0)) == pytest.approx(np.log(share / (1 - share)), rel=1e-9)


def test_a_nodule_at_the_centre_is_surer_than_a_small_one_a_distant_one_and_none():
    found = [presence_evidence(m) for m in (ball(20), ball(8), ball(4), ball(8, offset_mm=12), np.zeros((16, 16, 16)))]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found)


@given(arrays(np.float32, (16, 16, 16), elements=st.floats(0, 1, width=32)), st.permutations([0, 1, 2]))
def test_it_does_not_turn_with_the_cube_and_stays_a_probability(map_, order):
    assert presence_evidence(np.flip(map_.transpose(order), 0)) == pytest.approx(presence_evidence(map_), abs=1e-9)
    assert 0.0 <= CALIBRATION.presence(map_) <= 1.0


def test_presence_is_platts_sigmoid_of_the_evidence():
    evidence = presence_evidence(ball(6.0))
    assert CALIBRATION.presence(ball(6.0)) == pytest.approx(1 / (1 + np.exp(-(1.5 * evidence + 4.0))))
    steep = PresenceCalibration(scale=1e6, shift=-1e6, warn_below=0.3)  # a manifest may hold any numbers
    assert (steep.of_evidence(-13.0), steep.of_evidence(1.0), steep.of_evidence(13.0)) == (0.0, 0.5, 1.0)
    assert CALIBRATION.presence(np.ones((16, 16, 16))) > 0.99
    assert CALIBRATION.presence(np.zeros((16, 16, 16))) < 0.01
