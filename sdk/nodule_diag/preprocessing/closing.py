"""Grey closing of a binary mask with a paraboloid, the non-flat element of paper 4.2, step 6.

With b(y) = -|y|^2 / R^2 the closing of f is E(x) = min_p [ max_q f(q) - |p - q|^2 / R^2 ] + |x - p|^2 / R^2. Since
|y|^2 is a sum over the axes, each maximum and minimum may be taken one axis after another. Since f lies in [0, 1], no
point further than R has a say. What lies outside the image has no say either.
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
    # In order of speed: along z whole slices are combined, and the mask is empty in many of them.
    for axis, spacing in enumerate(spacing_zyx_mm):
        values = _dilated(values, axis, _falls(values.shape[axis], spacing, half_fall_mm))
    for axis, spacing in enumerate(spacing_zyx_mm):
        values = _eroded(values, axis, _falls(values.shape[axis], spacing, half_fall_mm))
    return values


def _falls(size: int, spacing_mm: float, half_fall_mm: float) -> list[int]:
    """By how much the element has fallen 1, 2, ... voxels from its centre, as far as that can matter."""
    reach = min(size - 1, math.ceil(half_fall_mm * math.sqrt(2.0) / spacing_mm) - 1)
    return [round(0.5 * LEVEL * (step * spacing_mm / half_fall_mm) ** 2) for step in range(1, reach + 1)]


def _dilated(values: NDArray[np.int16], axis: int, falls: list[int]) -> NDArray[np.int16]:
    result = values.copy()
    source, target = np.moveaxis(values, axis, 0), np.moveaxis(result, axis, 0)
    for step, fall in enumerate(falls, start=1):
        lowered = source - np.int16(fall)
        np.maximum(target[step:], lowered[:-step], out=target[step:])
        np.maximum(target[:-step], lowered[step:], out=target[:-step])
    return result


def _eroded(values: NDArray[np.int16], axis: int, falls: list[int]) -> NDArray[np.int16]:
    result = values.copy()
    source, target = np.moveaxis(values, axis, 0), np.moveaxis(result, axis, 0)
    for step, fall in enumerate(falls, start=1):
        raised = source + np.int16(fall)
        np.minimum(target[step:], raised[:-step], out=target[step:])
        np.minimum(target[:-step], raised[step:], out=target[:-step])
    return result
