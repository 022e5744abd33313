"""The file of hnswlib's brute-force index, checked before its parser, which checks next to nothing, is let near it."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from nodule_diag.cases.case import INDEX_FAULT
from nodule_diag.errors import BundleError


def check_exact_file(data: bytes, *, name: str, vectors: NDArray[np.float32]) -> None:
    """``BruteforceSearch``: capacity, bytes a row, rows; then the rows, each a vector and an 8-byte label.

    Args:
        data: The file.
        name: Its path, for messages.
        vectors: (N, dim) that it must hold in this order.

    Raises:
        BundleError: ``bundle-index-invalid``.
    """
    count, dim = vectors.shape
    header, row = struct.Struct("=QQQ"), 4 * dim + 8
    if len(data) < header.size:
        raise index_fault(name, "it is too short")
    found = header.unpack_from(data)
    if found != (count, row, count) or len(data) != header.size + count * row:
        raise index_fault(name, f"its header says {found} for {count} cases of {dim} numbers and {len(data)} bytes")
    rows = np.frombuffer(data, dtype=[("vector", "<f4", (dim,)), ("label", "<u8")], offset=header.size)
    if not np.array_equal(rows["label"], np.arange(count)):
        raise index_fault(name, "its labels are not the rows of the case base")
    same = np.all(rows["vector"] == vectors, axis=1)
    if not same.all():
        raise index_fault(name, f"row {int(np.argmin(same))} is not the vector of that case")


def index_fault(name: str, why: str) -> BundleError:
    """The error of an index file that does not fit its bundle."""
    return BundleError(
        f"{name} is not an index of the bundle's cases: {why}",
        hint="build the index of the bundle again",
        code=INDEX_FAULT,
    )
