"""A 16x16x16 map round a nodule, and the same map on the CT's grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nodule_diag.ct import index_from_lps, lps_from_index
from nodule_diag.preprocessing import GRID_SIZE

if TYPE_CHECKING:
    from nodule_diag.ct import CTVolume

GRID_SPACING_MM = 2.0
"""Edge of a cell: 4 patch voxels of 0.5 mm."""
HALF_EDGE_MM = GRID_SIZE * GRID_SPACING_MM / 2
"""From the cube's centre to its faces."""


@dataclass(frozen=True, eq=False)
class CubeMap:
    """Values in [0, 1] on a cube of 32 mm whose axes are the CT's.

    Attributes:
        values: (16, 16, 16) float32, zyx. Cell ``j`` along an axis is centred at ``center + (j - 7.5) * 2`` mm.
        center_xyz_mm: The cube's centre, LPS mm.
        direction: (3, 3) float64; columns are the LPS unit vectors of the CT's x, y, z index axes.
        spacing_mm: Edge of a cell.
    """

    values: NDArray[np.float32]
    center_xyz_mm: tuple[float, float, float]
    direction: NDArray[np.float64]
    spacing_mm: float = GRID_SPACING_MM

    def __post_init__(self) -> None:
        if self.values.shape != (GRID_SIZE,) * 3:
            raise ValueError(f"a cube map has shape {(GRID_SIZE,) * 3}, not {self.values.shape}")

    def on_ct_grid(self, ct: CTVolume) -> NDArray[np.float32]:
        """The map on a CT's voxels, for an overlay: trilinear between cell centres, 0 outside the cube.

        Between the outermost cell centres and the cube's faces (1 mm) the outermost value is kept.

        Args:
            ct: The CT that the map was computed from, or one in the same frame.

        Returns:
            (z, y, x) float32, the CT's canonical grid.
        """
        overlay = np.zeros(ct.hu.shape, dtype=np.float32)
        low_xyz, high_xyz = self._index_box(ct)
        if np.any(low_xyz >= high_xyz):
            return overlay
        axes = [np.arange(low, high) for low, high in zip(low_xyz, high_xyz, strict=True)]
        z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
        points_xyz_mm = lps_from_index(ct, np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1).astype(np.float64))
        box = tuple(slice(low, high) for low, high in zip(low_xyz[::-1], high_xyz[::-1], strict=True))
        overlay[box] = self.sample(points_xyz_mm).reshape(z.shape)
        return overlay

    def sample(self, points_xyz_mm: NDArray[np.float64]) -> NDArray[np.float32]:
        """Trilinear values at points.

        Args:
            points_xyz_mm: (N, 3) LPS mm.

        Returns:
            (N,) float32, 0 outside the cube.
        """
        offset_mm = (points_xyz_mm - np.asarray(self.center_xyz_mm)) @ self.direction
        inside = np.all(np.abs(offset_mm) <= HALF_EDGE_MM + 1e-9, axis=1)
        cell = np.clip(offset_mm / self.spacing_mm + (GRID_SIZE - 1) / 2, 0.0, GRID_SIZE - 1.0)
        lower = np.minimum(cell.astype(np.intp), GRID_SIZE - 2)
        fraction = cell - lower
        result = np.zeros(len(points_xyz_mm), dtype=np.float64)
        for corner in np.ndindex(2, 2, 2):
            index = lower + corner
            weight = np.prod(np.where(corner, fraction, 1.0 - fraction), axis=1)
            result += weight * self.values[index[:, 2], index[:, 1], index[:, 0]]
        return np.where(inside, result, 0.0).astype(np.float32)

    def _index_box(self, ct: CTVolume) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """First and past-the-last voxel index, xyz, of the box that holds the cube, cut to the CT."""
        signs = np.array(list(np.ndindex(2, 2, 2))) * 2 - 1
        corners_xyz_mm = np.asarray(self.center_xyz_mm) + signs * HALF_EDGE_MM @ self.direction.T
        index_xyz = index_from_lps(ct, corners_xyz_mm)
        size_xyz = np.array(ct.hu.shape[::-1])
        low = np.clip(np.floor(index_xyz.min(axis=0)), 0, size_xyz).astype(np.intp)
        high = np.clip(np.ceil(index_xyz.max(axis=0)) + 1, 0, size_xyz).astype(np.intp)
        return low, high
