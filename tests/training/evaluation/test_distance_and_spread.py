"""How far is too far, and does the spread tell errors: the rules and the foreign patches, on made-up answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nodule_diag.preprocessing import LUNG_WINDOW_HU
from nodule_diag.results import FeatureDistance
from nodule_diag_training.data import TrainingDataError
from nodule_diag_training.evaluation import metrics, turned_views
from nodule_diag_training.evaluation.distance_command import Seen, _Run, distance_section, some_of, threshold
from nodule_diag_training.evaluation.foreign import MADE_UP, MAKERS, made_up
from nodule_diag_training.evaluation.turned_views import Turned, errors_double_above, spread_section


@pytest.fixture(autouse=True)
def few_draws(monkeypatch) -> None:
    monkeypatch.setattr(metrics, "BOOTSTRAP_DRAWS", 20)
    monkeypatch.setattr(turned_views, "BOOTSTRAP_DRAWS", 200)


def seen(kind: str, *distances: float) -> list[Seen]:
    return [
        Seen(case_id=f"{kind}{i}", patient_id=f"{kind}{i // 2}", kind=kind, fold=0, distance=value)
        for i, value in enumerate(distances)
    ]


def test_the_threshold_spares_99_of_100_nodules_and_the_section_counts_the_others():
    nodules = seen("nodule", *np.linspace(10.0, 20.0, 100))
    limit = threshold([one.distance for one in nodules])
    rows = distance_section([*nodules, *seen("noise", 30.0, 40.0), *seen("lung", 12.0, 25.0)], limit).rows
    found = {(row.metric, row.n): row.value for row in rows}
    assert found["Warned of: nodule", 100] <= 0.01
    assert found["Warned of: noise", 2] == 1.0
    assert found["Warned of: lung", 2] == 0.5
    assert found["  told from nodules, AUC", 102] == pytest.approx(1.0) or len(rows) == 5


def test_some_nodules_are_the_same_in_every_run_and_whole_ones_first(tiny_nodules):
    cubes = sum(nodule.is_cube for nodule in tiny_nodules)
    chosen = some_of(tiny_nodules, cubes + 1)
    assert [nodule.is_cube for nodule in chosen] == [True] * cubes + [False]
    assert chosen == some_of(list(reversed(tiny_nodules)), cubes + 1)


def test_as_many_nodules_as_leave_a_variance_for_the_rest(tiny_nodules, monkeypatch):
    run = object.__new__(_Run)
    run.held_out = frozenset()
    monkeypatch.setattr(_Run, "_nodules", lambda _: tiny_nodules[:4])
    monkeypatch.setattr(_Run, "_features", lambda _, taught: np.random.default_rng(0).normal(size=(len(taught), 16)))
    assert run.fit(4, 2).rest_variance > 0.01
    with pytest.raises(TrainingDataError, match="4 nodules of training patients are too few for 3"):
        run.fit(4, 3)


def test_foreign_patches_are_what_they_are_called_and_always_the_same():
    patches = list(made_up())
    assert [name for name, _ in patches] == [name for name in MAKERS for _ in range(MADE_UP)]
    for (_, patch), (_, again) in zip(patches, made_up(), strict=True):
        assert (patch.shape, patch.dtype) == ((2, 64, 64, 64), np.float32)
        assert 0.0 <= patch.min() <= patch.max() <= 1.0
        np.testing.assert_array_equal(patch, again)
    low, high = LUNG_WINDOW_HU
    by_name = {name: patch[0] * (high - low) + low for name, patch in patches}
    assert np.ptp(by_name["one HU everywhere"]) == 0.0
    assert by_name["noise"].std() > 300.0
    gas = (by_name["bowel-like"] < -700).mean()
    assert 0.05 < gas < 0.5, "loops hold gas, and more than that"
    assert (by_name["bone-like"] >= high - 1).mean() > 0.05


def test_such_patches_are_far_from_others_in_any_features_that_show_them():
    """Features that are means of blocks: noise in lung is near itself, bone and constants are not."""
    rng = np.random.default_rng(0)

    def features(patch: np.ndarray) -> np.ndarray:
        return np.asarray(patch[0].reshape(4, 16, 4, 16, 4, 16).mean(axis=(1, 3, 5)).ravel())

    lung = [np.clip(rng.normal(0.15, 0.05, (2, 64, 64, 64)), 0, 1) for _ in range(80)]
    known = FeatureDistance.fit(np.stack([features(patch) for patch in lung[:60]]), components=4)
    limit = threshold([known.raw(features(patch)) for patch in lung[60:]])
    assert all(known.raw(features(patch)) > limit for name, patch in made_up() if name != "one HU everywhere")


def turned(count: int, error_of, *, seed: int = 0) -> list[Turned]:
    rng = np.random.default_rng(seed)
    spreads = rng.uniform(0.0, 0.3, count)
    return [
        Turned(
            case_id=str(i),
            patient_id=f"p{i // 2}",
            truth=0,
            diagnosed=i % 3 == 0,
            malignancy=float(error_of(value)),
            spread=float(value),
            score_error=float(value) if i % 2 else float("nan"),
        )
        for i, value in enumerate(spreads)
    ]


def test_errors_that_double_above_a_spread_are_found_and_others_are_not():
    doubled = turned(200, lambda spread: 0.6 if spread > 0.2 else 0.2)
    limit, tried = errors_double_above(doubled)
    assert limit is not None
    assert 0.13 < limit < 0.25
    assert len(tried) == 5
    assert max(row.value for row in tried) == pytest.approx(3.0, abs=0.5)
    assert all(row.low <= row.value <= row.high for row in tried)
    alike = turned(200, lambda _: 0.3)
    assert errors_double_above(alike)[0] is None
    errors = iter([0.1] * 7 + [0.9])
    found, tried = errors_double_above(turned(8, lambda _: next(errors)))
    assert max(row.value for row in tried) >= 2.0, "one nodule of one patient does it"
    assert found is None


def test_one_patient_proves_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resamples with it all say the same, and those without it say nothing."""
    monkeypatch.setattr(turned_views, "BOOTSTRAP_DRAWS", 200)
    few = [replace(one, spread=one.spread / 3, malignancy=0.2) for one in turned(40, lambda _: 0.2)]
    others = [
        replace(one, patient_id=f"q{at}", spread=0.2 + 0.01 * at, malignancy=0.9) for at, one in enumerate(few[:8])
    ]
    assert errors_double_above(few + others)[0] is not None
    found, tried = errors_double_above(few + [replace(one, patient_id="alone") for one in others])
    assert tried[-1].value >= tried[-1].low > 2.0, "and it is of one patient alone"
    assert found is None


def test_where_all_spread_alike_there_is_no_limit() -> None:
    assert errors_double_above([replace(one, spread=0.1) for one in turned(40, lambda _: 0.2)]) == (None, [])


def test_the_section_says_how_spread_and_errors_go_together():
    nodules = turned(60, lambda spread: spread)
    rows = {row.metric.strip(): row for row in spread_section(nodules, [], views=8).rows}
    assert rows["Spread against |P - truth|: Spearman"].value == pytest.approx(1.0)
    assert rows["diagnosed nodules alone"].n == 20
    assert rows["Spread against the error of the expert score: Spearman"].n == 30
