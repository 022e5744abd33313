"""Collects the voxels of a CT, slab by slab, into one canonical array of Hounsfield units.

Readers pass decoded slabs in the file's order. Each slab is checked, clamped and written to its canonical place at
once, so the peak memory is the finished array and one slab.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nodule_diag.ct.grid import StoredGrid
from nodule_diag.ct.limits import READING_LIMITS, check_allowed
from nodule_diag.errors import CTError

PADDING_FLOOR_HU = -1024
"""Lower values are padding outside the scanner's field of view; air is -1000."""

HIGHEST_HU = 32767
"""The extended HU scale that scanners use for metal ends at 30,710."""

LOWEST_HU = -40960
"""16-bit padding (-32768) plus the lowest rescale intercept in use (-8192)."""

AIR_BELOW_HU = -500
"""A chest CT holds lung (-850 HU) and air; an image without any is not in HU or not of a chest."""

TISSUE_ABOVE_HU = -200
"""A chest CT holds fat (-100), muscle (50) and bone."""

DENSE_ABOVE_HU = 4095
"""Above the 12-bit HU scale there is only metal."""

MIN_FRACTION = 1e-3
"""Share of the voxels that must be air, and that must be tissue."""

MAX_DENSE_FRACTION = 1e-2
"""Share of the voxels that may be denser than the 12-bit scale."""

SAMPLING = (slice(None), slice(None, None, 4), slice(None, None, 4))
"""Every 16th voxel is counted for these shares: enough for a thousandth, and fast."""

SLAB_BYTES = 2 * 2**20
"""Voxels decoded at a time: few enough to stay in a core's cache while they are checked and copied, and enough to make
the cost of a call small."""


class HounsfieldArray:
    """Builds the (z, y, x) array of a CT from slabs in the file's own order.

    The array is int16 while every value is integral, float32 from the first one that is not.

    Args:
        grid: Where the voxels lie.
        path: The file, for messages.

    Attributes:
        stored_grid: ``grid``.
        grid: The same in canonical axes.
        path: The file.
    """

    def __init__(self, grid: StoredGrid, *, path: str) -> None:
        self.stored_grid, self.grid = grid, grid.canonical()
        self.path = path
        check_allowed(grid.size_xyz, path=path)
        self._watch = READING_LIMITS.get().watch
        self._hu: npt.NDArray[Any] = np.empty(self.grid.size_xyz[::-1], dtype=np.int16)
        self._stored = self.grid.stored_view(self._hu)
        self._lowest, self._highest = np.inf, -np.inf
        self._counted = self._air = self._tissue = self._dense = 0

    def add(self, first_slice: int, slab: npt.NDArray[Any]) -> None:
        """Put a slab in place.

        Args:
            first_slice: Index of its first slice along the file's slowest axis.
            slab: (slices, y, x) of any real type, in the file's order, HU.

        Raises:
            CTError: ``ct-not-finite`` or ``ct-not-hu``.
        """
        low, high = float(slab.min()), float(slab.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise self._not_finite(first_slice, slab)
        self._lowest, self._highest = min(low, self._lowest), max(high, self._highest)
        if high > HIGHEST_HU or low < LOWEST_HU:
            raise self._not_hu(f"beyond {LOWEST_HU} to {HIGHEST_HU}")
        self._count(slab[SAMPLING])
        if self._hu.dtype == np.int16 and slab.dtype.kind == "f" and not np.array_equal(np.rint(slab), slab):
            self._become_float(first_slice)
        target = self._stored[first_slice : first_slice + len(slab)]
        if low < PADDING_FLOOR_HU:  # directly into place: a copy of each slab would cost as much as reading it
            np.maximum(slab, PADDING_FLOOR_HU, out=target, casting="unsafe")
        else:
            np.copyto(target, slab, casting="unsafe")
        self._watch((first_slice + len(slab)) / len(self._stored))

    def finish(self) -> npt.NDArray[Any]:
        """The finished array, read-only.

        Raises:
            CTError: ``ct-not-hu`` when the values as a whole cannot be those of a chest CT.
        """
        if self._air < MIN_FRACTION * self._counted:
            raise self._not_hu(f"no air or lung below {AIR_BELOW_HU}")
        if self._tissue < MIN_FRACTION * self._counted:
            raise self._not_hu(f"no tissue above {TISSUE_ABOVE_HU}")
        if self._dense > MAX_DENSE_FRACTION * self._counted:
            share = 100 * self._dense / self._counted
            raise self._not_hu(f"{share:.0f} % above {DENSE_ABOVE_HU}")
        self._hu.setflags(write=False)
        return self._hu

    def _count(self, sample: npt.NDArray[Any]) -> None:
        self._counted += sample.size
        self._air += int(np.count_nonzero((sample >= PADDING_FLOOR_HU) & (sample < AIR_BELOW_HU)))
        dense = int(np.count_nonzero(sample > DENSE_ABOVE_HU))
        self._dense += dense
        self._tissue += int(np.count_nonzero(sample > TISSUE_ABOVE_HU)) - dense

    def _become_float(self, slices_done: int) -> None:
        """Continue in float32, keeping the slices that are already there."""
        wider = np.empty(self._hu.shape, dtype=np.float32)
        stored = self.grid.stored_view(wider)
        stored[:slices_done] = self._stored[:slices_done]
        self._hu, self._stored = wider, stored

    def _not_finite(self, first_slice: int, slab: npt.NDArray[Any]) -> CTError:
        z, y, x = np.argwhere(~np.isfinite(slab))[0].tolist()
        return CTError(
            f"{self.path} holds voxels that are not finite numbers: the first is {float(slab[z, y, x])}"
            f" at stored index ({x}, {y}, {z + first_slice})",
            code="ct-not-finite",
            hint="fill them with air (-1024 HU) or export the CT again",
        )

    def _not_hu(self, why: str) -> CTError:
        return CTError(
            f"{self.path} is not in Hounsfield units: its values run from {self._lowest:g} to {self._highest:g}, {why}",
            code="ct-not-hu",
            hint="give the CT as reconstructed (air -1000, water 0), not a picture, a window or a normalised array",
        )
