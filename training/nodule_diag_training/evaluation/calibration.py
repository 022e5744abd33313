"""Calibrates P against diagnoses with two numbers, and measures P on patients that were left out of the fit.

The calibration has two numbers: P = sigmoid(slope * S + intercept) (Platt 1999). Logistic recalibration of clinical
models is the same (Cox 1958). More flexible methods need more labels: isotonic regression needs a thousand
(Niculescu-Mizil and Caruana 2005), and there are 29 benign ones here. The shrinkage is Platt's: a label counts as
(n + 1) / (n + 2) or 1 / (n + 2), with n nodules of its kind, as if one more of each kind had been seen. The slope stays
above 0, so the nodules keep their order. Benign and malignant weigh the same: P is for a prior of one half.

The calibrated P is measured on nodules whose patient was left out of the fit. The intervals are over resampled
patients, and every draw makes all its own fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nodule_diag_training.data import TrainingDataError

from .metrics import BOOTSTRAP_DRAWS, BOOTSTRAP_SEED, CONFIDENCE, EMPTY
from .rows import Row, Section

SMALLEST_SLOPE = 0.01
"""With this slope, P is near one half for every nodule."""
BINS = 5
"""Bins of the expected calibration error. All hold the same weight, since the values of P may lie close together."""
SMALLEST_DOUBT = 1e-7
"""Distance from 0 or 1 that is used for a P that float32 rounded to 0 or 1."""
LEAST_OF_A_KIND = 10
"""Least number of benign and malignant nodules, and of patients of each kind; with fewer, nothing is fitted."""
STEPS = 40
LONGEST_STEP = 2.0
"""Longest step of Newton's method: the problem is convex, but far from the optimum a full step may lead away."""
DRAWS_AT_ONCE = 20

Float = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosed:
    """Diagnosed nodules, and the answers of a network that had not seen their patients.

    Attributes:
        case_ids: Case id of each nodule.
        patients: Patient of each nodule.
        logits: (N,), S of eq. 4.
        labels: (N,), 1 malignant, 0 benign.
    """

    case_ids: tuple[str, ...]
    patients: tuple[str, ...]
    logits: Float
    labels: Float

    def __post_init__(self) -> None:
        """Refuse too few nodules.

        Raises:
            TrainingDataError: If a kind has fewer than ten nodules or patients.
        """
        for label, kind in enumerate(("benign", "malignant")):
            own = {patient for patient, one in zip(self.patients, self.labels, strict=True) if one == label}
            if len(own) < LEAST_OF_A_KIND:
                raise TrainingDataError(
                    f"{int((self.labels == label).sum())} {kind} nodules of {len(own)} patients were judged;"
                    f" a calibration needs {LEAST_OF_A_KIND} patients of either kind",
                    hint="judge more folds, or leave P as it is",
                )

    @classmethod
    def of(cls, told: Mapping[str, tuple[str, int, float]]) -> Diagnosed:
        """From P, by case id: the patient, 1 malignant or 0 benign, and P."""
        p = np.clip([p for _, _, p in told.values()], SMALLEST_DOUBT, 1.0 - SMALLEST_DOUBT)
        return cls(
            case_ids=tuple(told),
            patients=tuple(patient for patient, _, _ in told.values()),
            logits=np.log(p / (1.0 - p)),
            labels=np.array([label for _, label, _ in told.values()], dtype=np.float64),
        )

    @property
    def groups(self) -> NDArray[np.intp]:
        """(N,): the number of each nodule's patient."""
        return np.unique(self.patients, return_inverse=True)[1]


def balanced(counts: Float, labels: Float) -> Float:
    """Weights (..., N) that give benign and malignant a half each, with nodules counted ``counts`` times."""
    malignant = (counts * labels).sum(axis=-1, keepdims=True)
    benign = (counts * (1.0 - labels)).sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(labels == 1.0, 0.5 / malignant, 0.5 / benign) * counts)


