"""Does the spread of P over turned views show where P is wrong? Measured on nodules that the network had not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .metrics import BOOTSTRAP_DRAWS, BOOTSTRAP_SEED, CONFIDENCE, Array, auc, estimate, mean_value, spearman
from .rows import Row, Section

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the nodules that lie below each spread that is tried as a limit."""
DOUBLE = 2.0
FEWEST_PATIENTS = 5
"""Fewest patients above a limit. One patient is the same in every resample, which makes its interval too narrow."""


@dataclass(frozen=True, kw_only=True)
class Turned:
    """A nodule whose truth is known, and a network's answers on turned views of it.

    Attributes:
        case_id: Id of the nodule.
        patient_id: The nodule's patient.
        truth: 1 malignant, 0 benign: by diagnosis, else by the side of the readers' mean.
        diagnosed: Whether the truth is a diagnosis.
        malignancy: P of the mean logit.
        spread: Standard deviation of P over the views.
        score_error: Absolute error of the expert score; NaN without readers.
    """

    case_id: str
    patient_id: str
    truth: int
    diagnosed: bool
    malignancy: float
    spread: float
    score_error: float

    @property
    def error(self) -> float:
        """|P - truth|."""
        return abs(self.malignancy - self.truth)


def errors_double_above(turned: Sequence[Turned]) -> tuple[float | None, list[Row]]:
    """The smallest tried spread above which the mean error is twice that below, beyond chance; None if there is none.

    Returns:
        The spread, and a row for each one tried: the ratio with its interval over patients.
    """
    rows, found = [], None
    for share in SHARES:
        limit = float(np.quantile([one.spread for one in turned], share))
        above = [one.patient_id for one in turned if one.spread > limit]
        if not above:  # several nodules have the largest spread
            continue
        ratio, low, high = _ratio(turned, limit)
        metric = f"Error where the spread exceeds {limit:.3f}, by that below"
        rows.append(Row(metric=metric, value=ratio, low=low, high=high, n=len(above)))
        if found is None and ratio >= DOUBLE and low > 1.0 and len(set(above)) >= FEWEST_PATIENTS:
            found = limit
    return found, rows


def _ratio(turned: Sequence[Turned], limit: float) -> tuple[float, float, float]:
    """The mean error above divided by the mean error below, with its interval over resampled patients."""
    errors, above = np.array([one.error for one in turned]), np.array([one.spread > limit for one in turned])
    groups = np.unique([one.patient_id for one in turned], return_inverse=True)[1]
    patients = groups.max() + 1
    counts = np.stack([np.bincount(groups, part, minlength=patients) for part in (above, ~above)])
    sums = np.stack([np.bincount(groups, errors * part, minlength=patients) for part in (above, ~above)])
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    chosen = rng.integers(patients, size=(BOOTSTRAP_DRAWS, patients))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = _of(sums.sum(axis=1), counts.sum(axis=1))
        drawn = _of(sums[:, chosen].sum(axis=2), counts[:, chosen].sum(axis=2))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.nanquantile(drawn, [tail, 1.0 - tail])
    return float(value), float(low), float(high)


def _of(sums: Array, counts: Array) -> Array:
    return np.asarray((sums[0] / counts[0]) / (sums[1] / counts[1]))


def spread_section(turned: Sequence[Turned], tried: Sequence[Row], *, views: int) -> Section:
    """How errors depend on the spread."""
    sure = [one for one in turned if one.diagnosed]
    read = [one for one in turned if np.isfinite(one.score_error)]

    def of(one: Turned) -> float:
        return one.spread

    rows = []
    for metric, statistic, nodules, truth in (
        ("Spread of P, mean", mean_value, turned, lambda _: 0.0),
        ("Spread against |P - truth|: Spearman", spearman, turned, lambda one: one.error),
        ("  diagnosed nodules alone", spearman, sure, lambda one: one.error),
        ("P on the wrong side of one half, told by the spread: AUC", auc, turned, lambda one: float(one.error > 0.5)),
        ("Spread against the error of the expert score: Spearman", spearman, read, lambda one: one.score_error),
    ):
        found = estimate(statistic, [truth(one) for one in nodules], [of(one) for one in nodules],
                         [one.patient_id for one in nodules])  # fmt: skip
        rows.append(Row(metric=metric, **asdict(found)))
    title = f"Spread of P over {views} views and errors, of patients not trained on"
    return Section(title=title, rows=(*rows, *tried))
