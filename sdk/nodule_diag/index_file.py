"""The two file formats of hnswlib, checked before its parser, which checks next to nothing, is let near them."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from nodule_diag.case_base import INDEX_FAULT
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
    _require_same(name, rows["vector"], vectors)


_GRAPH_HEADER = struct.Struct("=QQQQQQiIQQQdQ")
"""Offset of level 0, capacity, rows, bytes a row, offsets of label and vector; highest level, entry point; M of the
upper levels, M of level 0, M, a factor, ef while building (``HierarchicalNSW::saveIndex``)."""


def check_graph_file(data: bytes, *, name: str, vectors: NDArray[np.float32]) -> None:
    """``HierarchicalNSW``: a header, the rows of level 0 (links, vector, label), and each row's links above.

    Sizes, vectors, labels, the entry point and every link of level 0 are checked; of the links above, that their sizes
    fill the file, which hnswlib does itself.

    Args:
        data: The file.
        name: Its path, for messages.
        vectors: (U, dim) that it must hold, row = label.

    Raises:
        BundleError: ``bundle-index-invalid``.
    """
    count, dim = vectors.shape
    if len(data) < _GRAPH_HEADER.size:
        raise index_fault(name, "it is too short")
    offset, capacity, rows, row_bytes, label_at, vector_at, level, entry, upper, base, *_ = _GRAPH_HEADER.unpack_from(
        data
    )
    sizes = (0, count, count, 4 + 4 * base + 4 * dim + 8, 4 + 4 * base + 4 * dim, 4 + 4 * base)
    consistent = (offset, capacity, rows, row_bytes, label_at, vector_at) == sizes and 0 < upper <= base
    if not consistent or len(data) < _GRAPH_HEADER.size + count * row_bytes:
        raise index_fault(name, f"its header says {rows} rows of {row_bytes} bytes for {count} places of {dim} numbers")
    if level < 0 or entry >= count:
        raise index_fault(name, f"it is entered at row {entry} of {count}, level {level}")
    layout = [("links", "<u4", (1 + base,)), ("vector", "<f4", (dim,)), ("label", "<u8")]
    stored = np.frombuffer(data, dtype=layout, offset=_GRAPH_HEADER.size, count=count)
    # The count of links shares its word with a mark of deletion, which no row may have either.
    used, links = stored["links"][:, :1], stored["links"][:, 1:]
    if used.max() > base or (links >= count).any():
        raise index_fault(name, "it links to rows that it does not hold")
    labels = stored["label"]
    if labels.max() >= count or (np.bincount(labels.astype(np.intp), minlength=count) != 1).any():
        raise index_fault(name, "its labels are not the rows of the case base")
    _require_same(name, stored["vector"], vectors[labels.astype(np.intp)])


def _require_same(name: str, stored: NDArray[np.float32], vectors: NDArray[np.float32]) -> None:
    same = np.all(stored == vectors, axis=1)
    if not same.all():
        raise index_fault(name, f"row {int(np.argmin(same))} is not the vector of that case")


def index_fault(name: str, why: str) -> BundleError:
    """The error of an index file that does not fit its bundle."""
    return BundleError(
        f"{name} is not an index of the bundle's cases: {why}",
        hint="build the index of the bundle again",
        code=INDEX_FAULT,
    )
