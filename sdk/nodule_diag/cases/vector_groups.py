"""Cases of one place: identical vectors are one point of a search, however many cases stand there.

Half of a case base may have the same score: were each case a point, a search would have to look at all of them before
the order of their ids could settle who is in. A search structure is therefore built of distinct vectors, and the cases
come back in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorGroups:
    """Distinct vectors and the cases at each.

    Attributes:
        vectors: (U, dim) float32, ascending.
        starts: (U + 1,): the cases at vector i are ``rows[starts[i]:starts[i + 1]]``.
        rows: (N,) rows of the case base, ascending at each vector, which is the order that settles ties.
    """

    vectors: NDArray[np.float32]
    starts: NDArray[np.intp]
    rows: NDArray[np.intp]

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> Self:
        """Group (N, dim) non-negative vectors, dim 1 or 2; a vector's row is its case's."""
        # Non-negative floats are in the order of their bits, so integers sort them; adding 0 makes -0 a 0.
        bits = np.ascontiguousarray(vectors + np.float32(0.0)).view(np.uint32).astype(np.uint64)
        high = bits[:, 0] << np.uint64(32)
        if bits.shape[1] == 1:
            # A row's number behind its value: sorting these is ten times as fast as a stable argsort.
            packed = np.sort(high | np.arange(len(bits), dtype=np.uint64))
            rows, ordered = (packed & np.uint64(0xFFFFFFFF)).astype(np.intp), packed >> np.uint64(32)
        else:
            keys = high | bits[:, 1]
            rows = np.argsort(keys, kind="stable")
            ordered = keys[rows]
        first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        return cls(vectors=vectors[rows[first]] + np.float32(0.0), starts=np.append(first, len(rows)), rows=rows)

    @classmethod
    def apart(cls, vectors: NDArray[np.float32]) -> Self:
        """Every one of (N, dim) vectors a group of its own, in the order of the cases."""
        return cls(vectors=vectors, starts=np.arange(len(vectors) + 1), rows=np.arange(len(vectors)))

    def __len__(self) -> int:
        return len(self.vectors)

    def members(self, groups: NDArray[np.intp], *, limit: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The cases at some vectors.

        Args:
            groups: (G,) places in ``vectors``.
            limit: At most so many cases of each, the first in the order of rows.

        Returns:
            Rows of the case base, group after group, and (G,) how many each group gave.
        """
        starts = self.starts[groups]
        counts = np.minimum(self.starts[groups + 1] - starts, limit)
        return self.rows[ranges(starts, counts)], counts


def ranges(starts: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """``starts[i], starts[i] + 1, ...``, ``counts[i]`` of them, one after the other for every i."""
    ends = np.add.accumulate(counts)
    return np.asarray(np.repeat(starts - ends + counts, counts) + np.arange(ends[-1]))
