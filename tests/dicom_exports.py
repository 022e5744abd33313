"""DICOM exports as departments make them, of a made-up field of HU that is known everywhere.

The truth is the field itself and the standard's formula for a pixel's place (PS3.3, C.7.6.2.1.1), by numpy alone: it
knows nothing of slices, frames or files.
"""

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

import ct_files as make
from nodule_diag.ct.points import lps_from_index
from nodule_diag.ct.volume import CTVolume

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
PIXELS = (32, 28)
SPACING = (1.6, 1.5)


def field_hu(points_xyz_mm: np.ndarray) -> np.ndarray:
    """(..., 3) LPS mm to HU, smooth: it bends by up to 15 HU between samples 5 mm apart, and rises by 40 HU a mm."""
    x, y, z = np.moveaxis(np.asarray(points_xyz_mm), -1, 0)
    return -450 + 400 * np.sin(x / 9 + y / 23 + z / 31) + 120 * np.cos(y / 11 - z / 14)


def exported(
    positions: Sequence[Sequence[float]],
    *,
    row: Sequence[float] = AXIAL[0],
    column: Sequence[float] = AXIAL[1],
    pixels: tuple[int, int] = PIXELS,
    spacing: tuple[float, float] = SPACING,
    **options,
) -> list[Dataset]:
    """A data set for each position: the field as a scanner would sample it there, in whole HU."""
    rows, columns = pixels
    items = make.dicom_slices(np.zeros((len(positions), rows, columns), np.int16), row=row, column=column, **options)
    r, c = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    plane = c[..., None] * spacing[1] * np.asarray(row) + r[..., None] * spacing[0] * np.asarray(column)
    for item, position in zip(items, positions, strict=True):
        hu = np.rint(field_hu(plane + np.asarray(position, float)))
        item.PixelData = (hu - item.RescaleIntercept).astype("<i2").tobytes()
        item.ImagePositionPatient, item.PixelSpacing = [f"{v:.12g}" for v in position], list(spacing)
    return items


def upright(heights: Sequence[float], corner: tuple[float, float] = (-20.5, 11.25)) -> list[tuple[float, float, float]]:
    """Axial positions over each other."""
    return [(*corner, float(height)) for height in heights]


def assert_is_the_field(ct: CTVolume, *, within: float, outside: int | None = None, rows: slice = slice(None)) -> None:
    """Every voxel of some rows has the field's HU at its place; none, or only padding, has ``outside``."""
    z, y, x = np.indices(ct.hu.shape)
    places = lps_from_index(ct, np.stack([x, y, z], axis=-1).reshape(-1, 3)).reshape(*ct.hu.shape, 3)
    wrong = np.abs(ct.hu - field_hu(places))
    if outside is not None:
        wrong[ct.hu == outside] = 0
    assert wrong[:, rows].max() <= within
