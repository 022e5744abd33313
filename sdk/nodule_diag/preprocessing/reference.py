"""Paper 4.2 followed literally, on every voxel of the CT: tests compare ``lungs`` and `.patch` with this module.

It takes minutes instead of milliseconds, and nothing in the SDK calls it. It uses whole-volume filters, mostly
SimpleITK's, and shares with the default implementation only the constants that the paper leaves open.
"""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

from nodule_diag.ct import CTVolume, index_from_lps
from nodule_diag.preprocessing.lungs import (
    HALF_FALL_MM,
    LEAST_PARENCHYMA,
    OTSU_CEILING_HU,
    PURE_AIR_HU,
    SMALLEST_PART,
    THRESHOLD_RANGE_HU,
)
from nodule_diag.preprocessing.mask import THRESHOLD
from nodule_diag.preprocessing.patch import (
    LUNG_WINDOW_HU,
    MEDIASTINAL_WINDOW_HU,
    OUTSIDE_LUNG_HU,
    PATCH_SIZE,
    PATCH_SPACING_MM,
)

OTSU_BINS = 512
"""Histogram bins of Otsu's method: about 3 HU each."""


def reference_lung_mask(ct: CTVolume) -> NDArray[np.bool_]:
    """Steps 1 to 7 at full resolution.

    Args:
        ct: the CT.

    Returns:
        (z, y, x) bool, F. All False where there is no lung.
    """
    image = sitk.GetImageFromArray(ct.hu)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(OTSU_BINS)
    otsu.Execute(sitk.Clamp(image, image.GetPixelID(), -1024, OTSU_CEILING_HU))
    tissue = image > float(np.clip(otsu.GetThreshold(), *THRESHOLD_RANGE_HU))  # 1

    A = _largest(tissue)  # 2
    B = np.stack([_filled(axial) for axial in A])  # 3; a hole in 3-D is a hole in every slice
    C = B & ~A  # 4
    D = _denoised(C, ct.hu)  # 5
    if not D.any():
        return D
    E = grey_closing(D.astype(np.float32), ct.spacing_zyx_mm, half_fall_mm=HALF_FALL_MM)  # 6
    return _filled(E >= THRESHOLD)  # 7, and the cavities left by nodules too large for the element


def grey_closing(
    image: NDArray[np.float32], spacing_zyx_mm: tuple[float, float, float], *, half_fall_mm: float
) -> NDArray[np.float32]:
    """Grey closing with the paraboloid b(y) = -0.5 (|y| / half_fall_mm)^2.

    Args:
        image: (z, y, x) float32 in [0, 1].
        spacing_zyx_mm: voxel size.
        half_fall_mm: where the element has fallen by 0.5.

    Returns:
        (z, y, x) float32.
    """
    result = image
    for operation, sign in ((np.maximum, -1.0), (np.minimum, 1.0)):  # dilation, then erosion
        for axis, spacing in enumerate(spacing_zyx_mm):
            source = np.moveaxis(result, axis, 0)
            result = result.copy()
            target = np.moveaxis(result, axis, 0)
            # Beyond sqrt(2) times the half-fall distance the element has fallen by more than the image's range.
            for step in range(1, min(len(source), math.ceil(math.sqrt(2.0) * half_fall_mm / spacing) + 1)):
                height = np.float32(sign * 0.5 * (step * spacing / half_fall_mm) ** 2)
                operation(target[step:], source[:-step] + height, out=target[step:])
                operation(target[:-step], source[step:] + height, out=target[:-step])
    return result


def reference_patch(
    ct: CTVolume, center_xyz_mm: ArrayLike, *, lung_mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Step 8, both windows, the whole volume resampled to 0.5 mm, and the cube cropped.

    The 0.5 mm lattice passes through the cube's voxels, and reaches beyond the volume where the cube does.

    Args:
        ct: the CT.
        center_xyz_mm: (3,) LPS mm, the nodule.
        lung_mask: (z, y, x) bool; where given, voxels outside become :data:`OUTSIDE_LUNG_HU` (step 8).

    Returns:
        (2, 64, 64, 64) float32: lung and mediastinal window; z, y, x.
    """
    center_xyz = index_from_lps(ct, np.asarray(center_xyz_mm, dtype=np.float64).reshape(1, 3))[0]
    spacing_xyz = np.asarray(ct.spacing_zyx_mm[::-1])
    extent_mm = (np.asarray(ct.hu.shape[::-1]) - 1) * spacing_xyz
    # Millimetres along the index axes from the centre of voxel 0.
    cube_start_mm = center_xyz * spacing_xyz - (PATCH_SIZE - 1) / 2 * PATCH_SPACING_MM
    before = np.maximum(0, np.ceil(cube_start_mm / PATCH_SPACING_MM)).astype(int)
    after = np.maximum(PATCH_SIZE, np.ceil((extent_mm - cube_start_mm) / PATCH_SPACING_MM)).astype(int)
    cube = tuple(slice(int(start), int(start) + PATCH_SIZE) for start in before[::-1])

    hu = ct.hu if lung_mask is None else np.where(lung_mask, ct.hu, np.asarray(OUTSIDE_LUNG_HU, dtype=ct.hu.dtype))
    patch = np.empty((2, PATCH_SIZE, PATCH_SIZE, PATCH_SIZE), dtype=np.float32)
    for channel, (low, high) in zip(patch, (LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU), strict=True):
        window = sitk.GetImageFromArray(((hu.astype(np.float32) - low) / (high - low)).clip(0.0, 1.0))
        window.SetSpacing(spacing_xyz.tolist())
        resampled = sitk.Resample(
            window,
            (before + after).tolist(),
            sitk.Transform(),
            sitk.sitkBSpline,
            (cube_start_mm - before * PATCH_SPACING_MM).tolist(),
            (PATCH_SPACING_MM,) * 3,
            (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
            0.0,
            sitk.sitkFloat32,
        )
        channel[:] = sitk.GetArrayViewFromImage(resampled)[cube]
    return patch


def _largest(mask: sitk.Image) -> NDArray[np.bool_]:
    """The largest face-connected piece."""
    return np.asarray(sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(mask))) == 1)


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask, 2-D or 3-D, without holes."""
    return sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(mask.astype(np.uint8)))).astype(bool)


def _denoised(mask: NDArray[np.bool_], hu: NDArray[np.int16] | NDArray[np.float32]) -> NDArray[np.bool_]:
    """Without pieces that are gas instead of parenchyma, then without small ones."""
    pieces = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
    statistics = sitk.LabelStatisticsImageFilter()
    statistics.Execute(sitk.GetImageFromArray((hu > PURE_AIR_HU).astype(np.uint8)), pieces)
    labels = np.asarray(
        [k for k in statistics.GetLabels() if k and statistics.GetMean(k) >= LEAST_PARENCHYMA], dtype=np.uint32
    )
    sizes = np.asarray([statistics.GetCount(int(k)) for k in labels])
    kept = labels[sizes >= SMALLEST_PART * sizes.max(initial=1)] if labels.size else labels
    return np.isin(sitk.GetArrayFromImage(pieces), kept)
