"""A nodule's surroundings from a CT, at 0.5 mm as the network sees them, and its mask on the same grid.

The region is larger than the network's cube by the jitter that training applies, and its middle voxels are exactly what
the SDK cuts out at prediction: windows, spline and sampling are the SDK's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nodule_diag.ct import CTVolume, index_from_lps, lps_from_index, require_inside
from nodule_diag.preprocessing import PATCH_SIZE, PATCH_SPACING_MM, bspline_matrix, resample, window_channels

from .nodule import TrainingDataError

REGION_MARGIN = 8
"""Voxels beyond the network's cube at each face: room for the jitter of 3 mm, and two more."""
REGION_SIZE = PATCH_SIZE + 2 * REGION_MARGIN


@dataclass(frozen=True, kw_only=True, eq=False)
class NoduleMask:
    """A nodule's mask on the CT's grid, as the box that holds it.

    Attributes:
        voxels: [z, y, x] bool, not empty.
        start_zyx: Canonical index of ``voxels[0, 0, 0]`` in the CT.
    """

    voxels: NDArray[np.bool_]
    start_zyx: tuple[int, int, int]

    def center_xyz_mm(self, ct: CTVolume) -> tuple[float, float, float]:
        """The mask's centre of mass, LPS mm."""
        index_zyx = np.argwhere(self.voxels).mean(axis=0) + self.start_zyx
        x, y, z = lps_from_index(ct, [index_zyx[::-1]])[0].tolist()
        return x, y, z


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """A nodule in the middle of its surroundings.

    Attributes:
        channels: [2, z, y, x] float16, both windows; 0 outside the CT.
        occupancy: [z, y, x] float16 in [0, 1], the mask; None where there is no mask.
        center: The nodule's centre as an index into these arrays, zyx.
        extension: Voxels at each face that are continued rather than measured.
    """

    channels: NDArray[np.float16]
    occupancy: NDArray[np.float16] | None
    center: tuple[float, float, float]
    extension: int = 0


def cut_region(ct: CTVolume, center_xyz_mm: Sequence[float], *, mask: NoduleMask | None) -> Region:
    """Cut a nodule's region out of a CT.

    Args:
        ct: The scan.
        center_xyz_mm: (3,) LPS mm; becomes the middle of the region.
        mask: The nodule's mask, where it is known.

    Returns:
        ``REGION_SIZE`` voxels along each axis.

    Raises:
        CoordinateError: If the centre is not inside the CT.
    """
    require_inside(ct, center_xyz_mm)
    middle = (REGION_SIZE - 1) / 2
    offsets = (np.arange(REGION_SIZE) - middle) * PATCH_SPACING_MM
    index_zyx = index_from_lps(ct, [list(center_xyz_mm)])[0][::-1]
    positions = [index + offsets / spacing for index, spacing in zip(index_zyx, ct.spacing_zyx_mm, strict=True)]
    box, matrices = [], []
    for size, position in zip(ct.hu.shape, positions, strict=True):
        matrix = bspline_matrix(size, position)
        used = np.flatnonzero(matrix.any(axis=0))
        part = slice(int(used[0]), int(used[-1]) + 1)
        box.append(part)
        matrices.append(np.ascontiguousarray(matrix[:, part]))
    hu = ct.hu[box[0], box[1], box[2]]
    channels = resample(window_channels(hu), (matrices[0], matrices[1], matrices[2]))
    return Region(
        channels=channels.astype(np.float16),
        occupancy=None if mask is None else _occupancy(mask, positions),
        center=(middle, middle, middle),
    )


def _occupancy(mask: NoduleMask, positions: Sequence[NDArray[np.float64]]) -> NDArray[np.float16]:
    """The mask at the region's positions, linearly interpolated: a spline would overshoot."""
    if not mask.voxels.any():
        raise TrainingDataError("the nodule's mask is empty")
    z, y, x = (
        np.maximum(0.0, 1.0 - np.abs(position[:, None] - (start + np.arange(size))[None, :])).astype(np.float32)
        for position, start, size in zip(positions, mask.start_zyx, mask.voxels.shape, strict=True)
    )
    return np.asarray(resample(mask.voxels.astype(np.float32)[None], (z, y, x))[0], dtype=np.float16)
