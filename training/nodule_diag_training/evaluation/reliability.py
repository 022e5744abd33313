"""The reliability curve: the share of malignant nodules at each level of P."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .calibration import Diagnosed, Float, balanced, cross_fitted, equal_bins, samples, sigmoid
from .metrics import BOOTSTRAP_DRAWS, CONFIDENCE, EMPTY
from .rows import Row, Section

BEFORE, AFTER = "before calibration", "after"
MEAN_P, SHARE = "mean P", "malignant"
ORDER = ("lowest", "second", "third", "fourth", "highest")
"""Names of the bins."""
NOTE = (
    "Benign and malignant nodules have equal weight, as if half of all nodules were malignant. Each fifth holds a fifth"
    " of this weight. After calibration, each patient's P comes from a fit without that patient. Intervals are over"
    " resampled patients, with the same fits and bins."
)


def reliability_section(nodules: Diagnosed, *, draws: int = BOOTSTRAP_DRAWS) -> Section:
    """Mean P and the share of malignant nodules in fifths of P, uncalibrated and calibrated out of fold."""
    every = np.ones((1, len(nodules.labels)))
    weights = balanced(every[0], nodules.labels)
    drawn = np.concatenate([balanced(counts, nodules.labels) for counts in samples(nodules, draws)])
    rows = []
    for when, p in ((BEFORE, sigmoid(nodules.logits)), (AFTER, cross_fitted(nodules, every)[0])):
        bins = equal_bins(p, weights)
        for number, name in enumerate(ORDER):
            inside = bins == number
            count = int(inside.sum())
            shares = _share(drawn[:, inside], nodules.labels[inside])
            low, high = _interval(shares)
            mean = float(np.average(p[inside], weights=weights[inside])) if count else EMPTY
            share = _share(weights[None, inside], nodules.labels[inside])[0]
            group = f"{name} fifth"
            rows += [
                Row(metric=f"{MEAN_P}, {when}", value=mean, low=EMPTY, high=EMPTY, n=count, group=group),
                Row(metric=f"{SHARE}, {when}", value=float(share), low=low, high=high, n=count, group=group),
            ]
    return Section(title="Reliability of P on the diagnosed nodules", rows=tuple(rows), note=NOTE)


def _share(weights: Float, labels: Float) -> Float:
    """Weighted share of malignant nodules, by row; NaN where a sample has no nodule."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((weights @ labels) / weights.sum(axis=1))


def _interval(shares: NDArray[np.float64]) -> tuple[float, float]:
    there = shares[np.isfinite(shares)]
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(there, [tail, 1.0 - tail]) if len(there) else (EMPTY, EMPTY)
    return float(low), float(high)
