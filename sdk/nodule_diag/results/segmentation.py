"""SegNet's map as a measured nodule: the segmentation's volume and diameter in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from nodule_diag.preprocessing import GRID_SIZE, resample
from nodule_diag.results.maps import GRID_SPACING_MM, CubeMap

THRESHOLD = 0.5
"""The probability from which a sub-voxel belongs to the nodule, unless the bundle gives another threshold."""
SUBVOXELS = 4
"""Sub-voxels along a cell's edge: the nodule is measured at the patch's own 0.5 mm, the network's input resolution."""
SUBVOXEL_MM = GRID_SPACING_MM / SUBVOXELS
FINE_SIZE = GRID_SIZE * SUBVOXELS


@cache
def upsampling_matrix() -> NDArray[np.float32]:
    """(64, 16) linear interpolation from cell centres to sub-voxel centres, clamped beyond the outermost centres."""
    cell = np.clip((np.arange(FINE_SIZE) + 0.5) / SUBVOXELS - 0.5, 0.0, GRID_SIZE - 1.0)
    return np.maximum(1.0 - np.abs(cell[:, None] - np.arange(GRID_SIZE)), 0.0).astype(np.float32)


@cache
def _distance_mm(size: int = FINE_SIZE) -> NDArray[np.float64]:
    """(size, size, size) from the cube's centre to each sub-voxel's."""
    square = ((np.arange(size) - (size - 1) / 2) * SUBVOXEL_MM) ** 2
    return np.asarray(np.sqrt(square[:, None, None] + square[:, None] + square))


def nearest_part(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The 6-connected component that comes nearest to the centre of a cube of any size; all False without one."""
    import SimpleITK as sitk

    if not foreground.any():
        return foreground
    nearest = np.where(foreground, _distance_mm(len(foreground)), np.inf).argmin()
    seed_xyz = [int(index) for index in np.unravel_index(nearest, foreground.shape)[::-1]]
    image = sitk.GetImageFromArray(foreground.view(np.uint8))
    return np.asarray(sitk.GetArrayFromImage(sitk.ConnectedThreshold(image, [seed_xyz], 1, 1))).view(np.bool_)


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(CubeMap):
    """SegNet's nodule probabilities, with the nodule at the cube's centre measured.

    The 2 mm map is interpolated trilinearly to 0.5 mm and thresholded. The nodule is only the 6-connected component
    that comes nearest to the cube's centre. A vessel or a second nodule elsewhere in the cube does not count.

    Attributes:
        threshold: The probability from which a sub-voxel belongs to the nodule, above 0 and below 1.
    """

    threshold: float = THRESHOLD

    @cached_property
    def nodule(self) -> NDArray[np.bool_]:
        """(64, 64, 64) bool, zyx, on the patch's 0.5 mm grid; all False when nothing was segmented."""
        matrix = upsampling_matrix()
        return nearest_part(resample(self.values[None], (matrix, matrix, matrix))[0] >= self.threshold)

    def holds(self, points_xyz_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether points lie in :attr:`nodule`.

        Args:
            points_xyz_mm: (N, 3) LPS mm.

        Returns:
            (N,) bool, False outside the cube.
        """
        mask = self.nodule
        offset_mm = (points_xyz_mm - np.asarray(self.center_xyz_mm)) @ self.direction
        cell = np.floor(offset_mm / SUBVOXEL_MM).astype(int) + FINE_SIZE // 2
        inside = np.all((cell >= 0) & (cell < FINE_SIZE), axis=1)
        x, y, z = np.clip(cell, 0, FINE_SIZE - 1).T
        return np.asarray(mask[z, y, x] & inside)

    @property
    def volume_mm3(self) -> float:
        """Volume of :attr:`nodule`, mm^3."""
        return float(np.count_nonzero(self.nodule)) * SUBVOXEL_MM**3

    @property
    def diameter_mm(self) -> float:
        """Diameter of the sphere of the same volume, mm: ``(6 V / pi) ** (1/3)``."""
        return float(np.cbrt(6.0 * self.volume_mm3 / np.pi))

    @property
    def touches_edge(self) -> bool:
        """Whether the nodule reaches a face of the 32 mm cube, so that part of it may lie outside."""
        return any(bool(self.nodule.take([0, -1], axis=axis).any()) for axis in range(3))

    @property
    def offset_mm(self) -> float | None:
        """Distance from the cube's centre to the nearest sub-voxel centre of the nodule, mm; None without a nodule."""
        if not self.nodule.any():
            return None
        return float(_distance_mm()[self.nodule].min())

    def to_dict(self) -> dict[str, float]:
        """The prediction document's ``segmentation``."""
        return {"volume_mm3": self.volume_mm3, "diameter_mm": self.diameter_mm}
