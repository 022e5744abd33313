"""hnswlib, wrapped: write an index to bytes, and read one only after it proved to be what its bundle says.

hnswlib parses its files without checks of its own, from a path. The bytes come from a checked bundle, their header is
compared with the vectors they must hold, and they pass through a private temporary file that is gone before a query.
"""

from __future__ import annotations

import struct
import tempfile
import threading
from pathlib import Path

import hnswlib
import numpy as np
from numpy.typing import NDArray

from nodule_diag.case_base import INDEX_FAULT
from nodule_diag.errors import BundleError

HNSW_M = 16
"""Links a node; hnswlib's documentation gives 2..100 and calls 12..48 right for most uses. Two dimensions need few."""
HNSW_EF_CONSTRUCTION = 200
"""Candidates while building: hnswlib's default. More would refine links that two dimensions hardly need."""
HNSW_EF_SEARCH = 200
"""Candidates while searching: ten times the K of the paper, which found every neighbour in the tests; a search also
never uses fewer than it must return."""
HNSW_SEED = 0
"""Levels are drawn from this seed by one thread, so that a graph depends on its vectors alone."""


def serialise_index(vectors: NDArray[np.float32], *, exact: bool) -> bytes:
    """Build an index and return what hnswlib would save.

    Args:
        vectors: (N, dim) float32; a vector's row is its label.
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
        index.add_items(vectors, np.arange(count), num_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index")
        index.save_index(str(path))
        return path.read_bytes()


class VectorIndex:
    """The nearest vectors of a bundle's index; safe to use from several threads.

    Args:
        data: The index file's bytes.
        name: Its path in the bundle, for messages.
        vectors: (N, dim) float32 that it must hold, row = label.
        exact: Whether it is a brute-force index.

    Raises:
        BundleError: ``bundle-index-invalid`` when the file is not an index of these vectors.
    """

    def __init__(self, data: bytes, *, name: str, vectors: NDArray[np.float32], exact: bool) -> None:
        self._vectors = vectors
        self._exact = exact
        self._lock = threading.Lock()
        (_check_exact_file if exact else _check_graph_header)(data, name=name, vectors=vectors)
        self._index = (hnswlib.BFIndex if exact else hnswlib.Index)(space="l2", dim=vectors.shape[1])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "index")
            path.write_bytes(data)
            try:
                self._index.load_index(str(path))
            except RuntimeError as error:
                raise _fault(name, f"hnswlib cannot read it: {error}") from error
        if not exact:
            self._check_graph_content(name)

    def nearest(self, query: NDArray[np.float32], count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The ``count`` nearest vectors.

        Args:
            query: (dim,) float32.
            count: At most as many as there are vectors.

        Returns:
            Their rows and their squared distances as float32 arithmetic gives them, in no settled order.
        """
        if count < len(self._vectors):
            found = self._query(query, count)
            if found is not None:
                return found
        squared = ((self._vectors - query) ** 2).sum(axis=1)
        rows = np.argsort(squared, kind="stable")[:count]
        return rows, squared[rows].astype(np.float64)

    def _query(self, query: NDArray[np.float32], count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]] | None:
        """Ask hnswlib; None when a graph is too poorly connected to reach so many."""
        with self._lock:  # ef is a setting of the index, not of the query
            if not self._exact:
                self._index.set_ef(max(count, HNSW_EF_SEARCH))
            try:
                labels, squared = self._index.knn_query(query[None, :], k=count, num_threads=1)
            except RuntimeError:
                if self._exact:
                    raise
                return None
        return labels[0].astype(np.intp), squared[0].astype(np.float64)

    def _check_graph_content(self, name: str) -> None:
        """Every row must hold its case's vector: an index of other cases would answer, and answer wrongly."""
        try:
            stored = np.asarray(self._index.get_items(np.arange(len(self._vectors))), dtype=np.float32)
        except RuntimeError as error:
            raise _fault(name, f"it does not hold the rows of the case base: {error}") from error
        _require_same(name, stored, self._vectors)


def _check_exact_file(data: bytes, *, name: str, vectors: NDArray[np.float32]) -> None:
    """``BruteforceSearch``: capacity, bytes a row, rows; then the rows, each a vector and an 8-byte label."""
    count, dim = vectors.shape
    header, row = struct.Struct("=QQQ"), 4 * dim + 8
    if len(data) < header.size:
        raise _fault(name, "it is too short")
    found = header.unpack_from(data)
    if found != (count, row, count) or len(data) != header.size + count * row:
        raise _fault(name, f"its header says {found} for {count} cases of {dim} numbers and {len(data)} bytes")
    rows = np.frombuffer(data, dtype=[("vector", "<f4", (dim,)), ("label", "<u8")], offset=header.size)
    if not np.array_equal(rows["label"], np.arange(count)):
        raise _fault(name, "its labels are not the rows of the case base")
    _require_same(name, rows["vector"], vectors)


def _check_graph_header(data: bytes, *, name: str, vectors: NDArray[np.float32]) -> None:
    """``HierarchicalNSW``: level offset, capacity, rows, bytes a row, offset of the label, offset of the vector."""
    count, dim = vectors.shape
    header = struct.Struct("=QQQQQQ")
    if len(data) < header.size:
        raise _fault(name, "it is too short")
    _, capacity, rows, row_bytes, label_offset, data_offset = header.unpack_from(data)
    consistent = label_offset == data_offset + 4 * dim and row_bytes == label_offset + 8
    if (capacity, rows) != (count, count) or not consistent or len(data) < count * row_bytes:
        raise _fault(name, f"its header says {rows} rows of {row_bytes} bytes for {count} cases of {dim} numbers")


def _require_same(name: str, stored: NDArray[np.float32], vectors: NDArray[np.float32]) -> None:
    same = np.all(stored == vectors, axis=1)
    if not same.all():
        raise _fault(name, f"row {int(np.argmin(same))} is not the vector of that case")


def _fault(name: str, why: str) -> BundleError:
    return BundleError(
        f"{name} is not an index of the bundle's cases: {why}",
        hint="build the index of the bundle again",
        code=INDEX_FAULT,
    )
