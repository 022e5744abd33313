"""One slice of a CT as a grey picture, windowed and oriented as radiologists view it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from nodule_diag.ct import CTVolume
from nodule_diag.errors import UsageError
from nodule_diag.results import png_bytes

Plane = Literal["axial", "coronal", "sagittal"]
AXIS: dict[Plane, int] = {"axial": 0, "coronal": 1, "sagittal": 2}
"""The axis of (z, y, x) along which a plane's slices are stacked."""


def slice_png(ct: CTVolume, plane: Plane, index: int, *, center: float, width: float) -> bytes:
    """An 8-bit PNG, one pixel per voxel. Row 0 is anterior or superior, column 0 is the patient's right or anterior.

    Args:
        ct: The CT.
        plane: The slice's plane.
        index: Index of the slice, in voxels of the volume.
        center: HU of the middle grey.
        width: HU from black to white.

    Raises:
        UsageError: ``slice-outside`` or ``window``.
    """
    axis = AXIS[plane]
    count = ct.hu.shape[axis]
    if not 0 <= index < count:
        raise UsageError(
            f"there is no {plane} slice {index}", hint=f"ask for one of 0 to {count - 1}", code="slice-outside"
        )
    if not (np.isfinite(center) and 1.0 <= width <= 1e5):
        raise UsageError(
            f"a window of {width} HU round {center} shows nothing",
            hint="give a center and a width in HU, such as -600 and 1500",
            code="window",
        )
    hu = np.take(ct.hu, index, axis=axis).astype(np.float32)
    grey = np.clip((hu - (center - width / 2)) * (255.0 / width), 0.0, 255.0)
    rows = np.rint(grey).astype(np.uint8)
    return png_bytes(np.ascontiguousarray(rows if plane == "axial" else rows[::-1]))
