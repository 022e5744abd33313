"""Similar diagnosed cases (paper 3.3): three hnswlib indexes over what the model said about each case.

A nodule is one or two numbers here: CNet's probability P, RNet's normalised score ``(expert_score - 1) / 4``, or both.
hnswlib proposes candidates in float32; their order is settled in float64 by (distance, case id), and the boundary at
the K-th place is widened until no tie is cut, so that the answer is the one that an exhaustive sort gives.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nodule_diag.bundle import Bundle
from nodule_diag.case_base import INDEX_FAULT, Case, CaseBase, parse_cases
from nodule_diag.errors import BundleError, UsageError
from nodule_diag.manifest import SPACES, IndexSpec, RetrievalSpec, Space
from nodule_diag.results import SimilarCase
from nodule_diag.vector_index import VectorIndex, serialise_index

EXACT_SEARCH_LIMIT = 10_000
"""Cases up to which every one is compared, which needs no tuning and misses nothing. Measured on 2 cores in two
dimensions, both ways take 0.1 ms a query at 10,000 cases; above, the graph is faster (0.2 against 0.5 ms at 50,000)."""
TIE_TOLERANCE = 1e-5
"""Relative slack on hnswlib's float32 squared distances when looking for ties: some eighty float32 roundings."""
TIE_FLOOR = 1e-30
"""Absolute slack on them: what float32 underflow hides."""
DEFAULT_K = 20
"""Paper 3.3: "K is empirically set to 20"."""


def features(space: Space, malignancy: float, expert_score: float) -> NDArray[np.float32]:
    """What a nodule is in a feature space.

    Args:
        space: ``machine`` [P], ``expert`` [(s - 1) / 4] or ``machine+expert`` [P, (s - 1) / 4].
        malignancy: CNet's probability P, 0..1.
        expert_score: RNet's score s on the readers' scale, 1..5.

    Returns:
        (1,) or (2,) float32.
    """
    parts = {"machine": malignancy, "expert": (expert_score - 1.0) / 4.0}
    return np.array([parts[name] for name in space.split("+")], dtype=np.float32)


def _matrix(cases: Sequence[Case], space: Space) -> NDArray[np.float32]:
    """(N, dim) float32 features of all cases."""
    return np.stack([features(space, case.malignancy, case.expert_score) for case in cases])


@dataclass(frozen=True)
class BuiltIndex:
    """What :func:`build_index` adds to a bundle.

    Attributes:
        retrieval: The manifest's ``retrieval``.
        files: Content by relative path: ``cases.json`` and the three hnswlib files.
    """

    retrieval: RetrievalSpec
    files: Mapping[str, bytes]


def build_index(
    cases: Sequence[Case], *, k: int = DEFAULT_K, exact_up_to: int = EXACT_SEARCH_LIMIT, folder: str = "index"
) -> BuiltIndex:
    """Make the case base and its three indexes, ready to be written into a bundle.

    The result depends on the cases alone: they are sorted by id, and HNSW graphs are built by one thread from a
    fixed seed.

    Args:
        cases: The diagnosed cases.
        k: How many cases make a diagnosis.
        exact_up_to: Up to so many cases the files are brute-force indexes.
        folder: Where in the bundle the files go.

    Returns:
        The manifest's part and the files.

    Raises:
        BundleError: Without cases, or when two have the same id.
    """
    base = CaseBase.of(cases)
    files = {f"{folder}/cases.json": base.to_json()}
    spaces: dict[Space, IndexSpec] = {}
    for space, dim in SPACES.items():
        file = f"{folder}/{space.replace('+', '_')}.hnsw"
        files[file] = serialise_index(_matrix(base.cases, space), exact=len(base.cases) <= exact_up_to)
        spaces[space] = IndexSpec(file=file, dim=dim)
    retrieval = RetrievalSpec(
        k=k, cases=f"{folder}/cases.json", spaces=spaces, exact_up_to=exact_up_to, base_rate=base.base_rate
    )
    return BuiltIndex(retrieval, files)


