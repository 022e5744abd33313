"""The search structures of the feature spaces: hnswlib's two, and bisection where a space is a line.

Each proposes vectors and states how near those that it left out can be; :mod:`nodule_diag.retrieval` settles the order.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Protocol

import hnswlib
import numpy as np
from numpy.typing import NDArray

from nodule_diag.index_file import check_exact_file, check_graph_file, index_fault

GRAPH_SCALE = np.float32(2.0**60)
"""Vectors are multiplied by this in a graph. A power of two changes no digit, and squares of differences down to 1e-37
no longer vanish in float32: a model that is sure puts its probabilities that close to 0."""
HNSW_M = 12
"""Links a node; hnswlib's documentation calls 12..48 right for most uses, and two dimensions need few. From 8 to 16
changes neither recall nor time here, only the size."""
HNSW_EF_CONSTRUCTION = 100
"""Candidates while building. 200 finds no more neighbours in two dimensions and takes twice as long."""
HNSW_EF_SEARCH = 64
"""Candidates while searching, at least; twice what is asked for where that is more. 32 loses one neighbour in 4,000."""
HNSW_SEED = 0
"""Levels are drawn from this seed by one thread, so that a graph depends on its vectors alone."""
STRIP_THICKNESS = 8
"""How many vectors lie side by side in a strip of the order of insertion: about the reach of a search."""
FIRST_SHARE = 0.05
"""Share of vectors that a graph is begun with, all over the space."""
FLOAT32_SLACK = 1e-5
"""Relative slack on hnswlib's float32 squared distances: some eighty float32 roundings."""
FLOAT32_FLOOR = 1e-30
"""Absolute slack on them: what float32 underflow hides."""

Found = tuple[NDArray[np.intp], float]
"""Places of vectors, in no settled order, and a distance that no vector left out is nearer than."""


class VectorIndex(Protocol):
    """The nearest vectors to a query; safe to use from several threads."""

    def nearest(self, query: NDArray[np.float32], count: int) -> Found:
        """At least the ``count`` nearest vectors to a (dim,) query; ``count`` is at most the number of vectors."""


class LineIndex:
    """One dimension: the nearest of sorted numbers stand side by side, so bisection finds them all, exactly.

    HNSW could serve a line too. Bisection is exact, takes no file and no building, and is faster.

    Args:
        vectors: (U, 1) float32, strictly ascending.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._values = vectors[:, 0]

    def nearest(self, query: NDArray[np.float32], count: int) -> Found:
        """The ``count`` vectors on either side: see :class:`VectorIndex`."""
        middle = int(np.searchsorted(self._values, query[0]))
        low, high = max(0, middle - count), min(len(self._values), middle + count)
        below = float(query[0]) - float(self._values[low - 1]) if low else np.inf
        above = float(self._values[high]) - float(query[0]) if high < len(self._values) else np.inf
        return np.arange(low, high), min(below, above)


class HnswlibIndex:
    """An index file of a bundle; safe to use from several threads.

    Args:
        data: Its bytes.
        name: Its path in the bundle, for messages.
        vectors: (U, dim) float32 that it must hold, row = label; distinct ones for a graph.
        exact: Whether it is a brute-force index, and not an HNSW graph.

    Raises:
        BundleError: ``bundle-index-invalid`` when the file is not an index of these vectors.
    """

    def __init__(self, data: bytes, *, name: str, vectors: NDArray[np.float32], exact: bool) -> None:
        self._vectors = vectors
        self._scale = np.float32(1.0) if exact else GRAPH_SCALE
        self._exact = exact
        self._lock = threading.Lock()
        self._ef = 0
        (check_exact_file if exact else check_graph_file)(data, name=name, vectors=vectors * self._scale)
        self._index = (hnswlib.BFIndex if exact else hnswlib.Index)(space="l2", dim=vectors.shape[1])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "index")
            path.write_bytes(data)
            try:
                self._index.load_index(str(path))
            except RuntimeError as error:
                raise index_fault(name, f"hnswlib cannot read it: {error}") from error

    def nearest(self, query: NDArray[np.float32], count: int) -> Found:
        """The ``count`` nearest vectors: see :class:`VectorIndex`. A graph's are the nearest that it found."""
        if count < len(self._vectors):
            found = self._query(query * self._scale, count)
            if found is not None:
                return found
        squared = ((self._vectors.astype(np.float64) - query.astype(np.float64)) ** 2).sum(axis=1)
        places = np.argsort(squared, kind="stable")
        return places[:count], float(np.sqrt(squared[places[count]])) if count < len(places) else np.inf

    def _query(self, query: NDArray[np.float32], count: int) -> Found | None:
        """Ask hnswlib; None when a graph is too poorly connected to reach so many."""
        with self._lock:  # ef is a setting of the index, not of the query
            ef = max(2 * count, HNSW_EF_SEARCH)
            if not self._exact and ef != self._ef:
                self._index.set_ef(ef)
                self._ef = ef
            try:
                labels, squared = self._index.knn_query(query[None, :], k=count, num_threads=1)
            except RuntimeError:
                if self._exact:
                    raise
                return None
        furthest = max(float(squared.max()) * (1.0 - FLOAT32_SLACK) - FLOAT32_FLOOR, 0.0)
        return labels[0].astype(np.intp), float(np.sqrt(furthest)) / float(self._scale)


def serialise_index(vectors: NDArray[np.float32], *, exact: bool) -> bytes:
    """Build an hnswlib index and return what hnswlib would save.

    Args:
        vectors: (U, dim) float32; a vector's row is its label. Distinct ones for a graph.
        exact: A brute-force index, or an HNSW graph.

    Returns:
        The bytes of the file.
    """
    count, dim = vectors.shape
    if exact:
        index = hnswlib.BFIndex(space="l2", dim=dim)
        index.init_index(max_elements=count)
        index.add_items(vectors, np.arange(count))
    else:
        index = hnswlib.Index(space="l2", dim=dim)
        index.init_index(max_elements=count, M=HNSW_M, ef_construction=HNSW_EF_CONSTRUCTION, random_seed=HNSW_SEED)
        order = _insertion_order(vectors)
        index.add_items(vectors[order] * GRAPH_SCALE, order, num_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index")
        index.save_index(str(path))
        return path.read_bytes()


def _insertion_order(vectors: NDArray[np.float32]) -> NDArray[np.intp]:
    """An order in which neighbours in space are neighbours in memory, which hnswlib lays out as vectors come.

    Strips of the first coordinate, each along the second. A random sample goes first, so that every later vector finds
    links in all directions. Against a random order this halves the time of building and takes a third off a query's.

    Args:
        vectors: (U, dim), ascending.
    """
    count = len(vectors)
    strips = np.arange(count) // max(1, round(STRIP_THICKNESS * count**0.5))
    order = np.lexsort((vectors[:, -1], strips))
    first = np.random.default_rng(HNSW_SEED).random(count) < FIRST_SHARE
    return np.concatenate((order[first], order[~first]))
