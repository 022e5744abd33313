"""A 16x16x16 map round a nodule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nodule_diag.preprocessing import GRID_SIZE

GRID_SPACING_MM = 2.0
"""Edge of a cell: 4 patch voxels of 0.5 mm."""
HALF_EDGE_MM = GRID_SIZE * GRID_SPACING_MM / 2
"""From the cube's centre to its faces."""


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        place = ", ".join(f"{value:.2f}" for value in self.center_xyz_mm)
        low, high = float(self.values.min()), float(self.values.max())
        return f"{type(self).__name__}({low:.2f} to {high:.2f} in 32 mm round LPS {place} mm)"

    def sample(self, points_xyz_mm: NDArray[np.float64]) -> NDArray[np.float32]:
        """Trilinear values at points.

        Between the outermost cell centres and the cube's faces (1 mm) the outermost value is kept.

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
