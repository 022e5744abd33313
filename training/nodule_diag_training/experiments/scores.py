"""The metrics of 4.4 over nodules: pooled with intervals over patients, and as the paper has them, over folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from nodule_diag_training.data import TrainingDataError
from nodule_diag_training.evaluation import (
    BOOTSTRAP_DRAWS,
    BOOTSTRAP_SEED,
    CONFIDENCE,
    EMPTY,
    Estimate,
    auc,
    mean_value,
)
from nodule_diag_training.losses import THRESHOLD

Array = NDArray[np.float64]
BENIGN, MALIGNANT = 0, 1


def _decided(score: Array) -> NDArray[np.int_]:
    """Eq. 7."""
    return (score >= THRESHOLD).astype(int)


def sensitivity(label: Array, score: Array) -> float:
    """Share of the malignant nodules that are called malignant; NaN without any."""
    return float(recall_score(label, _decided(score), pos_label=MALIGNANT, zero_division=np.nan))


def specificity(label: Array, score: Array) -> float:
    """Share of the benign nodules that are called benign; NaN without any."""
    return float(recall_score(label, _decided(score), pos_label=BENIGN, zero_division=np.nan))


def precision(label: Array, score: Array) -> float:
    """Share of malignant nodules among those called malignant; NaN where none is."""
    return float(precision_score(label, _decided(score), pos_label=MALIGNANT, zero_division=np.nan))


def precision_b(label: Array, score: Array) -> float:
    """Share of benign nodules among those called benign; NaN where none is."""
    return float(precision_score(label, _decided(score), pos_label=BENIGN, zero_division=np.nan))


def accuracy(label: Array, score: Array) -> float:
    """Share of right answers."""
    return float(accuracy_score(label, _decided(score))) if len(label) else EMPTY


def f1(label: Array, score: Array) -> float:
    """Harmonic mean of sensitivity and precision; NaN where neither has anything to count."""
    return float(f1_score(label, _decided(score), pos_label=MALIGNANT, zero_division=np.nan))


METRICS: dict[str, Callable[[Array, Array], float]] = {
    "sensitivity": sensitivity,
    "specificity": specificity,
    "precision": precision,
    "precision_b": precision_b,
    "accuracy": accuracy,
    "auc": auc,
    "f1": f1,
}
"""By the names of ``paper.PaperFigures``, in the paper's order."""
TITLES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "precision_b": "Precision_b",
    "accuracy": "Accuracy",
    "auc": "AUC",
    "f1": "F1",
}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One tested nodule: its label, its score, its patient, and the fold whose model judged it."""

    label: int
    score: float
    patient_id: str
    fold: int


@dataclass(frozen=True, kw_only=True)
class OverFolds:
    """A metric as the paper gives it.

    Attributes:
        mean: Mean over the folds in which it is defined; NaN without any.
        std: Population standard deviation over these folds.
        folds: Number of folds in which it is defined.
        undefined: Number of folds in which it is not, since no nodule has the class it needs.
    """

    mean: float
    std: float
    folds: int
    undefined: int


def over_folds(metric: str, nodules: Sequence[Scored]) -> OverFolds:
    """Mean and standard deviation over the folds."""
    values = []
    for fold in sorted({n.fold for n in nodules}):
        own = [n for n in nodules if n.fold == fold]
        values.append(METRICS[metric](*_arrays(own)))
    defined = [v for v in values if np.isfinite(v)]
    return OverFolds(
        mean=float(np.mean(defined)) if defined else EMPTY,
        std=float(np.std(defined)) if defined else EMPTY,
        folds=len(defined),
        undefined=len(values) - len(defined),
    )


def pooled_auc(nodules: Sequence[Scored]) -> Estimate:
    """The AUC of the nodules of all folds together, with the 95 % interval over resampled patients.

    The result is that of ``metrics.estimate`` with ``metrics.auc``, whose 2000 calls take a quarter of a second. Here a
    draw is a row of weights, and all draws are ranked at once.
    """
    label, score = _arrays(nodules)
    draws = _weighted_aucs(label, score, _resampled([n.patient_id for n in nodules]))
    return _estimate(auc(label, score), draws, n=len(nodules))


def auc_difference(one: Sequence[Scored], other: Sequence[Scored]) -> Estimate:
    """``one``'s pooled AUC minus ``other``'s, with its interval over the same draws of patients.

    Raises:
        TrainingDataError: If the two are not of the same nodules in the same order.
    """
    if [(n.patient_id, n.label) for n in one] != [(n.patient_id, n.label) for n in other]:
        raise TrainingDataError("two runs were tested on other nodules", hint="judge both again: train judge")
    weights = _resampled([n.patient_id for n in one])
    (label, first), (_, second) = _arrays(one), _arrays(other)
    draws = _weighted_aucs(label, first, weights) - _weighted_aucs(label, second, weights)
    return _estimate(auc(label, first) - auc(label, second), draws, n=len(one))


def _estimate(value: float, draws: Array, *, n: int) -> Estimate:
    """The value with the percentile interval of the draws that have one."""
    finite = draws[np.isfinite(draws)]
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(finite, [tail, 1.0 - tail]) if len(finite) else (EMPTY, EMPTY)
    return Estimate(value=value, low=float(low), high=float(high), n=n)


def pooled_mean(values: Sequence[float], patients: Sequence[str]) -> Estimate:
    """The mean with its interval over resampled patients: ``metrics.estimate`` with ``metrics.mean_value``, at once."""
    own = np.asarray(values, dtype=np.float64)
    weights = _resampled(patients)
    draws = weights @ own / weights.sum(axis=1)
    return _estimate(mean_value(own, own), draws, n=len(own))


def _resampled(patients: Sequence[str]) -> Array:
    """[draws, N] how often each nodule is in a draw of patients, who are as many as in the data."""
    return _draws(tuple(patients), BOOTSTRAP_DRAWS)


@lru_cache(maxsize=8)  # the rows of a table have the same nodules
def _draws(patients: tuple[str, ...], draws: int) -> Array:
    names, member = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    count = len(names)
    counts = [np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(draws if count else 0)]
    return np.asarray(counts, dtype=np.float64).reshape(len(counts), count)[:, member]


def _weighted_aucs(label: Array, score: Array, weights: Array) -> Array:
    """[draws] shares of (malignant, benign) pairs in the right order, ties by half; NaN where a class is missing."""
    if not len(score):
        return np.full(len(weights), EMPTY)
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    malignant = np.add.reduceat(weights[:, order] * (label[order] == MALIGNANT), starts, axis=1)
    benign = np.add.reduceat(weights[:, order] * (label[order] == BENIGN), starts, axis=1)
    below = np.cumsum(benign, axis=1) - benign
    pairs = malignant.sum(axis=1) * benign.sum(axis=1)
    right = (malignant * (below + 0.5 * benign)).sum(axis=1)
    aucs: Array = np.full(len(weights), EMPTY)
    np.divide(right, pairs, out=aucs, where=pairs > 0.0)
    return aucs


def _arrays(nodules: Sequence[Scored]) -> tuple[Array, Array]:
    return (
        np.asarray([n.label for n in nodules], dtype=np.float64),
        np.asarray([n.score for n in nodules], dtype=np.float64),
    )
