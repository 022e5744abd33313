"""Grey closing of a binary mask with a paraboloid, the non-flat element of paper 4.2, step 6.

With b(y) = -|y|^2 / R^2 the closing of f is E(x) = min_p [ max_q f(q) - |p - q|^2 / R^2 ] + |x - p|^2 / R^2. Since
|y|^2 is a sum over the axes, each maximum and minimum may be taken one axis after another. Since f lies in [0, 1],
points further away than R have no effect. Points outside the image have no effect either.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LEVEL = 8192
"""The value 1 in the fixed-point numbers used: int16 with room for sums up to 2, and steps of 1.2e-4."""


def closing(
    mask: NDArray[np.bool_], spacing_zyx_mm: tuple[float, float, float], *, half_fall_mm: float
) -> NDArray[np.int16]:
    """Close a mask.

    Args:
        mask: (z, y, x) bool.
        spacing_zyx_mm: voxel size.
        half_fall_mm: distance at which the element has fallen by 0.5, so that R^2 = 2 * half_fall_mm^2.

    Returns:
        (z, y, x) int16: E times :data:`LEVEL`, from 0 to LEVEL.
    """
    values = mask.astype(np.int16) * np.int16(LEVEL)
    for extremum, sign in ((np.maximum, -1), (np.minimum, 1)):  # dilation, then erosion
        # In order of speed: along z whole slices are combined, and the mask is empty in many of them.
        for axis, spacing in enumerate(spacing_zyx_mm):
            source, values = np.moveaxis(values, axis, 0), values.copy()
            target = np.moveaxis(values, axis, 0)
            for step, fall in enumerate(_falls(len(source), spacing, half_fall_mm), start=1):
                moved = source + np.int16(sign * fall)
                extremum(target[step:], moved[:-step], out=target[step:])
                extremum(target[:-step], moved[step:], out=target[:-step])
    return values


def _falls(size: int, spacing_mm: float, half_fall_mm: float) -> list[int]:
    """By how much the element has fallen 1, 2, ... voxels from its centre, as far as that can matter."""
    reach = min(size - 1, math.ceil(half_fall_mm * math.sqrt(2.0) / spacing_mm) - 1)
    return [round(0.5 * LEVEL * (step * spacing_mm / half_fall_mm) ** 2) for step in range(1, reach + 1)]
