"""Diagnosis by similar cases (3.3), out of fold: Table 2, Fig. 5, and the relabelling of the unsure data (5.6).

Each held-out nodule of a fold finds the K nearest among the diagnosed nodules of the fold's training patients, by what
the fold's model said of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nodule_diag.results import Space
from nodule_diag_training.data import rounded_score
from nodule_diag_training.evaluation import RETRIEVED_CASES, nearest_cases
from nodule_diag_training.losses import THRESHOLD

from .records import FoldRecord, NoduleRecord


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """One nodule's K nearest cases, nearest first (eq. 13).

    Attributes:
        nodule: The nodule.
        cases: Diagnosed nodules of other patients; all of them where there are fewer than K.
    """

    nodule: NoduleRecord
    cases: tuple[NoduleRecord, ...]

    @property
    def diagnosis(self) -> float:
        """Diag of eq. 14: their mean label."""
        return float(np.mean([case.label or 0 for case in self.cases]))


def retrieve(
    queries: Sequence[NoduleRecord], cases: Sequence[NoduleRecord], *, space: Space, k: int = RETRIEVED_CASES
) -> list[Retrieved]:
    """Eq. 13 for each query. Errors as ``nearest_cases``."""
    found = nearest_cases(queries, cases, space=space, k=k)
    return [Retrieved(nodule=query, cases=nearest) for query, nearest in zip(queries, found, strict=True)]


def retrieve_folds(records: Sequence[FoldRecord], *, space: Space, diagnosed: bool) -> list[tuple[int, Retrieved]]:
    """(fold, answer) for each held-out nodule, over the folds of a run.

    Args:
        records: Records with cases.
        space: The feature space.
        diagnosed: Diagnosed nodules only, or else those of the paper's cohort.
    """
    found = []
    for record in records:
        queries = [n for n in record.nodules if (n.label is not None if diagnosed else n.in_paper_cohort)]
        found += [(record.fold, answer) for answer in retrieve(queries, record.cases, space=space)]
    return found


@dataclass(frozen=True, kw_only=True)
class Relabelled:
    """Fig. 9: how many nodules of each rounded mean score retrieval calls benign and malignant.

    Attributes:
        benign: For scores 1 to 5.
        malignant: For scores 1 to 5.
    """

    benign: tuple[int, ...]
    malignant: tuple[int, ...]


def relabel(records: Sequence[FoldRecord], *, space: Space = "machine+expert") -> Relabelled:
    """Section 5.6: nodules of the paper's cohort, relabelled by eq. 14 against the threshold of eq. 7."""
    counts = np.zeros((2, 5), dtype=int)
    for _, answer in retrieve_folds(records, space=space, diagnosed=False):
        counts[int(answer.diagnosis >= THRESHOLD), rounded_score(answer.nodule.mean_score) - 1] += 1
    return Relabelled(benign=tuple(counts[0].tolist()), malignant=tuple(counts[1].tolist()))
