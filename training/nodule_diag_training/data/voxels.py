"""A nodule's voxels at 0.5 mm, windowed as the network sees them, and how they are read from a VOI or cube."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodule_diag.preprocessing import PATCH_SPACING_MM, bspline_matrix, resample, window_channels

from .nodule import Nodule, TrainingDataError

Float = NDArray[np.float32]

EXTENSION = 6
"""Voxels of 0.5 mm by which a VOI is continued beyond its last slice; over these it fades into other surroundings."""
CUBE_SPACING_MM = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class NoduleVoxels:
    """A nodule at 0.5 mm as the network sees it.

    Attributes:
        channels: [2, z, y, x] float16, both windows; a VOI's includes ``EXTENSION`` voxels beyond each face.
        occupancy: [z, y, x] float16 in [0, 1], the reader mask on the same grid.
        center: The mask's centre of mass as an index into these arrays, zyx.
        extension: Voxels at each face that are continued rather than measured (0 for a cube).
    """

    channels: NDArray[np.float16]
    occupancy: NDArray[np.float16]
    center: tuple[float, float, float]
    extension: int


def positions_at_half_mm(size: int, spacing_mm: float, extension: int) -> NDArray[np.float64]:
    """Positions of the samples of a 0.5 mm grid on an axis of ``size`` voxels, clamped to the first and last centre."""
    count = round((size - 1) * spacing_mm / PATCH_SPACING_MM) + 1
    positions = (np.arange(-extension, count + extension)) * (PATCH_SPACING_MM / spacing_mm)
    return np.asarray(np.clip(positions, 0.0, size - 1.0))


def linear_matrix(size: int, positions: NDArray[np.float64], *, extension: int = 0) -> Float:
    """[M, size] linear interpolation, since masks must not overshoot; zeros where a VOI is continued."""
    distance = np.abs(positions[:, None] - np.arange(size)[None, :])
    matrix = np.maximum(0.0, 1.0 - distance).astype(np.float32)
    matrix[:extension] = 0.0
    matrix[len(matrix) - extension :] = 0.0
    return matrix


def load_voxels(nodule: Nodule) -> NoduleVoxels:
    """Read one VOI or cube and resample it to 0.5 mm.

    Raises:
        TrainingDataError: If the image or mask cannot be read, or the mask is empty.
    """
    hu, mask, spacing = read_hu(nodule)
    if hu.shape != mask.shape or not mask.any():
        raise TrainingDataError(f"{nodule.case_id}: image {hu.shape} and mask {mask.shape} do not fit or mask is empty")
    return at_half_mm(hu, mask, spacing_zyx_mm=spacing, extension=0 if nodule.is_cube else EXTENSION)


def read_hu(nodule: Nodule) -> tuple[NDArray[np.int16], NDArray[np.int16], tuple[float, float, float]]:
    """HU and mask of one VOI or cube as they are stored, both [z, y, x], and its spacing zyx in mm.

    Raises:
        TrainingDataError: If the image or mask cannot be read.
    """
    try:
        if nodule.mask is None:
            with np.load(nodule.image, allow_pickle=False) as stored:
                return stored["hu"], stored["mask"], CUBE_SPACING_MM
        import SimpleITK as sitk  # cubes are read without it

        image = sitk.ReadImage(str(nodule.image))
        x, y, z = image.GetSpacing()
        return sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(sitk.ReadImage(str(nodule.mask))), (z, y, x)
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        raise TrainingDataError(f"{nodule.case_id}: {nodule.image.name} cannot be read: {error}") from error


def at_half_mm(
    hu: NDArray[np.int16], mask: NDArray[Any], *, spacing_zyx_mm: Sequence[float], extension: int
) -> NoduleVoxels:
    """HU and a mask, both [z, y, x], at 0.5 mm; the mask is not empty."""
    z, y, x = (positions_at_half_mm(n, s, extension) for n, s in zip(hu.shape, spacing_zyx_mm, strict=True))
    nz, ny, nx = hu.shape
    channels = resample(window_channels(hu), (bspline_matrix(nz, z), bspline_matrix(ny, y), bspline_matrix(nx, x)))
    linear = (
        linear_matrix(nz, z, extension=extension),
        linear_matrix(ny, y, extension=extension),
        linear_matrix(nx, x, extension=extension),
    )
    occupancy = resample((mask > 0).astype(np.float32)[None], linear)[0]
    weights = occupancy / occupancy.sum()
    center = tuple(
        float((weights.sum(axis=tuple(a for a in range(3) if a != axis)) * np.arange(size)).sum())
        for axis, size in enumerate(occupancy.shape)
    )
    return NoduleVoxels(
        channels=channels.astype(np.float16),
        occupancy=occupancy.astype(np.float16),
        center=(center[0], center[1], center[2]),
        extension=extension,
    )


def load_all(nodules: Sequence[Nodule]) -> dict[str, NoduleVoxels]:
    """``load_voxels`` for each nodule, by case_id (about 1.5 GB for the 973 shared VOIs and cubes)."""
    return {nodule.case_id: load_voxels(nodule) for nodule in nodules}
