"""Similar diagnosed cases (paper 3.3): an exact search over what the model said about each case.

A nodule is one or two numbers here: CNet's probability P, RNet's normalised score ``(expert_score - 1) / 4``, or both.
A search structure proposes vectors; their order is settled in float64 by (distance, case id), and the boundary at the
K-th place is widened until no tie is cut, so that the answer is the one that an exhaustive sort gives.

Up to ``exact_up_to`` cases hnswlib compares every one, in each space. Above, distinct vectors are searched by bisection
on a line and by boxes in the plane, which need no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nodule_diag.bundle import Bundle, IndexSpec, RetrievalSpec
from nodule_diag.cases.case import INDEX_FAULT, Case
from nodule_diag.cases.files import parse_cases, to_columns, to_json
from nodule_diag.cases.index_file import index_fault
from nodule_diag.cases.table import CaseTable
from nodule_diag.cases.vector_groups import VectorGroups
from nodule_diag.cases.vector_index import HnswlibIndex, LineIndex, PlaneIndex, VectorIndex, serialise_index
from nodule_diag.errors import BundleError, UsageError
from nodule_diag.results import SPACES, CaseBaseIdentity, SimilarCase, Space

EXACT_SEARCH_LIMIT = 10_000
"""Cases up to which every one is compared, and up to which the case base is a file that people can read. Above,
bisection and boxes are faster, and columns load sooner."""
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


def _matrix(table: CaseTable, space: Space) -> NDArray[np.float32]:
    """(N, dim) float32 :func:`features` of all cases."""
    parts = {"machine": table.malignancy, "expert": (table.expert_score - 1.0) / 4.0}
    return np.stack([parts[name] for name in space.split("+")], axis=1).astype(np.float32)


@dataclass(frozen=True)
class BuiltIndex:
    """What :func:`build_index` adds to a bundle; :class:`CaseIndex` can load it as it is.

    Attributes:
        retrieval: The manifest's ``retrieval``.
        files: Content by relative path: the cases and the hnswlib files.
    """

    retrieval: RetrievalSpec
    files: Mapping[str, bytes]

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return self.files[name]


def build_index(
    cases: Sequence[Case], *, k: int = DEFAULT_K, exact_up_to: int = EXACT_SEARCH_LIMIT, folder: str = "index"
) -> BuiltIndex:
    """Make the case base and its indexes, ready to be written into a bundle.

    The result depends on the cases alone, not on their order. Of very many cases, :meth:`CaseTable.of_columns` makes
    the table without an object for each::

        built = build_index(CaseTable.of_columns(case_id=..., patient_id=..., ...))
        CaseIndex(built).search("machine+expert", malignancy=0.7, expert_score=4.0, k=20)

    Args:
        cases: The diagnosed cases.
        k: How many cases make a diagnosis.
        exact_up_to: Up to so many cases the files are ``cases.json`` and three brute-force indexes; above,
            ``cases.npz`` alone.
        folder: Where in the bundle the files go.

    Returns:
        The manifest's part and the files.

    Raises:
        BundleError: Without cases, or when two have the same id.
    """
    table = CaseTable.of(cases)
    exact = len(table) <= exact_up_to
    cases_file = f"{folder}/cases.json" if exact else f"{folder}/cases.npz"
    files = {cases_file: to_json(table) if exact else to_columns(table)}
    spaces: dict[Space, IndexSpec] = {}
    for space, dim in SPACES.items():
        if not exact:
            spaces[space] = IndexSpec(dim=dim)
            continue
        file = f"{folder}/{space.replace('+', '_')}.hnsw"
        files[file] = serialise_index(_matrix(table, space))
        spaces[space] = IndexSpec(file=file, dim=dim)
    retrieval = RetrievalSpec(k=k, cases=cases_file, spaces=spaces, exact_up_to=exact_up_to, base_rate=table.base_rate)
    return BuiltIndex(retrieval, files)


class CaseIndex:
    """The case base of a bundle, searchable in each feature space; safe to use from several threads.

    Args:
        source: A checked bundle, or what :func:`build_index` made.

    Attributes:
        cases: All cases, in the order of their ids.
        base_rate: Share of malignant cases.
        identity: What it is called, its hash and how many cases of each kind it holds.
        exhaustive: Whether hnswlib compares every case, up to ``exact_up_to`` of them.

    Raises:
        BundleError: ``bundle-index-invalid`` when cases and index files do not belong together;
            ``bundle-no-cases`` when there are no cases.
    """

    def __init__(self, source: Bundle | BuiltIndex) -> None:
        retrieval = source.manifest.retrieval if isinstance(source, Bundle) else source.retrieval
        data = source.read(retrieval.cases)
        self.cases = parse_cases(data, name=retrieval.cases)
        self.identity = CaseBaseIdentity(
            name=source.manifest.name if isinstance(source, Bundle) else "",
            sha256=hashlib.sha256(data).hexdigest(),
            count=len(self.cases),
            malignant=round(self.cases.base_rate * len(self.cases)),
        )
        self.base_rate = self.cases.base_rate
        self.exhaustive = len(self.cases) <= retrieval.exact_up_to
        if abs(self.base_rate - retrieval.base_rate) > 1e-6:
            raise BundleError(
                f"the manifest's base_rate is {retrieval.base_rate}; its cases give {self.base_rate:.6f}",
                hint="build the index of the bundle again",
                code=INDEX_FAULT,
            )
        self._spaces: dict[Space, tuple[VectorGroups, VectorIndex]] = {}
        for space, spec in retrieval.spaces.items():
            vectors = _matrix(self.cases, space)
            groups = VectorGroups.apart(vectors) if self.exhaustive else VectorGroups.of(vectors)
            self._spaces[space] = groups, self._open(source, spec, groups.vectors)

    def _open(self, source: Bundle | BuiltIndex, spec: IndexSpec, vectors: NDArray[np.float32]) -> VectorIndex:
        """The search structure of a space: of few cases hnswlib's, which has a file, of many one that has none."""
        if not self.exhaustive:
            if spec.file is not None:
                raise index_fault(spec.file, f"{len(self)} cases are searched without a file")
            return LineIndex(vectors) if spec.dim == 1 else PlaneIndex(vectors)
        if spec.file is None:
            raise index_fault("the manifest", f"a space of {len(self)} cases needs a file")
        return HnswlibIndex(source.read(spec.file), name=spec.file, vectors=vectors)

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
        rows, distances = self._nearest(space, features(space, malignancy, expert_score), k, excluded)
        return self.cases.similar(rows, distances)

    def _excluded(self, exclude: Collection[str]) -> NDArray[np.intp]:
        """Rows to leave out, ascending."""
        if not exclude:
            return np.zeros(0, dtype=np.intp)
        rows = self.cases.rows_named({exclude} if isinstance(exclude, str) else set(exclude))
        if len(rows) == len(self):
            raise UsageError(
                f"all {len(self)} cases are excluded", hint="exclude fewer cases or patients from retrieval"
            )
        return rows

    def _nearest(
        self, space: Space, query: NDArray[np.float32], k: int, excluded: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Rows and distances of the K nearest: fetched ever wider until what is left out is beyond the K-th."""
        groups, index = self._spaces[space]
        wanted = k + len(excluded)
        count = min(len(groups), wanted + 1)
        while True:
            places, distances, beyond = index.nearest(query, count)
            rows, counts = groups.members(places, limit=wanted)
            distances = np.repeat(distances, counts)
            if len(excluded):
                kept = ~np.isin(rows, excluded)
                rows, distances = rows[kept], distances[kept]
            # Cases are sorted by id, so the row number stands for it.
            order = np.lexsort((rows, distances))[:k]
            rows, distances = rows[order], distances[order]
            if count == len(groups) or (len(rows) == k and beyond > distances[-1]):
                return rows, distances
            count = min(len(groups), count * 2)


def mean_label(similar: Sequence[SimilarCase]) -> float:
    """The diagnosis of eq. 14: the share of malignant ones among the retrieved cases."""
    return sum(case.label for case in similar) / len(similar)
