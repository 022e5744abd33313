"""The lung mask as callers see it: defined everywhere, computed only where it is needed.

Step 6's E varies slowly, so its linear interpolation from a coarse grid, thresholded at the CT's own voxels, gives the
mask there (paper 4.2, step 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nodule_diag.ct import CTVolume, index_from_lps
from nodule_diag.preprocessing.closing import LEVEL
from nodule_diag.preprocessing.spline import resample

Box = tuple[slice, slice, slice]

THRESHOLD = 0.5
"""Step 7 (paper 4.2): voxels of E at or above this are lung."""

CUT_LUNG = "the lung reaches the edge of this CT's slices: positions in the lung that is cut are not checked"
NO_LUNG = "no lung was found in this CT: the lung mask is empty"


@dataclass(frozen=True, eq=False)
class LungMask:
    """A lung mask that is defined everywhere and computed only where it is needed.

    Attributes:
        ct: the CT it belongs to.
        closed: (gz, gy, gx) int16, step 6's E times ``LEVEL`` on the grid; empty without lungs.
        start_zyx: CT voxel of the grid's first node.
        stride_zyx: CT voxels from one node to the next.
        warnings: why the mask may be wrong; empty when nothing is suspicious.
        whole: (gz, gy, gx) bool, also with the lung that an edge of the slices cuts, which the mask does not hold; None
            where none is cut.
    """

    ct: CTVolume
    closed: NDArray[np.int16]
    start_zyx: tuple[int, ...] = (0, 0, 0)
    stride_zyx: tuple[int, ...] = (1, 1, 1)
    warnings: tuple[str, ...] = ()
    whole: NDArray[np.bool_] | None = None

    @classmethod
    def from_array(cls, ct: CTVolume, mask: ArrayLike) -> LungMask:
        """Wrap a mask made elsewhere.

        Args:
            ct: the CT.
            mask: (z, y, x) bool on the CT's grid.

        Raises:
            ValueError: the mask's shape is not the CT's.
        """
        lungs = np.asarray(mask, dtype=bool)
        if lungs.shape != ct.hu.shape:
            raise ValueError(f"the mask is {lungs.shape}, the CT {ct.hu.shape} (z, y, x)")
        warnings = () if lungs.any() else (NO_LUNG,)
        return cls(ct=ct, closed=lungs.astype(np.int16) * np.int16(LEVEL), warnings=warnings)

    def crop(self, box: Box) -> NDArray[np.bool_]:
        """The mask of a box of the CT's voxels.

        Args:
            box: slices (z, y, x) without step, as one would index ``ct.hu`` with.

        Returns:
            (z, y, x) bool, shaped like ``ct.hu[box]``.
        """
        return self._at([np.arange(*part.indices(size)) for part, size in zip(box, self.ct.hu.shape, strict=True)])

    def to_array(self) -> NDArray[np.bool_]:
        """(z, y, x) bool on the whole CT's grid. Slow (a second): use :meth:`crop` where a part is enough."""
        slabs = (slice(start, start + 32) for start in range(0, len(self.ct.hu), 32))  # bounds the float32 in memory
        return np.concatenate([self.crop((slab, slice(None), slice(None))) for slab in slabs])

    def contains(self, point_xyz_mm: ArrayLike) -> bool | None:
        """Whether a point (3,) in LPS millimetres lies in the lungs; False outside the volume, None in cut lung."""
        point = np.asarray(point_xyz_mm, dtype=np.float64).reshape(1, 3)
        index_zyx = index_from_lps(self.ct, point)[0][::-1]
        upper = np.asarray(self.ct.hu.shape) - 0.5
        if not bool(((index_zyx >= -0.5) & (index_zyx <= upper)).all()):
            return False
        if self._at([np.array([index]) for index in index_zyx]).item():
            return True
        if self.whole is None:
            return False
        node = np.rint((index_zyx - self.start_zyx) / self.stride_zyx).astype(int)
        return None if self.whole[tuple(np.clip(node, 0, np.subtract(self.whole.shape, 1)))] else False

    def _at(self, positions_zyx: Sequence[NDArray[np.signedinteger | np.floating]]) -> NDArray[np.bool_]:
        """The mask at the lattice of CT index positions (z,), (y,), (x,)."""
        shape = [len(positions) for positions in positions_zyx]
        if not self.closed.size or not all(shape):
            return np.zeros(shape, dtype=bool)
        axes = zip(self.closed.shape, positions_zyx, self.start_zyx, self.stride_zyx, strict=True)
        (z, along_z), (y, along_y), (x, along_x) = (
            _linear_matrix(size, (positions - start) / stride) for size, positions, start, stride in axes
        )
        level = resample(self.closed[None, z, y, x].astype(np.float32), (along_z, along_y, along_x))[0]
        # The tolerance is float32 rounding of a sum of int16 levels, far below one level.
        return np.asarray(level >= THRESHOLD * LEVEL - 0.01)


def _linear_matrix(size: int, positions: NDArray[np.float64]) -> tuple[slice, NDArray[np.float32]]:
    """Linear interpolation of ``size`` nodes at increasing (M,) positions, constant beyond both ends.

    Returns:
        The nodes used, and the (M, used) float32 matrix over them.
    """
    at = np.clip(positions, 0.0, size - 1.0)
    used = slice(int(at[0]), min(int(at[-1]) + 1, size - 1) + 1)
    apart = np.abs(at[:, None] - np.arange(used.start, used.stop))
    return used, np.maximum(1.0 - apart, 0.0).astype(np.float32)
