"""SegNet's map as a measured nodule: the segmentation's volume and diameter in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nodule_diag.cubemap import GRID_SIZE, GRID_SPACING_MM, CubeMap

FOREGROUND = 0.5
"""Probability from which a sub-voxel belongs to the nodule."""
SUBVOXELS = 4
"""Sub-voxels along a cell's edge: measuring at the patch's own 0.5 mm, the resolution that the network saw."""
SUBVOXEL_MM = GRID_SPACING_MM / SUBVOXELS


def _upsampling_matrix() -> NDArray[np.float64]:
    """(64, 16) linear interpolation from cell centres to sub-voxel centres, clamped beyond the outermost centres."""
    fine = GRID_SIZE * SUBVOXELS
    cell = np.clip((np.arange(fine) + 0.5) / SUBVOXELS - 0.5, 0.0, GRID_SIZE - 1.0)
    lower = np.minimum(cell.astype(np.intp), GRID_SIZE - 2)
    matrix = np.zeros((fine, GRID_SIZE))
    matrix[np.arange(fine), lower] = 1.0 - (cell - lower)
    matrix[np.arange(fine), lower + 1] = cell - lower
    return matrix


def _grow(seed_zyx: tuple[int, ...], foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The 6-connected component of ``foreground`` that holds ``seed_zyx``."""
    padded = np.pad(foreground, 1)
    strides = [stride // padded.itemsize for stride in padded.strides]
    flat, component = padded.ravel(), np.zeros(padded.size, dtype=np.bool_)
    front = np.array([np.dot(np.array(seed_zyx) + 1, strides)])
    component[front] = True
    steps = np.array([*strides, *(-stride for stride in strides)])
    while front.size:
        near = (front[:, None] + steps).ravel()
        front = np.unique(near[flat[near] & ~component[near]])
        component[front] = True
    return component.reshape(padded.shape)[1:-1, 1:-1, 1:-1]


@dataclass(frozen=True, eq=False)
class Segmentation(CubeMap):
    """SegNet's nodule probabilities, with the nodule at the cube's centre measured.

    The 2 mm map is interpolated trilinearly to 0.5 mm and cut at 0.5. Of what remains, only the 6-connected component
    that comes nearest to the cube's centre is the nodule: a vessel or a second nodule elsewhere in the cube does
    not count.
    """

    @cached_property
    def nodule(self) -> NDArray[np.bool_]:
        """(64, 64, 64) bool, zyx, on the patch's 0.5 mm grid; all False when nothing was segmented."""
        matrix = _upsampling_matrix()
        fine = self.values.astype(np.float64)
        for axis in range(3):
            fine = np.moveaxis(np.tensordot(matrix, fine, axes=(1, axis)), 0, axis)
        foreground: NDArray[np.bool_] = fine >= FOREGROUND
        if not foreground.any():
            return foreground
        voxels = np.argwhere(foreground)
        distance = ((voxels - (len(matrix) - 1) / 2) ** 2).sum(axis=1)
        return _grow(tuple(voxels[distance.argmin()]), foreground)

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
        faces = [np.take(self.nodule, [0, -1], axis=axis) for axis in range(3)]
        return any(bool(face.any()) for face in faces)

    @property
    def offset_mm(self) -> float | None:
        """From the cube's centre to the nearest sub-voxel centre of the nodule, mm; None without a nodule."""
        if not self.nodule.any():
            return None
        offset = (np.argwhere(self.nodule) - (self.nodule.shape[0] - 1) / 2) * SUBVOXEL_MM
        return float(np.sqrt((offset**2).sum(axis=1).min()))

    def to_dict(self) -> dict[str, float]:
        """The prediction document's ``segmentation``."""
        return {"volume_mm3": self.volume_mm3, "diameter_mm": self.diameter_mm}
