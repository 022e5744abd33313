"""Figures that depend on the prior: how many nodules are malignant before anything is known of this one.

CNet's P is for a prior of one half. A bundle's calibration of P comes first, and :func:`at_prevalence` last.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from nodule_diag.errors import UsageError
from nodule_diag.results.diagnosis import SimilarCase
from nodule_diag.results.identity import CaseBaseIdentity


def require_prevalence(prevalence: float | None) -> float | None:
    """Check a share of malignant nodules and return it as a Python float; None stands for one half.

    Raises:
        UsageError: Unless the share is a number above 0 and below 1.
    """
    if prevalence is None:
        return None
    if not isinstance(prevalence, Real) or not 0.0 < float(prevalence) < 1.0:
        raise UsageError(
            f"the prevalence is {prevalence!r}; it must be a number between 0 and 1",
            hint="give the share of such nodules that are malignant, as in 0.05",
        )
    return float(prevalence)


def at_prevalence(probability: float, prevalence: float | None) -> float:
    """Move a probability from a prior of one half to another prior by Bayes' rule: the odds times p / (1 - p).

    Args:
        probability: 0..1, for benign and malignant equally likely.
        prevalence: Share of malignant nodules among the nodules in question, 0 < p < 1; None keeps one half.

    Returns:
        The probability at that prevalence, 0..1.
    """
    if prevalence is None:
        return probability
    malignant = probability * prevalence
    return malignant / (malignant + (1.0 - probability) * (1.0 - prevalence))


def balanced_share(similar: Sequence[SimilarCase], *, of: CaseBaseIdentity) -> float | None:
    """The share of malignant cases among retrieved ones, as if the case base held as many benign as malignant cases.

    Args:
        similar: The K retrieved cases, m malignant and b benign; K >= 1.
        of: The case base they are from, with M malignant and B benign cases.

    Returns:
        (m / M) / (m / M + b / B), where eq. 14 is m / (m + b); None where M or B is 0.
    """
    benign_of_all = of.count - of.malignant
    if not of.malignant or not benign_of_all:
        return None
    malignant = sum(case.label for case in similar)
    found = malignant / of.malignant
    return found / (found + (len(similar) - malignant) / benign_of_all)
