"""Similar diagnosed cases (paper 3.3): an exact search over the model's answers for each case.

A nodule is one or two numbers here: CNet's probability P, RNet's normalised score ``(expert_score - 1) / 4``, or both.
hnswlib proposes points in float32. They are ordered in float64 by (distance, case id). The search is widened until no
tie at the K-th place is cut, so the result is that of an exhaustive sort.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from numbers import Integral
from reprlib import repr as shortened

import numpy as np
from numpy.typing import NDArray

from nodule_diag.bundle import MAX_K, Bundle
from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.points import Points
from nodule_diag.errors import CaseBaseError, UsageError
from nodule_diag.results import SPACES, CaseBaseIdentity, SimilarCase, Space

DEFAULT_K = 20
"""Paper 3.3: "K is empirically set to 20"."""


def require_k(k: int) -> int:
    """Check ``k`` and return it as a Python int.

    Raises:
        UsageError: Unless ``k`` is a whole number from 1 to :data:`nodule_diag.bundle.MAX_K`.
    """
    if isinstance(k, bool) or not isinstance(k, Integral) or not 1 <= k <= MAX_K:
        try:
            given = shortened(k)
        except ValueError:
            given = "of more digits than Python shows"
        raise UsageError(
            f"k is {given}; it must be a whole number of at least 1 and at most {MAX_K}",
            hint="leave k out to use the bundle's",
        )
    return int(k)


def features(space: Space, malignancy: float, expert_score: float) -> NDArray[np.float32]:
    """The features of a nodule in a feature space.

    Args:
        space: ``machine`` [P], ``expert`` [(s - 1) / 4] or ``machine+expert`` [P, (s - 1) / 4].
        malignancy: CNet's probability P, 0..1.
        expert_score: RNet's score s on the readers' scale, 1..5.

    Returns:
        (1,) or (2,) float32.
    """
    return np.asarray(_matrix(space, np.array([[malignancy, expert_score]]))[0])


def _matrix(space: Space, scores: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N, dim) float32 :func:`features` of (N, 2) P and expert score."""
    parts = {"machine": scores[:, 0], "expert": (scores[:, 1] - 1.0) / 4.0}
    return np.stack([parts[name] for name in space.split("+")], axis=1).astype(np.float32)


class CaseIndex:
    """A case base, searchable in each feature space; safe to use from several threads.

    Args:
        source: A case base, or a checked bundle, whose case base is used. Cases that are added later are not seen.

    Attributes:
        cases: All cases, in the order of their ids.
        base_rate: Share of malignant cases.
        identity: Its name, its file's hash and how many cases of each kind it holds.

    Raises:
        CaseBaseError: ``case-base-empty``, or any fault of :meth:`CaseBase.of_bundle`.
    """

    def __init__(self, source: Bundle | CaseBase) -> None:
        self.cases = CaseBase.of_bundle(source) if isinstance(source, Bundle) else source.copy()
        self._ids, numbers = self.cases.numbers()
        if not self._ids:
            raise CaseBaseError(
                f"{self.cases.where} holds no cases, so there is nothing to retrieve from",
                hint="build it from at least one diagnosed nodule",
                code="case-base-empty",
            )
        self._labels = numbers[:, 0]
        self.base_rate = float(self._labels.mean())
        self._spaces = {space: Points(_matrix(space, numbers[:, 1:])) for space in SPACES}

    def __len__(self) -> int:
        return len(self._ids)

    @cached_property
    def identity(self) -> CaseBaseIdentity:
        """How a prediction identifies the case base; a base without a file has the digest of its rows."""
        sha256 = self.cases.sha256 or self.cases.digest()
        where = self.cases.condition or None
        malignant = int(self._labels.sum())
        return CaseBaseIdentity(self.cases.name, sha256, count=len(self), malignant=malignant, where=where)

    def searched(self, exclude: Collection[str] = ()) -> CaseBaseIdentity:
        """The same, with the counts of the cases that :meth:`search` compares with; errors as there."""
        rows = self._excluded(exclude)
        malignant = int(np.delete(self._labels, rows).sum())
        return replace(self.identity, count=len(self) - len(rows), malignant=malignant)

    def search(
        self, space: Space, *, malignancy: float, expert_score: float, k: int, exclude: Collection[str] = ()
    ) -> tuple[SimilarCase, ...]:
        """The K nearest cases by Euclidean distance (eq. 13), nearest first, ties in the order of their case ids.

        Args:
            space: The feature space.
            malignancy: The new nodule's P, 0..1.
            expert_score: Its score, 1..5.
            k: How many cases; all cases where there are fewer.
            exclude: Case ids and patient ids to leave out: in evaluation a case must find neither itself nor
                another nodule of its own patient.

        Returns:
            At most ``k`` cases.

        Raises:
            UsageError: When every case is excluded; see :func:`require_k`.
        """
        query = features(space, malignancy, expert_score)
        rows, distances = self.nearest(space, query, require_k(k), excluded=self._excluded(exclude))
        cases = self.cases.cases([self._ids[row] for row in rows.tolist()])
        names = [name for name in SimilarCase._fields if name != "distance"]
        return tuple(
            SimilarCase(distance=distance, **{name: getattr(case, name) for name in names})
            for case, distance in zip(cases, distances.tolist(), strict=True)
        )

    def _excluded(self, exclude: Collection[str]) -> NDArray[np.intp]:
        """Rows to leave out."""
        found = self.cases.ids_named({exclude} if isinstance(exclude, str) else set(exclude)) if exclude else ()
        if len(found) == len(self):
            raise UsageError(
                f"all {len(self)} cases are excluded", hint="exclude fewer cases or patients from retrieval"
            )
        return np.array([bisect_left(self._ids, case_id) for case_id in found], dtype=np.intp)

    def nearest(
        self, space: Space, query: NDArray[np.float32], k: int, *, excluded: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Rows (as :meth:`CaseBase.numbers` has them) and distances of the K nearest cases; as :meth:`search`.

        Args:
            space: The feature space.
            query: :func:`features` of the new nodule.
            k: How many.
            excluded: Rows to leave out.
        """
        # Widen the search until every point left out is beyond the K-th case.
        points = self._spaces[space]
        wanted = k + len(excluded)
        count = min(len(points), wanted + 1)
        while True:
            rows, distances, beyond = points.nearest(query, count, limit=wanted)
            kept = ~np.isin(rows, excluded)
            rows, distances = rows[kept], distances[kept]
            # Cases are sorted by id, so the row number stands for the id.
            order = np.lexsort((rows, distances))[:k]
            rows, distances = rows[order], distances[order]
            if count == len(points) or (len(rows) == k and beyond > distances[-1]):
                return rows, distances
            count = min(len(points), count * 2)


def mean_label(similar: Sequence[SimilarCase]) -> float:
    """The diagnosis of eq. 14: the share of malignant cases among the retrieved ones."""
    return sum(case.label for case in similar) / len(similar)
