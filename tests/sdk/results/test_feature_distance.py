"""The distance from what was trained on: against the definition, and through its bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodule_diag.results import FeatureDistance

SIZE, COMPONENTS = 12, 3


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.normal(size=(200, SIZE)) * np.linspace(3.0, 0.2, SIZE) + rng.normal(size=SIZE)


@pytest.fixture(scope="module")
def fitted(rows: np.ndarray) -> FeatureDistance:
    return FeatureDistance.fit(rows, components=COMPONENTS)


def by_covariance(rows: np.ndarray, features: np.ndarray) -> float:
    """Mahalanobis' distance with the covariance of probabilistic principal component analysis, inverted whole."""
    values, vectors = np.linalg.eigh(np.cov(rows, rowvar=False))
    rest = values[:-COMPONENTS].mean()
    values[:-COMPONENTS] = rest
    away = features - rows.mean(axis=0)
    return float(np.sqrt(away @ np.linalg.inv(vectors @ np.diag(values) @ vectors.T) @ away))


def test_it_is_mahalanobis_distance_where_all_other_directions_vary_alike(
    rows: np.ndarray, fitted: FeatureDistance
) -> None:
    for features in (rows[0], rows.mean(axis=0), 5.0 * rows[1], np.zeros(SIZE), np.full(SIZE, 30.0)):
        assert fitted.raw(features) == pytest.approx(by_covariance(rows, features), rel=1e-6, abs=1e-6)
    assert fitted.raw(rows.mean(axis=0)) == pytest.approx(0.0, abs=1e-6)


def test_its_square_is_the_number_of_features_in_the_mean(rows: np.ndarray, fitted: FeatureDistance) -> None:
    squares = [fitted.raw(row) ** 2 for row in rows]
    assert np.mean(squares) == pytest.approx(SIZE * (len(rows) - 1) / len(rows), rel=1e-6)


@given(away=st.floats(0.5, 1e6), direction=st.integers(0, SIZE - 1))
def test_further_out_is_further_away(rows: np.ndarray, fitted: FeatureDistance, away: float, direction: int) -> None:
    step = np.zeros(SIZE)
    step[direction] = away
    assert fitted.raw(rows.mean(axis=0) + 2.0 * step) > fitted.raw(rows.mean(axis=0) + step) > 0.0


def test_the_bytes_say_the_same_in_single_precision(rows: np.ndarray, fitted: FeatureDistance) -> None:
    data = fitted.to_bytes()
    assert len(data) == 4 * (SIZE + COMPONENTS + COMPONENTS * SIZE)
    numbers = {"components": COMPONENTS, "rest_variance": fitted.rest_variance}
    again = FeatureDistance.from_bytes(data, size=SIZE, **numbers, warn_above=2.0)
    for row in rows[:5]:
        assert again.raw(row) == pytest.approx(fitted.raw(row), rel=1e-5)
        assert again.of(row) == pytest.approx(fitted.raw(row) / 2.0, rel=1e-5)


def test_bytes_that_cannot_be_right_are_refused(fitted: FeatureDistance) -> None:
    numbers = {"size": SIZE, "components": COMPONENTS, "rest_variance": 1.0, "warn_above": 1.0}
    data = np.frombuffer(fitted.to_bytes(), "<f4")
    with pytest.raises(ValueError, match="take 204"):
        FeatureDistance.from_bytes(data[:-1].tobytes(), **numbers)
    for position, value in ((0, np.nan), (SIZE, 0.0), (SIZE, -1.0), (-1, np.inf)):
        wrong = data.copy()
        wrong[position] = value
        with pytest.raises(ValueError, match="variance above 0"):
            FeatureDistance.from_bytes(wrong.tobytes(), **numbers)
