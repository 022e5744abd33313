"""The distinct points of a feature space, and hnswlib's comparison with every one of them.

Half of a case base may have the same score. If each case were a point, a search would have to look at all of them, and
then choose by id. So the index holds distinct points only, and this module finds the cases at each point.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import hnswlib
import numpy as np
from numpy.typing import NDArray

FLOAT32_SLACK = 1e-5
"""Relative slack on hnswlib's float32 squared distances: some eighty float32 roundings."""
FLOAT32_FLOOR = 1e-30
"""Absolute slack on them: what float32 underflow hides."""


class Near(NamedTuple):
    """Cases that may be among the nearest.

    Attributes:
        rows: (F,) rows of the case base, in no defined order.
        distances: (F,) float64, their distances from the query (paper eq. 13).
        beyond: No case that was left out is nearer than this.
    """

    rows: NDArray[np.intp]
    distances: NDArray[np.float64]
    beyond: float


class Points:
    """Distinct points and the cases at each; safe to use from several threads.

    Args:
        vectors: (N, dim) float32; row i is the vector of case i.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        order, starts = _grouped(vectors)
        self._rows, self._starts = order, np.append(starts, len(order))
        self._points = np.ascontiguousarray(vectors[order[starts]])
        self._lock = threading.Lock()
        self._index = hnswlib.BFIndex(space="l2", dim=vectors.shape[1])
        self._index.init_index(max_elements=len(self))
        # Shuffled: in ascending order, each point up to the query is nearer than all points before it, and hnswlib
        # would update its list of the nearest at every point.
        shuffled = np.random.default_rng(0).permutation(len(self))
        self._index.add_items(self._points[shuffled], shuffled)

    def __len__(self) -> int:
        return len(self._points)

    def nearest(self, query: NDArray[np.float32], count: int, *, limit: int) -> Near:
        """The cases at the ``count`` points that are nearest to a query.

        Args:
            query: (dim,).
            count: At most the number of points.
            limit: At most so many cases of each point, the first in the order of rows.
        """
        if count == len(self):
            places, beyond = np.arange(count), np.inf
        else:
            with self._lock:
                labels, squared = self._index.knn_query(query[None, :], k=count, num_threads=1)
            places = labels[0].astype(np.intp)
            beyond = max(float(squared.max()) * (1.0 - FLOAT32_SLACK) - FLOAT32_FLOOR, 0.0) ** 0.5
        apart = self._points[places].astype(np.float64) - query
        starts = self._starts[places]
        counts = np.minimum(self._starts[places + 1] - starts, limit)
        ends = np.cumsum(counts)
        rows = self._rows[np.repeat(starts - ends + counts, counts) + np.arange(ends[-1])]
        return Near(rows, np.repeat(np.sqrt((apart * apart).sum(axis=1)), counts), beyond)


def _grouped(vectors: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows in the order of their vectors, ascending where those are equal, and where each distinct vector begins."""
    order = np.lexsort(vectors.T[::-1])  # stable
    ordered = vectors[order]
    new = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order, np.flatnonzero(np.concatenate(([True], new)))
