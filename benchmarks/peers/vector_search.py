"""Engines that find the nearest cases: nodule-diag's case base, numpy, a graph of hnswlib, and two indexes of faiss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import faiss
import hnswlib
import numpy as np
from numpy.typing import NDArray

from nodule_diag.cases import Case, CaseBase, CaseIndex
from nodule_diag.results import SPACES, Space

Float = NDArray[np.float32]
FILE = "cases.sqlite"

HNSW_M, HNSW_EF_CONSTRUCTION, HNSW_EF_SEARCH = 16, 200, 64
"""hnswlib's own defaults for building, and several times K candidates for searching; for both graphs."""


@dataclass(frozen=True, eq=False)
class Base:
    """Made-up cases.

    Attributes:
        points: (N, 2) float32: P, and (score - 1) / 4, as a bundle has them.
        duplicates: Share of rows that repeat another exactly.
    """

    points: Float
    duplicates: float = 0.0

    @classmethod
    def random(cls, count: int, *, seed: int, duplicates: float = 0.0) -> Base:
        """Points along the diagonal with spread, since P and score go together."""
        rng = np.random.default_rng(seed)
        malignancy = rng.beta(0.7, 0.7, count)
        score = np.clip(malignancy + rng.normal(0.0, 0.15, count), 0.0, 1.0)
        points = np.stack([malignancy, score], axis=1).astype(np.float32)
        rows = rng.permutation(count)
        copies, originals = np.split(rows, [int(duplicates * count)])
        points[copies] = points[rng.choice(originals, len(copies))]
        return cls(points, duplicates)

    def __len__(self) -> int:
        return len(self.points)

    def queries(self, count: int) -> Float:
        """(count, 2) float32: new nodules that are not cases; with duplicates, the first one is a case."""
        queries = Base.random(count, seed=len(self) + 1).points
        return np.concatenate([self.points[:1], queries[1:]]) if self.duplicates else queries

    def distances(self, query: Float, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Distances from a query to some rows, in float64."""
        difference = self.points[rows].astype(np.float64) - query.astype(np.float64)
        return np.asarray(np.sqrt((difference**2).sum(axis=1)))

    def farthest_of_nearest(self, queries: Float, k: int) -> NDArray[np.float64]:
        """(Q,) distance of the k-th nearest row, from a comparison with every row in float64."""
        rows = np.arange(len(self))
        last = min(k, len(self)) - 1
        return np.array([np.partition(self.distances(query, rows), last)[last] for query in queries])


def exhaustive(base: Base, space: Space, query: Float, k: int) -> NDArray[np.intp]:
    """Rows of the k nearest, ties by row: every case compared and sorted in float64, as the paper's eq. 13 reads."""
    parts = {"machine": 0, "expert": 1}
    columns = [parts[name] for name in space.split("+")]
    apart = base.points[:, columns].astype(np.float64) - query[columns].astype(np.float64)
    distances = np.sqrt((apart**2).sum(axis=1))
    last = min(k, len(base)) - 1
    near = np.flatnonzero(distances <= np.partition(distances, last)[last])
    return near[np.lexsort((near, distances[near]))][:k]


class Engine(Protocol):
    """Something that can be built, saved, loaded and queried."""

    @property
    def name(self) -> str:
        """Name in results."""

    def build(self, base: Base) -> None:
        """Build it from cases."""

    def save(self, folder: Path) -> None:
        """Write it into an empty folder."""

    def forget(self) -> None:
        """Release the memory."""

    def load(self, folder: Path) -> None:
        """Read it again, ready for queries."""

    def nearest(self, query: Float, k: int) -> NDArray[np.intp]:
        """Rows of the k nearest."""


class OwnCases:
    """The SDK: a case base's file, ``CaseBase.open`` and ``CaseIndex``, ``search``."""

    name = "nodule-diag"

    def __init__(self) -> None:
        self._base: CaseBase | None = None
        self._cases: CaseIndex | None = None

    @property
    def base(self) -> CaseBase:
        """The case base that was built."""
        if self._base is None:
            raise RuntimeError("nothing is built")
        return self._base

    def build(self, base: Base) -> None:
        """Build cases with ids in the order of their rows."""
        cases = (
            Case(
                case_id=f"{row:08}",
                patient_id=f"{row // 2:08}",
                label=int(malignancy > 0.5),
                label_source="made up",
                label_certainty="nodule",
                malignancy=malignancy,
                expert_score=1.0 + 4.0 * score,
            )
            for row, (malignancy, score) in enumerate(base.points.tolist())
        )
        self._base = CaseBase.of(cases, name="made up", model_sha256=64 * "0")

    def save(self, folder: Path) -> None:
        """Write one file."""
        self.base.save(folder / FILE)

    def forget(self) -> None:
        """Drop what was built."""
        self._base = self._cases = None

    def load(self, folder: Path) -> None:
        """Read it with every check."""
        self._cases = CaseIndex(CaseBase.open(folder / FILE))

    def nearest(self, query: Float, k: int) -> NDArray[np.intp]:
        """Search through the public function."""
        return self._search("machine+expert", query, k)

    def all_spaces(self, query: Float, k: int) -> dict[Space, NDArray[np.intp]]:
        """In each feature space, as a prediction asks."""
        return {space: self._search(space, query, k) for space in SPACES}

    def _search(self, space: Space, query: Float, k: int) -> NDArray[np.intp]:
        if self._cases is None:
            raise RuntimeError("nothing is loaded")
        p, score = float(query[0]), 1.0 + 4.0 * float(query[1])
        found = self._cases.search(space, malignancy=p, expert_score=score, k=k)
        return np.array([int(case.case_id) for case in found], dtype=np.intp)


class Numpy:
    """Every case compared, in float32."""

    name = "numpy"
    _points: Float
    _columns: dict[Space, Float]

    def __init__(self) -> None:
        self.forget()

    def build(self, base: Base) -> None:
        """Keep the two numbers separately, too, as a search of a single one needs them."""
        self._points = base.points
        self._columns = {"machine": base.points[:, 0].copy(), "expert": base.points[:, 1].copy()}

    def save(self, folder: Path) -> None:
        """Write one ``.npy`` file."""
        np.save(folder / "points.npy", self._points)

    def forget(self) -> None:
        """Drop the points."""
        self._points, self._columns = np.empty((0, 2), dtype=np.float32), {}

    def load(self, folder: Path) -> None:
        """Read it into memory."""
        self.build(Base(np.load(folder / "points.npy")))

    def nearest(self, query: Float, k: int) -> NDArray[np.intp]:
        """Distances, then a partition."""
        squared = ((self._points - query) ** 2).sum(axis=1)
        return np.argpartition(squared, k - 1)[:k] if k < len(squared) else np.arange(len(squared))

    def all_spaces(self, query: Float, k: int) -> dict[Space, NDArray[np.intp]]:
        """In each feature space, exhaustively."""
        rows: dict[Space, NDArray[np.intp]] = {"machine+expert": self.nearest(query, k)}
        for (space, column), value in zip(self._columns.items(), query, strict=True):
            apart = np.abs(column - value)
            rows[space] = np.argpartition(apart, k - 1)[:k] if k < len(apart) else np.arange(len(apart))
        return rows


class Hnswlib:
    """A graph in hnswlib: approximate."""

    name = "hnswlib HNSW"

    def __init__(self) -> None:
        self._index: Any = None

    def build(self, base: Base) -> None:
        """Add the points."""
        self._index = hnswlib.Index(space="l2", dim=base.points.shape[1])
        self._index.init_index(len(base), M=HNSW_M, ef_construction=HNSW_EF_CONSTRUCTION)
        self._index.add_items(base.points)

    def save(self, folder: Path) -> None:
        """Write a file of hnswlib's own format."""
        self._index.save_index(str(folder / "index.hnsw"))

    def forget(self) -> None:
        """Drop the index."""
        self._index = None

    def load(self, folder: Path) -> None:
        """Read the file."""
        self._index = hnswlib.Index(space="l2", dim=2)
        self._index.load_index(str(folder / "index.hnsw"))
        self._index.set_ef(HNSW_EF_SEARCH)

    def nearest(self, query: Float, k: int) -> NDArray[np.intp]:
        """Run one query."""
        rows, _ = self._index.knn_query(query[None], k=min(k, self._index.get_current_count()), num_threads=1)
        return np.asarray(rows[0], dtype=np.intp)


class Faiss:
    """``IndexFlatL2``, or ``IndexHNSWFlat`` with hnswlib's parameters."""

    def __init__(self, *, graph: bool) -> None:
        self.name = "faiss HNSW" if graph else "faiss flat"
        self._graph = graph
        self._index: Any = None

    def build(self, base: Base) -> None:
        """Add the points."""
        if self._graph:
            self._index = faiss.IndexHNSWFlat(base.points.shape[1], HNSW_M)
            self._index.hnsw.efConstruction = HNSW_EF_CONSTRUCTION
        else:
            self._index = faiss.IndexFlatL2(base.points.shape[1])
        self._index.add(base.points)

    def save(self, folder: Path) -> None:
        """Write a file of faiss's own format."""
        faiss.write_index(self._index, str(folder / "index.faiss"))

    def forget(self) -> None:
        """Drop the index."""
        self._index = None

    def load(self, folder: Path) -> None:
        """Read the file."""
        self._index = faiss.read_index(str(folder / "index.faiss"))
        if self._graph:
            self._index.hnsw.efSearch = HNSW_EF_SEARCH

    def nearest(self, query: Float, k: int) -> NDArray[np.intp]:
        """Run one query."""
        _, rows = self._index.search(query[None], k)
        return np.asarray(rows[0][rows[0] >= 0], dtype=np.intp)


def engines() -> Iterator[Engine]:
    """All engines, nodule-diag first."""
    yield OwnCases()
    yield Numpy()
    yield Hnswlib()
    yield Faiss(graph=False)
    yield Faiss(graph=True)
