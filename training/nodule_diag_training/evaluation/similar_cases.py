"""Eq. 13 out of fold: a held-out nodule's nearest cases among the diagnosed ones of other patients.

By exhaustive search; ties go by case id, as in the SDK.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from nodule_diag.cases import features
from nodule_diag.results import Space
from nodule_diag_training.data import HIGHEST_SCORE, LOWEST_SCORE, TrainingDataError

RETRIEVED_CASES = 20
"""K of eq. 14."""


class Answered(Protocol):
    """A nodule and a model's answers for it."""

    @property
    def case_id(self) -> str:
        """Unique among the cases."""

    @property
    def patient_id(self) -> str:
        """The nodule's patient."""

    @property
    def malignancy(self) -> float | None:
        """P; None without CNet."""

    @property
    def expert_score(self) -> float | None:
        """RNet's score, on the readers' scale; None without RNet."""


Answer = TypeVar("Answer", bound=Answered)


def _features(space: Space, nodules: Sequence[Answered]) -> NDArray[np.float32]:
    rows = []
    for nodule in nodules:
        if nodule.malignancy is None or nodule.expert_score is None:
            raise TrainingDataError(
                f"{nodule.case_id} has no P or no expert score",
                hint="retrieval needs a model with CNet and RNet: J, say",
            )
        rows.append(features(space, nodule.malignancy, min(max(nodule.expert_score, LOWEST_SCORE), HIGHEST_SCORE)))
    return np.stack(rows)


def nearest_cases(
    queries: Sequence[Answered], cases: Sequence[Answer], *, space: Space, k: int = RETRIEVED_CASES
) -> list[tuple[Answer, ...]]:
    """The K nearest of each query, nearest first; all cases where there are fewer than K.

    Raises:
        TrainingDataError: If there are no cases, a query's patient is among them, or a nodule lacks P or expert score.
    """
    if not queries:
        return []
    if shared := {query.patient_id for query in queries} & {case.patient_id for case in cases}:
        raise TrainingDataError(f"patients {sorted(shared)} are in the case base and among the queries")
    if not cases:
        raise TrainingDataError("there are no cases", hint="give diagnosed nodules of patients that were trained on")
    by_id = sorted(cases, key=lambda case: case.case_id.encode())
    base, wanted = _features(space, by_id), _features(space, queries)
    distances = np.linalg.norm(wanted[:, None, :] - base[None, :, :], axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return [tuple(by_id[i] for i in row) for row in order]
