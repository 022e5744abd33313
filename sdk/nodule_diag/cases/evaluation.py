"""How good the diagnosis by similar cases is with a case base (paper 3.3, Table 2).

Every nodule is diagnosed from the cases of all other patients, as a new nodule would be. Intervals come from resampled
patients, because the nodules of one patient are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.retrieval import DEFAULT_K, CaseIndex, features, require_k
from nodule_diag.errors import UsageError
from nodule_diag.results import SPACES, Space

FIGURES: Final = ("sensitivity", "specificity", "precision", "precision_benign", "accuracy", "auc", "f1")
"""Columns of Table 2, in its order."""
THRESHOLD: Final = 0.5
"""From this share of malignant cases on, the diagnosis is malignant."""
DRAWS: Final = 2000
SEED: Final = 20221
CONFIDENCE: Final = 0.95

Float = NDArray[np.float64]


def evaluate_cases(base: CaseBase, *, k: int = DEFAULT_K, draws: int = DRAWS) -> dict[str, Any]:
    """Diagnose every case from the cases of the other patients.

    Args:
        base: A case base with cases of at least two patients.
        k: How many similar cases make a diagnosis.
        draws: How often patients are resampled.

    Returns:
        JSON types: ``count``, ``malignant``, ``patients``, ``base_rate``, ``k``, and ``rows``. A row has a ``method``
        (a feature space, or ``malignancy`` for the model's own P), a ``form`` (``plain``: eq. 14; ``balanced``: as if
        there were as many benign as malignant cases), the number of its cases (``n``), and each of :data:`FIGURES` as
        ``value``, ``low`` and ``high``. Undefined figures are null, such as sensitivity without a malignant case.

    Raises:
        CaseBaseError: ``case-base-empty``.
        UsageError: When all cases are of one patient; see :func:`require_k`.
    """
    k = require_k(k)
    index = CaseIndex(base)
    _, numbers = index.cases.numbers()
    label = numbers[:, 0]
    patients = [name for (name,) in index.cases.fetch("SELECT patient_id FROM cases ORDER BY case_id")]
    names, who = np.unique(np.array(patients, dtype=object), return_inverse=True)
    if len(names) < 2:
        raise UsageError(
            f"all {len(label)} cases of {base.where} are of one patient",
            hint="each case is compared with those of other patients: add some",
        )
    scores = {("malignancy", "plain"): numbers[:, 1]}
    for space in SPACES:
        plain, balanced = _diagnoses(index, space, numbers, who, k)
        scores |= {(space, "plain"): plain, (space, "balanced"): balanced}
    estimates = _estimated(label, list(scores.values()), who, draws)
    rows = [
        {"method": method, "form": form, "n": int(np.isfinite(score).sum())} | figures
        for ((method, form), score), figures in zip(scores.items(), estimates, strict=True)
    ]
    return {
        "count": len(label),
        "malignant": int(label.sum()),
        "patients": len(names),
        "base_rate": index.base_rate,
        "k": k,
        "rows": rows,
    }


def _diagnoses(index: CaseIndex, space: Space, numbers: Float, who: NDArray[np.intp], k: int) -> tuple[Float, Float]:
    """(N,) the share of malignant cases among the K nearest of other patients, and (N,) its balanced form."""
    label = numbers[:, 0]
    same = np.split(np.argsort(who, kind="stable"), np.cumsum(np.bincount(who))[:-1])
    plain, balanced = np.empty(len(label)), np.full(len(label), np.nan)
    for row, (_, malignancy, expert_score) in enumerate(numbers.tolist()):
        own = same[who[row]]
        near, _ = index.nearest(space, features(space, malignancy, expert_score), k, excluded=own)
        malignant = label[near].sum()
        plain[row] = malignant / len(near)
        all_malignant = label.sum() - label[own].sum()
        all_benign = len(label) - len(own) - all_malignant
        if all_malignant and all_benign:
            share = malignant / all_malignant
            balanced[row] = share / (share + (len(near) - malignant) / all_benign)
    return plain, balanced


class _Scored:
    """Cases by their score, so that a draw of them needs only two counts per distinct score."""

    def __init__(self, label: Float, score: Float) -> None:
        self._kept = np.isfinite(score)
        self._values, self._places = np.unique(score[self._kept], return_inverse=True)
        self._malignant = label[self._kept] == 1.0

    def figures(self, weight: Float) -> Float:
        """The figures of cases that are each counted ``weight`` times."""
        weight, bins = weight[self._kept], len(self._values)
        positive, negative = (
            np.bincount(self._places[chosen], weight[chosen], minlength=bins).astype(np.float64)
            for chosen in (self._malignant, ~self._malignant)
        )
        return _of_counts(self._values, positive, negative)


def _estimated(label: Float, scores: Sequence[Float], who: NDArray[np.intp], draws: int) -> list[dict[str, Any]]:
    """Each score's figures, with percentile intervals over the draws of patients in which they are defined."""
    scored = [_Scored(label, score) for score in scores]
    whole = np.stack([one.figures(np.ones_like(label)) for one in scored])
    rng, patients = np.random.default_rng(SEED), int(who.max()) + 1
    drawn = np.empty((draws, *whole.shape))
    for draw in drawn:
        times = np.bincount(rng.integers(patients, size=patients), minlength=patients)
        weight = times[who].astype(np.float64)
        for one, figures in zip(scored, draw, strict=True):
            figures[:] = one.figures(weight)
    tail = (1.0 - CONFIDENCE) / 2.0
    return [
        {name: _estimate(whole[row, column], drawn[:, row, column], tail) for column, name in enumerate(FIGURES)}
        for row in range(len(scored))
    ]


def _estimate(value: float, drawn: Float, tail: float) -> dict[str, float | None]:
    defined = drawn[np.isfinite(drawn)]
    low, high = np.quantile(defined, [tail, 1.0 - tail]) if len(defined) else (np.nan, np.nan)
    told = {"value": value, "low": low, "high": high}
    return {name: float(number) if np.isfinite(number) else None for name, number in told.items()}


def _of_counts(values: Float, positive: Float, negative: Float) -> Float:
    """The figures from (V,) ascending scores and the numbers of malignant and benign cases with each score."""
    called = values >= THRESHOLD
    hit, false_alarm = positive[called].sum(), negative[called].sum()
    missed, spared = positive[~called].sum(), negative[~called].sum()
    all_positive, all_negative = hit + missed, false_alarm + spared
    # Pairs of a malignant and a benign case in the right order, plus half of the ties (Mann and Whitney).
    pairs = (positive * (np.cumsum(negative) - negative / 2.0)).sum()
    shares = (
        (hit, all_positive),
        (spared, all_negative),
        (hit, hit + false_alarm),
        (spared, spared + missed),
        (hit + spared, all_positive + all_negative),
        (pairs, all_positive * all_negative),
        (2.0 * hit, 2.0 * hit + false_alarm + missed),
    )
    return np.array([part / whole if whole else np.nan for part, whole in shares])
