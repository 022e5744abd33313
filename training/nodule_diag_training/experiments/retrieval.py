"""Diagnosis by similar cases (3.3), out of fold: Table 2, Fig. 5, and the relabelling of the unsure data (5.6).

A fold's held-out nodules look for the K nearest among the diagnosed nodules of its training patients, in what that
fold's model said of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nodule_diag.manifest import Space
from nodule_diag.retrieval import features
from nodule_diag_training.crossval import RETRIEVED_CASES
from nodule_diag_training.labels import HIGHEST_SCORE, LOWEST_SCORE, rounded_score
from nodule_diag_training.lidc import TrainingDataError
from nodule_diag_training.losses import THRESHOLD

from .records import FoldRecord, NoduleRecord

Vector = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """One nodule's K nearest cases, nearest first (eq. 13).

    Attributes:
        nodule: Whose.
        cases: Diagnosed nodules of other patients; all of them where there are fewer than K.
    """

    nodule: NoduleRecord
    cases: tuple[NoduleRecord, ...]

    @property
    def diagnosis(self) -> float:
        """Diag of eq. 14: their mean label."""
        return float(np.mean([case.label or 0 for case in self.cases]))


def _features(space: Space, nodule: NoduleRecord) -> Vector:
    if nodule.malignancy is None or nodule.expert_score is None:
        raise TrainingDataError(
            f"{nodule.case_id} has no P or no expert score", hint="retrieval needs a model with CNet and RNet: J, say"
        )
    score = min(max(nodule.expert_score, LOWEST_SCORE), HIGHEST_SCORE)
    return features(space, nodule.malignancy, score)


def retrieve(
    queries: Sequence[NoduleRecord], cases: Sequence[NoduleRecord], *, space: Space, k: int = RETRIEVED_CASES
) -> list[Retrieved]:
    """Eq. 13 by exhaustive search; ties go to the case that is listed first.

    Raises:
        TrainingDataError: If there are no cases, or a query's patient is among them.
    """
    if not queries:
        return []
    shared = {q.patient_id for q in queries} & {c.patient_id for c in cases}
    if shared or not cases:
        raise TrainingDataError(
            f"patients {sorted(shared)} are in the case base and among the queries" if shared else "there are no cases"
        )
    base = np.stack([_features(space, case) for case in cases])
    found = []
    for query in queries:
        distance = np.linalg.norm(base - _features(space, query), axis=1)
        nearest = np.argsort(distance, kind="stable")[:k]
        found.append(Retrieved(nodule=query, cases=tuple(cases[i] for i in nearest)))
    return found


def retrieve_folds(records: Sequence[FoldRecord], *, space: Space, diagnosed: bool) -> list[tuple[int, Retrieved]]:
    """Over the folds of a run: (fold, answer) for each held-out nodule.

    Args:
        records: With cases.
        space: What is compared.
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