class CaseIndex:
    """The case base of a bundle, searchable in each feature space; safe to use from several threads.

    Args:
        bundle: A checked bundle.

    Raises:
        BundleError: ``bundle-index-invalid`` when cases and index files do not belong together;
            ``bundle-no-cases`` when there are no cases.
    """

    def __init__(self, bundle: Bundle) -> None:
        retrieval = bundle.manifest.retrieval
        base = parse_cases(bundle.read(retrieval.cases), name=retrieval.cases)
        self.cases = base.cases
        self.base_rate = base.base_rate
        self.exact = len(self.cases) <= retrieval.exact_up_to
        if abs(self.base_rate - retrieval.base_rate) > 1e-6:
            raise BundleError(
                f"the manifest's base_rate is {retrieval.base_rate}; its cases give {self.base_rate:.6f}",
                hint="build the index of the bundle again",
                code=INDEX_FAULT,
            )
        self._matrices = {space: _matrix(self.cases, space) for space in retrieval.spaces}
        self._indexes = {
            space: VectorIndex(bundle.read(spec.file), name=spec.file, vectors=self._matrices[space], exact=self.exact)
            for space, spec in retrieval.spaces.items()
        }

    def __len__(self) -> int:
        return len(self.cases)

    def search(
        self, space: Space, *, malignancy: float, expert_score: float, k: int, exclude: Collection[str] = ()
    ) -> tuple[SimilarCase, ...]:
        """The K nearest cases by Euclidean distance (eq. 13), nearest first, ties in the order of their case ids.

        Args:
            space: The feature space.
            malignancy: The new nodule's P, 0..1.
            expert_score: Its score, 1..5.
            k: How many; more than there are returns all.
            exclude: Case ids and patient ids to leave out: in evaluation a case must find neither itself nor
                another nodule of its own patient.

        Returns:
            At most ``k`` cases.

        Raises:
            UsageError: When ``k`` is below 1 or every case is excluded.
        """
        if k < 1:
            raise UsageError(f"k is {k}; it must be at least 1", hint="leave k out to use the bundle's")
        excluded = self._excluded(exclude)
        query = features(space, malignancy, expert_score)
        candidates = self._candidates(space, query, k, excluded)
        difference = self._matrices[space][candidates].astype(np.float64) - query.astype(np.float64)
        distances = np.sqrt((difference**2).sum(axis=1))
        # Cases are sorted by id, so the row number stands for it.
        order = np.lexsort((candidates, distances))[:k]
        return tuple(_similar(self.cases[candidates[i]], float(distances[i])) for i in order)

    def _excluded(self, exclude: Collection[str]) -> NDArray[np.bool_]:
        names = {exclude} if isinstance(exclude, str) else set(exclude)
        mask = np.array([bool(names) and not names.isdisjoint((case.case_id, case.patient_id)) for case in self.cases])
        if mask.all():
            raise UsageError(
                f"all {len(self.cases)} cases are excluded", hint="exclude fewer cases or patients from retrieval"
            )
        return mask

    def _candidates(
        self, space: Space, query: NDArray[np.float32], k: int, excluded: NDArray[np.bool_]
    ) -> NDArray[np.intp]:
        """Rows that certainly hold the K nearest: fetched ever wider until the last one is clearly beyond the K-th."""
        total = len(self.cases)
        count = min(total, k + int(excluded.sum()) + 1)
        while True:
            labels, squared = self._indexes[space].nearest(query, count)
            kept = ~excluded[labels]
            if count == total:
                return labels[kept]
            if np.count_nonzero(kept) >= k:
                boundary = float(np.sort(squared[kept])[k - 1]) * (1.0 + TIE_TOLERANCE) + TIE_FLOOR
                if squared.max() > boundary:
                    return labels[kept]
            count = min(total, count * 2)


def mean_label(similar: Sequence[SimilarCase]) -> float:
    """The diagnosis of eq. 14: the share of malignant ones among the retrieved cases."""
    return sum(case.label for case in similar) / len(similar)


def _similar(case: Case, distance: float) -> SimilarCase:
    return SimilarCase(
        case_id=case.case_id,
        patient_id=case.patient_id,
        distance=distance,
        label=case.label,
        label_source=case.label_source,
        label_certainty=case.label_certainty,
        malignancy=case.malignancy,
        expert_score=case.expert_score,
        reader_scores=case.reader_scores,
        diameter_mm=case.diameter_mm,
    )
