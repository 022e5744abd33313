"""The search structures of the feature spaces: hnswlib's comparison with every vector, bisection, and packed boxes.

Each proposes vectors and states how near those that it left out can be; :mod:`nodule_diag.retrieval` settles the order.
"""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import hnswlib
import numpy as np
from numpy.typing import NDArray

from nodule_diag.index_file import check_exact_file, index_fault
from nodule_diag.vector_groups import ranges

BOX_VECTORS = 128
"""Vectors of a box; there are about as many boxes in a strip as strips."""
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


class PlaneIndex:
    """Two dimensions: vectors in boxes, of which a query looks into those that can hold one of the nearest. Exact.

    The boxes are packed by sort-tile-recursive (Leutenegger, Lopez and Edgington, ICDE 1997): strips of equally many
    vectors along the first coordinate, each cut into boxes along the second. A graph, such as hnswlib's, is only
    approximate: of a million cases with many scores of exactly 1 or 5 it misses one neighbour in two hundred, and one
    built in the order of the vectors one in thirty. A search that comes upon such a dense line does not leave it again.

    Args:
        vectors: (U, 2) float32, ascending by the first coordinate.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        count = len(vectors)
        width = -(-count // max(1, round((count / BOX_VECTORS) ** 0.5)))
        begins = np.arange(0, count, width)
        boxes = [np.arange(begin, min(begin + width, count), BOX_VECTORS) for begin in begins]
        self._places = np.lexsort((vectors[:, 1], np.arange(count) // width))
        self._x, self._y = (axis[self._places].astype(np.float64) for axis in vectors.T)
        self._strips = _Spans.of(self._x, begins)
        self._strip_boxes = np.cumsum([0, *map(len, boxes)])
        self._starts = np.concatenate(boxes)
        self._counts = np.diff(self._starts, append=count)
        self._box_x, self._box_y = (_Spans.of(axis, self._starts) for axis in (self._x, self._y))

    def nearest(self, query: NDArray[np.float32], count: int) -> Found:
        """The ``count`` nearest, and those as far as the last of them: see :class:`VectorIndex`."""
        x, y = query.tolist()
        to_strips = self._strips.squared(x)
        home = int(to_strips.argmin())
        bound = self._bound(x, y, self._to_boxes(x, y, home, home), home, count)
        # Strips lie in order, so those that are near enough lie side by side.
        strips = np.flatnonzero(to_strips <= bound)
        to_boxes = self._to_boxes(x, y, int(strips[0]), int(strips[-1]))
        near = np.flatnonzero(to_boxes <= bound)
        boxes = near + self._strip_boxes[strips[0]]
        rows = ranges(self._starts[boxes], self._counts[boxes])
        squared = self._squared(x, y, rows)
        found = squared <= np.partition(squared, count - 1)[count - 1]
        to_strips[strips] = to_boxes[near] = np.inf
        left_out = (squared[~found].min(initial=np.inf), to_boxes.min(), to_strips.min())
        return self._places[rows[found]], float(min(left_out)) ** 0.5

    def _bound(self, x: float, y: float, to_boxes: NDArray[np.float64], strip: int, count: int) -> float:
        """A squared distance within which ``count`` vectors lie: in the nearest box of a strip, or round it."""
        some = max(BOX_VECTORS, count)
        box = self._strip_boxes[strip] + to_boxes.argmin()
        start = max(0, min(int(self._starts[box]), len(self._places) - some))
        return float(np.partition(self._squared(x, y, slice(start, start + some)), count - 1)[count - 1])

    def _to_boxes(self, x: float, y: float, first: int, last: int) -> NDArray[np.float64]:
        """Squared distances from the boxes of some strips."""
        some = slice(self._strip_boxes[first], self._strip_boxes[last + 1])
        return self._box_x.squared(x, some) + self._box_y.squared(y, some)

    def _squared(self, x: float, y: float, rows: NDArray[np.intp] | slice) -> NDArray[np.float64]:
        """Squared distances from some vectors."""
        dx, dy = self._x[rows] - x, self._y[rows] - y
        return np.asarray(dx * dx + dy * dy)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Spans:
    """From where to where groups of numbers reach."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64], starts: NDArray[np.intp]) -> Self:
        return cls(low=np.minimum.reduceat(values, starts), high=np.maximum.reduceat(values, starts))

    def squared(self, at: float, some: slice = slice(None)) -> NDArray[np.float64]:
        """Squared distances of some spans from a number; 0 inside."""
        apart = np.maximum(np.maximum(self.low[some] - at, at - self.high[some]), 0.0)
        return np.asarray(apart * apart)


class HnswlibIndex:
    """hnswlib's brute-force index, which compares every vector; safe to use from several threads.

    Args:
        data: Its bytes.
        name: Its path in the bundle, for messages.
        vectors: (N, dim) float32 that it must hold, row = label.

    Raises:
        BundleError: ``bundle-index-invalid`` when the file is not an index of these vectors.
    """

    def __init__(self, data: bytes, *, name: str, vectors: NDArray[np.float32]) -> None:
        check_exact_file(data, name=name, vectors=vectors)
        self._count = len(vectors)
        self._lock = threading.Lock()
        self._index = hnswlib.BFIndex(space="l2", dim=vectors.shape[1])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "index")
            path.write_bytes(data)
            try:
                self._index.load_index(str(path))
            except RuntimeError as error:
                raise index_fault(name, f"hnswlib cannot read it: {error}") from error

    def nearest(self, query: NDArray[np.float32], count: int) -> Found:
        """The ``count`` nearest vectors: see :class:`VectorIndex`."""
        if count == self._count:
            return np.arange(count), np.inf
        with self._lock:
            labels, squared = self._index.knn_query(query[None, :], k=count, num_threads=1)
        furthest = max(float(squared.max()) * (1.0 - FLOAT32_SLACK) - FLOAT32_FLOOR, 0.0)
        return labels[0].astype(np.intp), float(np.sqrt(furthest))


def serialise_index(vectors: NDArray[np.float32]) -> bytes:
    """Build hnswlib's brute-force index and return what hnswlib would save.

    Args:
        vectors: (N, dim) float32; a vector's row is its label.

    Returns:
        The bytes of the file.
    """
    count, dim = vectors.shape
    index = hnswlib.BFIndex(space="l2", dim=dim)
    index.init_index(max_elements=count)
    index.add_items(vectors, np.arange(count))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index")
        index.save_index(str(path))
        return path.read_bytes()
