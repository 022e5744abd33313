"""Bayes' rule and the balanced share, against their own definitions."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodule_diag.errors import UsageError
from nodule_diag.results.diagnosis import SimilarCase
from nodule_diag.results.identity import CaseBaseIdentity
from nodule_diag.results.prior import at_prevalence, balanced_share, require_prevalence

PROBABILITY = st.floats(0.0, 1.0)
PREVALENCE = st.floats(1e-6, 1.0 - 1e-6)


def cases(malignant: int, benign: int) -> list[SimilarCase]:
    labels = [1] * malignant + [0] * benign
    return [SimilarCase("c", "p", 0.1, label, "biopsy", "nodule", 0.7, 3.8, (), None) for label in labels]


def known(malignant: int, benign: int) -> CaseBaseIdentity:
    return CaseBaseIdentity("made up", "0" * 64, malignant + benign, malignant)


@given(PROBABILITY)
def test_one_half_and_none_change_nothing(probability: float) -> None:
    assert at_prevalence(probability, 0.5) == pytest.approx(probability, abs=1e-12)
    assert at_prevalence(probability, None) == probability


@given(PROBABILITY, PREVALENCE)
def test_bayes_rule_in_fractions(probability: float, prevalence: float) -> None:
    p, prior = Fraction(probability), Fraction(prevalence)
    # P is for a prior of one half: the likelihoods of what was seen are P and 1 - P, up to a common factor.
    wanted = p * prior / (p * prior + (1 - p) * (1 - prior))
    assert at_prevalence(probability, prevalence) == pytest.approx(float(wanted), rel=1e-9, abs=1e-15)


@given(PROBABILITY, PROBABILITY, PREVALENCE)
def test_order_is_kept(one: float, other: float, prevalence: float) -> None:
    low, high = sorted((one, other))
    assert 0.0 <= at_prevalence(low, prevalence) <= at_prevalence(high, prevalence) + 1e-12 <= 1.0 + 1e-12


@given(st.floats(0.01, 0.99), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_moves_compose(probability: float, first: float, second: float) -> None:
    """Two moves multiply the odds by both; a move and its mirror image lead back."""
    there = at_prevalence(at_prevalence(probability, first), second)
    odds = probability / (1 - probability) * first / (1 - first) * second / (1 - second)
    assert there == pytest.approx(odds / (1 + odds), abs=1e-9)
    assert at_prevalence(at_prevalence(probability, first), 1 - first) == pytest.approx(probability, abs=1e-9)


@given(PREVALENCE)
def test_a_nodule_that_says_nothing_has_the_prevalence(prevalence: float) -> None:
    assert at_prevalence(0.5, prevalence) == pytest.approx(prevalence, rel=1e-9)


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, 1.5, 5.0, float("nan"), float("inf"), True])
def test_what_is_no_prevalence(prevalence: float) -> None:
    with pytest.raises(UsageError, match=f"prevalence is {prevalence}") as caught:
        require_prevalence(prevalence)
    assert "0.05" in caught.value.hint


@pytest.mark.parametrize("prevalence", ["0.05", "", [0.05], np.array([0.05, 0.1]), 0.05j, Decimal("0.05"), object()])
def test_what_is_no_number(prevalence: float) -> None:
    with pytest.raises(UsageError, match="must be a number"):
        require_prevalence(prevalence)


@pytest.mark.parametrize("prevalence", [0.25, np.float64(0.25), np.float32(0.25), Fraction(1, 4)])
def test_every_kind_of_number_is_taken_as_pythons_own(prevalence: float) -> None:
    assert type(require_prevalence(prevalence)) is float
    assert require_prevalence(prevalence) == 0.25
    assert require_prevalence(None) is None


@given(m=st.integers(0, 30), b=st.integers(0, 30), more=st.integers(0, 100))
def test_balanced_is_the_plain_share_in_a_balanced_case_base(m: int, b: int, more: int) -> None:
    if m + b:
        of = known(30 + more, 30 + more)
        assert balanced_share(cases(m, b), of=of) == pytest.approx(m / (m + b))


@given(m=st.integers(0, 20), b=st.integers(0, 20), spare=st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_balanced_against_the_formula_and_repetition(m: int, b: int, spare: tuple[int, int]) -> None:
    """Every benign case three times, in the case base and so among the retrieved, changes nothing."""
    if not m + b:
        return
    M, B = m + spare[0], b + spare[1]
    share = balanced_share(cases(m, b), of=known(M, B))
    assert share == pytest.approx(float(Fraction(m, M) / (Fraction(m, M) + Fraction(b, B))))
    assert balanced_share(cases(m, 3 * b), of=known(M, 3 * B)) == pytest.approx(share)
    mirrored = balanced_share(cases(b, m), of=known(B, M))
    assert mirrored == pytest.approx(1 - share)


def test_retrieving_at_the_base_rate_is_neutral() -> None:
    assert balanced_share(cases(16, 4), of=known(80, 20)) == pytest.approx(0.5)


def test_one_kind_of_case_cannot_be_balanced() -> None:
    assert balanced_share(cases(5, 0), of=known(9, 0)) is None
    assert balanced_share(cases(0, 5), of=known(0, 9)) is None