def sigmoid(x: Float) -> Float:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def fit_platt(logits: Float, labels: Float, counts: Float) -> tuple[Float, Float]:
    """Slopes and intercepts (F,) of F fits at once, in which the nodules count ``counts`` (F, N) times.

    NaN where a fit has nodules of one kind only.
    """
    weights = balanced(counts, labels)
    malignant = (counts * labels).sum(axis=1, keepdims=True)
    benign = (counts * (1.0 - labels)).sum(axis=1, keepdims=True)
    targets = np.where(labels == 1.0, (malignant + 1.0) / (malignant + 2.0), 1.0 / (benign + 2.0))
    slope, intercept = np.zeros(len(counts)), np.zeros(len(counts))
    held = np.zeros(len(counts), dtype=bool)
    for _ in range(2):  # a second time for fits whose slope must be held
        for _ in range(STEPS):
            p = sigmoid(slope[:, None] * logits + intercept[:, None])
            residual, curvature = weights * (targets - p), weights * p * (1.0 - p)
            by_slope, by_intercept = residual @ logits, residual.sum(axis=1)
            ss, si, ii = curvature @ logits**2, curvature @ logits, curvature.sum(axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                determinant = ss * ii - si**2
                step = np.where(held, 0.0, (ii * by_slope - si * by_intercept) / determinant)
                shift = np.where(held, by_intercept / ii, (ss * by_intercept - si * by_slope) / determinant)
            slope = slope + step.clip(-LONGEST_STEP, LONGEST_STEP)
            intercept = intercept + shift.clip(-LONGEST_STEP, LONGEST_STEP)
        held = slope < SMALLEST_SLOPE
        slope = np.where(held, SMALLEST_SLOPE, slope)
    return slope, intercept


def cross_fitted(nodules: Diagnosed, counts: Float) -> Float:
    """P (F, N) of each nodule from a fit without its patient, for F samples; NaN outside the sample."""
    groups = nodules.groups
    patients = groups.max() + 1
    rows, left_out = np.nonzero(np.stack([counts[:, groups == own].sum(axis=1) for own in range(patients)], axis=1))
    others = counts[rows] * (groups[None, :] != left_out[:, None])
    slope, intercept = fit_platt(nodules.logits, nodules.labels, others)
    found = np.full(counts.shape, EMPTY)
    for row, own, a, b in zip(rows, left_out, slope, intercept, strict=True):
        mine = groups == own
        found[row, mine] = sigmoid(a * nodules.logits[mine] + b)
    return found


def brier(p: Float, labels: Float, weights: Float) -> float:
    """Weighted mean squared difference of probability and outcome."""
    return float((weights * (p - labels) ** 2).sum() / weights.sum())


def equal_bins(p: Float, weights: Float) -> NDArray[np.intp]:
    """(N,): the bin of each P, from the lowest; all bins hold the same weight."""
    order = np.argsort(p, kind="stable")
    share = weights[order] / weights.sum()
    bins = np.empty(len(p), dtype=np.intp)
    bins[order] = np.minimum(((np.cumsum(share) - share / 2.0) * BINS).astype(int), BINS - 1)
    return bins


def expected_calibration_error(p: Float, labels: Float, weights: Float) -> float:
    """Weighted mean, over bins of equal weight, of the distance between the share of malignant nodules and the mean P.

    Bins of equal mass: with few nodules the error of bins of equal width depends on where their edges lie (Nixon et
    al. 2019, Roelofs et al. 2022).
    """
    gaps = np.bincount(equal_bins(p, weights), weights / weights.sum() * (p - labels), minlength=BINS)
    return float(np.abs(gaps).sum())


def samples(nodules: Diagnosed, draws: int) -> Iterator[Float]:
    """Counts (F, N) of nodules in samples with as many patients, some samples at a time."""
    groups = nodules.groups
    patients = groups.max() + 1
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    for start in range(0, draws, DRAWS_AT_ONCE):
        chosen = rng.integers(patients, size=(min(DRAWS_AT_ONCE, draws - start), patients))
        yield np.stack([np.bincount(row, minlength=patients)[groups] for row in chosen]).astype(np.float64)


def _figures(nodules: Diagnosed, counts: Float, after: Float, slope: float, intercept: float) -> dict[str, float]:
    """Every figure of one sample."""
    there = counts > 0
    if not np.isfinite(after[there]).all() or not np.isfinite(slope):
        return {}
    labels, own = nodules.labels[there], counts[there]
    half = balanced(own, labels)
    rate = float((own * labels).sum() / own.sum())
    odds = rate / (1.0 - rate)
    found = {"slope": slope, "intercept": intercept, "yardstick": 0.25, "base rate": rate * (1.0 - rate)}
    for when, p in (("before", sigmoid(nodules.logits[there])), ("after", after[there])):
        found[f"brier {when}"] = brier(p, labels, half)
        found[f"ece {when}"] = expected_calibration_error(p, labels, half)
        moved = p * odds / (p * odds + 1.0 - p)
        found[f"moved {when}"] = brier(moved, labels, own)
    for name in ("brier", "ece", "moved"):
        found[f"{name} difference"] = found[f"{name} after"] - found[f"{name} before"]
    return found


METRICS: dict[str, str] = {
    "brier before": "Brier score of P, before",
    "brier after": "Brier score of P, after",
    "brier difference": "  after minus before",
    "yardstick": "Yardstick: Brier score of one half for every nodule",
    "ece before": "Expected calibration error, before",
    "ece after": "Expected calibration error, after",
    "ece difference": "  after minus before",
    "moved before": "Brier score at the nodules' own prevalence, before",
    "moved after": "Brier score at the nodules' own prevalence, after",
    "moved difference": "  after minus before",
    "base rate": "Yardstick: Brier score of that prevalence for every nodule",
    "slope": "Slope",
    "intercept": "Intercept",
}


def calibration_section(
    nodules: Diagnosed, *, draws: int = BOOTSTRAP_DRAWS, progress: Callable[[int], None] = lambda _: None
) -> tuple[Section, float, float, Float]:
    """What a calibration is worth.

    Args:
        nodules: The nodules for the fit.
        draws: Samples of patients for the intervals.
        progress: Called with the number of samples that are done.

    Returns:
        The section; slope and intercept, fitted on all nodules; P (N,) of each nodule by a fit without its patient.
    """
    every = np.ones((1, len(nodules.labels)))
    (slope,), (intercept,) = fit_platt(nodules.logits, nodules.labels, every)
    (after,) = cross_fitted(nodules, every)
    values = _figures(nodules, every[0], after, float(slope), float(intercept))
    drawn: dict[str, list[float]] = {name: [] for name in METRICS}
    done = 0
    for counts in samples(nodules, draws):
        fitted, found = fit_platt(nodules.logits, nodules.labels, counts), cross_fitted(nodules, counts)
        for row in range(len(counts)):
            figures = _figures(nodules, counts[row], found[row], float(fitted[0][row]), float(fitted[1][row]))
            for name, value in figures.items():
                drawn[name].append(value)
        done += len(counts)
        progress(done)
    malignant = int(nodules.labels.sum())
    notes = {
        "brier before": "benign and malignant weigh the same",
        "brier after": "each patient by a fit without it",
        "moved before": "P moved there by Bayes' rule",
        "slope": f"P of these nodules: {_range(after)}",
    }
    rows = tuple(
        Row(metric=title, value=values[name], low=low, high=high, n=len(nodules.labels), note=notes.get(name))
        for name, title in METRICS.items()
        for low, high in [_interval(drawn[name])]
    )
    title = (
        f"P calibrated on {len(nodules.labels)} diagnosed nodules ({malignant} malignant)"
        f" of {nodules.groups.max() + 1} patients, for a prior of one half"
    )
    return Section(title=title, rows=rows), float(slope), float(intercept), after


def _range(p: Float) -> str:
    low, high = np.quantile(p, [0.05, 0.95])
    return f"nine of ten from {low:.2f} to {high:.2f} after, one half to say nothing"


def _interval(drawn: Sequence[float]) -> tuple[float, float]:
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail]) if drawn else (EMPTY, EMPTY)
    return float(low), float(high)
