"""What a header may claim before any memory is allocated for it.

A header is a few bytes that anyone can write. These checks compare what it promises with what a chest CT can be and
with what the file can hold, so that neither a damaged nor a hostile file makes the reader allocate gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod
from pathlib import Path

from nodule_diag.ct.refusals import damaged, truncated
from nodule_diag.errors import CTError

MAX_VOXELS = 2**31
"""1024 x 1024 x 2048: above any chest CT of a photon-counting scanner (1024 x 1024 x 1300); 4 GiB as int16."""

MIN_AXIS_VOXELS = 2
"""A volume needs two samples along each axis, or it has no spacing there."""

MAX_DEFLATE_RATIO = 1032
"""The best ratio that the deflate format can reach: what a compressed file can hold at most."""

MAX_FILES = 20_000
"""The most files of a folder or an archive; a chest CT has 100 to 2,000 slices."""

MAX_SLICE_BYTES = 256 * 2**20
"""One slice in DICOM; 1024 x 1024 pixels of 16 bits are 2 MiB."""

MAX_ARCHIVE_BYTES = 4 * 2**30
"""All files of an archive together, unpacked."""

MAX_FILE_BYTES = 3 * 2**30
"""One DICOM file, which may hold all slices of a CT as its frames: 1024 x 1024 x 1300 take 2.5 GiB."""


@dataclass(frozen=True)
class ReadingLimits:
    """Stricter limits that a caller sets for reading.

    Attributes:
        max_voxels: The most voxels of one volume.
        watch: Called after every few slices with the share that is read, 0..1; an exception ends the reading.
        may_open: Called with the data file that a header names, before it is opened; an exception refuses it.
    """

    max_voxels: int = MAX_VOXELS
    watch: Callable[[float], None] = lambda _: None
    may_open: Callable[[Path], None] = lambda _: None


READING_LIMITS: ContextVar[ReadingLimits] = ContextVar("READING_LIMITS", default=ReadingLimits())  # noqa: B039 - it is frozen
"""The limits of the thread, or task, that reads."""


@contextmanager
def reading_limits(
    *,
    max_voxels: int = MAX_VOXELS,
    watch: Callable[[float], None] = lambda _: None,
    may_open: Callable[[Path], None] = lambda _: None,
) -> Iterator[None]:
    """Set limits for every CT that is read inside the block.

    Args:
        max_voxels: The most voxels of one volume. Above it, `read_ct` raises ``ct-too-large`` and allocates nothing.
        watch: Called after every few slices with the share that is read, 0..1. An exception ends the reading.
        may_open: Called with the data file that a header names, before it is opened. An exception refuses it.
    """
    token = READING_LIMITS.set(ReadingLimits(max_voxels, watch, may_open))
    try:
        yield
    finally:
        READING_LIMITS.reset(token)


def check_allowed(size_xyz: Sequence[int], *, path: str) -> None:
    """Refuse a volume that is larger than the caller allows.

    Raises:
        CTError: ``ct-too-large``.
    """
    allowed = READING_LIMITS.get().max_voxels
    if prod(size_xyz) > allowed:
        shape = " x ".join(str(n) for n in size_xyz)
        raise CTError(
            f"{path} has {shape} voxels, over the limit of {allowed:,} here; nothing was allocated for it",
            code="ct-too-large",
            hint="give one chest CT, or ask whoever runs this for a higher limit",
        )


def check_size(size_xyz: Sequence[int], *, path: str) -> None:
    """Refuse sizes that are not those of a volume, and sizes that no CT has.

    Args:
        size_xyz: Voxels along each stored axis.
        path: The file, for the message.

    Raises:
        CTError: ``ct-damaged``, ``ct-not-3d`` or ``ct-too-large``.
    """
    shape = " x ".join(str(n) for n in size_xyz)
    if any(n < 1 for n in size_xyz):
        raise damaged(path, f"its header claims an impossible size of {shape} voxels")
    if len(size_xyz) != 3 or min(size_xyz) < MIN_AXIS_VOXELS:
        raise CTError(
            f"{path} is not a three-dimensional volume: its size is {shape}",
            code="ct-not-3d",
            hint="give one whole CT series, not a single slice, a projection or a time series",
        )
    if prod(size_xyz) > MAX_VOXELS:
        raise CTError(
            f"{path} claims {shape} voxels, over the limit of {MAX_VOXELS:,}; nothing was allocated for it",
            code="ct-too-large",
            hint="the header is damaged, or this is not a chest CT",
        )


def check_payload(promised_bytes: int, file_bytes: int, *, compressed: bool, path: str) -> None:
    """Refuse a file that cannot hold the voxels its header promises.

    Args:
        promised_bytes: Voxels times bytes per voxel.
        file_bytes: Bytes that are there, as stored.
        compressed: Whether these bytes are compressed; deflate's best ratio is then assumed.
        path: The file, for the message.

    Raises:
        CTError: ``ct-truncated``.
    """
    there = max(file_bytes, 0)
    if promised_bytes > (there * MAX_DEFLATE_RATIO if compressed else there):
        even = " even when decompressed" if compressed else ""
        why = f"its header promises {promised_bytes:,} bytes of voxels, the {there:,} bytes stored cannot hold them"
        raise truncated(path, why + even)
