"""The network's input: HU windows and the 0.5 mm cube round a nodule (paper, section 4.2).

The paper windows the CT, resamples all of it to 0.5 mm with a cubic spline and crops 64x64x64 voxels. The same
numbers follow from the cube's surroundings alone: the spline is separable (``spline``), and a sample more than
about 18 voxels away has no weight. :mod:`nodule_diag.preprocessing.reference` is the literal version.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nodule_diag.ct import CTVolume, index_from_lps
from nodule_diag.preprocessing.mask import LungMask
from nodule_diag.preprocessing.spline import bspline_matrix, resample

PATCH_SIZE = 64
"""Voxels along each side of the cube (paper 4.2): 32 mm, which encloses a nodule below 30 mm."""
PATCH_SPACING_MM = 0.5
"""Millimetres between the cube's voxels (paper 4.2)."""
GRID_SIZE = 16
"""Cells along each edge of the network's maps: its output stride is 4 on a 64-voxel patch."""
LUNG_WINDOW_HU = (-1000.0, 400.0)
"""HU that become 0 and 1 in channel 0 (paper 4.2)."""
MEDIASTINAL_WINDOW_HU = (-160.0, 240.0)
"""HU that become 0 and 1 in channel 1 (paper 4.2)."""
OUTSIDE_LUNG_HU = -1024
"""HU given to voxels outside the lung mask. The paper multiplies "raw CTs" by the mask and leaves open what 0 means;
with 0 HU the outside would be as bright as a nodule in both windows, so this value is air: 0 after either window."""


def window_channels(hu: ArrayLike) -> NDArray[np.float32]:
    """Both windows of an image of any shape.

    Args:
        hu: (...) HU.

    Returns:
        (2, ...) float32 in [0, 1]: lung window, mediastinal window.
    """
    values = np.asarray(hu, dtype=np.float32)
    channels = np.empty((2, *values.shape), dtype=np.float32)
    for channel, (low, high) in zip(channels, (LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU), strict=True):
        np.subtract(values, np.float32(low), out=channel)
        np.multiply(channel, np.float32(1.0 / (high - low)), out=channel)
        np.clip(channel, 0.0, 1.0, out=channel)
    return channels


def patch_offsets_mm() -> NDArray[np.float64]:
    """(64,) millimetres from the nodule's centre to each voxel of the cube along any axis: -15.75 .. 15.75."""
    return (np.arange(PATCH_SIZE, dtype=np.float64) - (PATCH_SIZE - 1) / 2) * PATCH_SPACING_MM


def cube_outside(ct: CTVolume, center_xyz_mm: ArrayLike) -> float:
    """The share of a nodule's cube that lies outside the CT, 0 to 1.

    Args:
        ct: the scan.
        center_xyz_mm: (3,) LPS mm.
    """
    center_index_xyz = index_from_lps(ct, np.asarray(center_xyz_mm)[None])[0]
    inside = 1.0
    for size, center, spacing in zip(ct.size_xyz, center_index_xyz, ct.spacing_xyz_mm, strict=True):
        positions = (center + patch_offsets_mm() / spacing).round(6)  # one on the border is inside
        inside *= float(np.mean((positions >= -0.5) & (positions <= size - 0.5)))
    return 1.0 - inside


@dataclass(frozen=True, eq=False)
class PatchSampling:
    """The voxels and weights that a nodule's cube is computed from.

    Attributes:
        box: Slices z, y, x into ``ct.hu``: the voxels that have any weight. Empty on an axis that the cube misses.
        matrices_zyx: (64, z), (64, y) and (64, x) float32, the weights of the box's voxels along each axis.
    """

    box: tuple[slice, slice, slice]
    matrices_zyx: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def patch_sampling(ct: CTVolume, center_index_xyz: NDArray[np.float64]) -> PatchSampling:
    """The voxels that a nodule's cube depends on, and their weights.

    Args:
        ct: the scan.
        center_index_xyz: (3,) continuous canonical index of the nodule.
    """
    axes = zip(ct.hu.shape, center_index_xyz[::-1], ct.spacing_zyx_mm, strict=True)
    (z, along_z), (y, along_y), (x, along_x) = (
        _axis(size, center + patch_offsets_mm() / spacing) for size, center, spacing in axes
    )
    return PatchSampling((z, y, x), (along_z, along_y, along_x))


def _axis(size: int, positions: NDArray[np.float64]) -> tuple[slice, NDArray[np.float32]]:
    """Which of an axis's voxels have any weight at the positions, and their weights."""
    matrix = bspline_matrix(size, positions)
    used = np.flatnonzero(matrix.any(axis=0))
    part = slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0)
    return part, np.ascontiguousarray(matrix[:, part])


def extract_patches(
    ct: CTVolume, centers_xyz_mm: ArrayLike, *, lung_mask: LungMask | None = None
) -> NDArray[np.float32]:
    """Compute the network's input from a CT, for each nodule.

    Voxel ``i`` of an axis lies at the centre plus ``(i - 31.5) * 0.5`` mm along the CT's own (canonical) axis, so the
    cube is symmetric about the nodule. Windows come before the spline, as in the paper, and the spline's overshoot is
    kept. Parts of the cube outside the volume are 0.

    Args:
        ct: the scan.
        centers_xyz_mm: (N, 3) LPS mm.
        lung_mask: where given, voxels outside it become :data:`OUTSIDE_LUNG_HU` before windowing.

    Returns:
        (N, 2, 64, 64, 64) float32: channel (lung, mediastinal window), z, y, x.

    Raises:
        CoordinateError: ``centers_xyz_mm`` is not (N, 3) finite numbers; (0, 3) is fine.
    """
    centers_index_xyz = index_from_lps(ct, centers_xyz_mm)
    patches = np.zeros((len(centers_index_xyz), 2, PATCH_SIZE, PATCH_SIZE, PATCH_SIZE), dtype=np.float32)
    for patch, index_xyz in zip(patches, centers_index_xyz, strict=True):
        sampling = patch_sampling(ct, index_xyz)
        hu = ct.hu[sampling.box]
        if lung_mask is not None:
            hu = np.where(lung_mask.crop(sampling.box), hu, np.asarray(OUTSIDE_LUNG_HU, dtype=hu.dtype))
        patch[:] = resample(window_channels(hu), sampling.matrices_zyx)
    return patches
