"""The metrics of 4.4 over nodules: pooled with intervals over patients, and as the paper has them, over folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from nodule_diag_training.losses import THRESHOLD
from nodule_diag_training.metrics import EMPTY, Estimate, auc, estimate

Array = NDArray[np.float64]
BENIGN, MALIGNANT = 0, 1


def _decided(score: Array) -> NDArray[np.int_]:
    """Eq. 7."""
    return (score >= THRESHOLD).astype(int)


def sensitivity(label: Array, score: Array) -> float:
    """Share of the malignant that are called so; NaN without any."""
    return float(recall_score(label, _decided(score), pos_label=MALIGNANT, zero_division=np.nan))


def specificity(label: Array, score: Array) -> float:
    """Share of the benign that are called so; NaN without any."""
    return float(recall_score(label, _decided(score), pos_label=BENIGN, zero_division=np.nan))


def precision(label: Array, score: Array) -> float:
    """Share of malignant among what is called so; NaN where nothing is."""
    return float(precision_score(label, _decided(score), pos_label=MALIGNANT, zero_division=np.nan))


def precision_b(label: Array, score: Array) -> float:
    """Share of benign among what is called so; NaN where nothing is."""
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
    """One tested nodule: its label, what was said of it, whose it is, and by which fold's model."""

    label: int
    score: float
    patient_id: str
    fold: int


@dataclass(frozen=True, kw_only=True)
class OverFolds:
    """A metric as the paper gives it.

    Attributes:
        mean: Over the folds in which it is defined; NaN without any.
        std: Population standard deviation over them.
        folds: In how many it is defined.
        undefined: In how many it is not: no nodule of the class it needs.
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


def pooled(metric: str, nodules: Sequence[Scored]) -> Estimate:
    """Over the nodules of all folds together, with the 95 % interval over resampled patients."""
    return estimate(
        METRICS[metric], [n.label for n in nodules], [n.score for n in nodules], [n.patient_id for n in nodules]
    )


def _arrays(nodules: Sequence[Scored]) -> tuple[Array, Array]:
    return (
        np.asarray([n.label for n in nodules], dtype=np.float64),
        np.asarray([n.score for n in nodules], dtype=np.float64),
    )
