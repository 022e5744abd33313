"""The search structures of the feature spaces: hnswlib's comparison with every vector, bisection, and packed boxes.

Each proposes vectors and states how near those that it left out can be; ``retrieval`` settles the order.
"""

from __future__ import annotations

import tempfile
import threading
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import NamedTuple, Protocol

import hnswlib
import numpy as np
from numpy.typing import NDArray

from nodule_diag.cases.index_file import check_exact_file, index_fault

BOX_VECTORS = 128
"""Vectors of a box; there are about as many boxes in a strip as strips."""
ROUNDING = 1e-12
"""Relative slack on a float64 distance: more than what rounding can take from one."""
TIE = 1e-6
"""Weight of what only decides between equals."""
FLOAT32_SLACK = 1e-5
"""Relative slack on hnswlib's float32 squared distances: some eighty float32 roundings."""
FLOAT32_FLOOR = 1e-30
"""Absolute slack on them: what float32 underflow hides."""


class Found(NamedTuple):
    """What a search structure proposes.

    Attributes:
        places: (F,) places of vectors, in no settled order.
        distances: (F,) float64, theirs from the query (paper eq. 13).
        beyond: No vector that was left out is nearer than this.
    """

    places: NDArray[np.intp]
    distances: NDArray[np.float64]
    beyond: float


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
        middle = int(self._values.searchsorted(query[0]))
        low, high = max(0, middle - count), min(len(self._values), middle + count)
        below = float(query[0]) - float(self._values[low - 1]) if low else np.inf
        above = float(self._values[high]) - float(query[0]) if high < len(self._values) else np.inf
        distances = _euclidean(self._values[None, low:high].astype(np.float64), query)
        return Found(np.arange(low, high), distances, min(below, above))


class PlaneIndex:
    """Two dimensions: vectors in boxes, of which a query looks into those that can hold one of the nearest. Exact.

    The boxes are packed by sort-tile-recursive (Leutenegger, Lopez and Edgington, ICDE 1997): strips of equally many
    boxes along the first coordinate, each cut into boxes of equally many vectors along the second. A graph, such as
    hnswlib's, is only approximate: of a million cases with many scores of exactly 1 or 5 it misses one neighbour in two
    hundred, and one built in the order of the vectors one in thirty. A search that comes upon such a dense line does
    not leave it again.

    Args:
        vectors: (U, 2) float32, ascending by the first coordinate.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        count = len(vectors)
        boxes = -(-count // BOX_VECTORS)
        self._strip: int = -(-boxes // max(1, round(boxes**0.5)))  # boxes of a strip; the last one may have fewer
        width = self._strip * BOX_VECTORS
        places = np.lexsort((vectors[:, 1], np.arange(count) // width))
        starts = np.arange(0, count, BOX_VECTORS)
        points = vectors[places].T.astype(np.float64)
        self._low, self._high = (corner.reduceat(points, starts, axis=1) for corner in (np.minimum, np.maximum))
        first, last = vectors[::width, 0], vectors[[*range(width - 1, count - 1, width), count - 1], 0]
        self._strip_low, self._strip_high = first.tolist(), last.tolist()
        self._full = count // BOX_VECTORS
        missing = boxes * BOX_VECTORS - count  # in the last box, which is filled with what is never near
        self._points = np.pad(points, ((0, 0), (0, missing)), constant_values=np.inf).reshape(2, boxes, BOX_VECTORS)
        self._places = np.pad(places, (0, missing)).reshape(boxes, BOX_VECTORS)

    def nearest(self, query: NDArray[np.float32], count: int) -> Found:
        """The ``count`` nearest, and those as far as the last of them: see :class:`VectorIndex`."""
        x = float(query[0])
        corners = query.astype(np.float64)[:, None]
        home = min(bisect_left(self._strip_high, x), len(self._strip_high) - 1)
        reach = self._reach(query, self._nearest_box(corners, home), count)
        # Strips lie in order, so those that are near enough lie side by side.
        first = bisect_left(self._strip_high, x - reach)
        last = bisect_right(self._strip_low, x + reach) - 1
        near, _ = self._sides(corners, first, last)
        boxes = (near <= reach).nonzero()[0] + first * self._strip
        distances = _euclidean(self._points[:, boxes].reshape(2, -1), query)
        beyond = np.partition(distances, count - 1)[count - 1]
        found = (distances <= beyond).nonzero()[0]
        return Found(self._places[boxes].ravel()[found], distances[found], float(beyond))

    def _reach(self, query: NDArray[np.float32], box: int, count: int) -> float:
        """A distance within which ``count`` vectors lie: those in this box, and in as many more as it takes."""
        boxes = -(-count // BOX_VECTORS)
        start = max(0, min(box, self._full - boxes))
        distances = _euclidean(self._points[:, start : start + boxes].reshape(2, -1), query)
        return float(np.partition(distances, count - 1)[count - 1]) * (1.0 + ROUNDING)

    def _nearest_box(self, corners: NDArray[np.float64], strip: int) -> int:
        """Of a strip: of several that the query lies in, as on a dense line, the one that ends first."""
        near, far = self._sides(corners, strip, strip)
        return strip * self._strip + int((np.maximum(near, 0.0) + TIE * far).argmin())

    def _sides(
        self, corners: NDArray[np.float64], first: int, last: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distances to the nearest and the farthest side of the boxes of some strips, along the worse axis.

        The nearest is negative inside.
        """
        some = slice(first * self._strip, (last + 1) * self._strip)
        low, high = self._low[:, some] - corners, corners - self._high[:, some]
        return np.maximum(low, high).max(axis=0), -np.minimum(low, high).min(axis=0)


def _euclidean(points: NDArray[np.float64], query: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distances of (dim, F) points: one arithmetic for all, so that a tie is one in every structure."""
    apart = points - query[:, None]
    apart *= apart
    return np.asarray(np.sqrt(np.add.reduce(apart, axis=0)))


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
        self._vectors = vectors
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
        if count == len(self._vectors):
            return self._found(query, np.arange(count), np.inf)
        with self._lock:
            labels, squared = self._index.knn_query(query[None, :], k=count, num_threads=1)
        furthest = max(float(squared.max()) * (1.0 - FLOAT32_SLACK) - FLOAT32_FLOOR, 0.0)
        return self._found(query, labels[0].astype(np.intp), float(np.sqrt(furthest)))

    def _found(self, query: NDArray[np.float32], places: NDArray[np.intp], beyond: float) -> Found:
        return Found(places, _euclidean(self._vectors[places].T.astype(np.float64), query), beyond)


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
