"""Cubic B-spline interpolation of one axis, as a matrix.

The spline the paper resamples with is separable, so resampling a box is one small matrix product per axis.
Row ``m`` of the matrix holds the weight of every sample in the interpolated value at position ``m``: the recursive
prefilter that turns samples into B-spline coefficients, and the four B-spline weights, in one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The prefilter's impulse response is sqrt(3) * z**|k| with this pole (Unser et al. 1993, cubic case).
_POLE = math.sqrt(3.0) - 2.0

PREFILTER_REACH = 16
"""Samples after which the prefilter's response (1.2e-9 there) is cut: below float32 resolution."""

EDGE_TOLERANCE = 1e-3
"""Index units by which a position may lie beyond the outer voxel faces: image headers store float32 origins, and a
position meant to lie on a face must not fall inside or outside by their rounding."""


ONE_THREAD_PRODUCTS = 2**18
"""Multiplications up to which OpenBLAS, numpy's BLAS, uses the calling thread alone (its ``SMP_THRESHOLD_MIN`` times
``GEMM_MULTITHREAD_THRESHOLD``). Above it, OpenBLAS wakes threads for every core: for a nodule's cube they take twice
the CPU time, and then spin for 20 ms more, while the network runs."""


def bspline_matrix(size: int, positions: ArrayLike) -> NDArray[np.float32]:
    """Matrix that interpolates ``size`` samples at ``positions`` with a cubic B-spline.

    Samples continue beyond both ends by reflection about the outermost sample (``mode="mirror"`` of
    ``scipy.ndimage``, and what ITK's B-spline does).

    Args:
        size: number of samples on the axis, at least 1.
        positions: (M,) index positions; 0 is the centre of the first sample.

    Returns:
        (M, size) float32. Every row sums to 1, but rows of positions outside ``[-0.5, size - 0.5]`` are zero: there
        the result is 0, not an extrapolation. Row entries further than ``PREFILTER_REACH + 2`` from the position are 0.

    Raises:
        ValueError: ``size`` is below 1, or ``positions`` is not a finite vector.
    """
    at = np.asarray(positions, dtype=np.float64)
    if size < 1:
        raise ValueError(f"an axis needs at least one sample, not {size}")
    if at.ndim != 1 or not np.isfinite(at).all():
        raise ValueError(f"positions must be a finite vector, not {at.shape} {at!r}")
    inside = (at >= -0.5 - EDGE_TOLERANCE) & (at <= size - 0.5 + EDGE_TOLERANCE)
    safe = np.where(inside, at, 0.0)

    floor = np.floor(safe)
    # (M, 4) B-spline weights of the coefficients floor-1 .. floor+2.
    beta = _cubic_weights(safe - floor)
    # (M, 4 + 2 * reach) weights of the samples around them: each coefficient is a filtered sum of samples.
    offsets = np.arange(-PREFILTER_REACH, PREFILTER_REACH + 1)
    response = math.sqrt(3.0) * _POLE ** np.abs(offsets)
    response /= response.sum()
    span = response.size + 3
    weights = np.zeros((at.size, span))
    for tap in range(4):
        weights[:, tap : tap + response.size] += beta[:, tap : tap + 1] * response
    weights[~inside] = 0.0

    columns = _mirrored(floor.astype(np.int64)[:, None] - 1 - PREFILTER_REACH + np.arange(span), size)
    flat = np.arange(at.size)[:, None] * size + columns
    matrix = np.bincount(flat.ravel(), weights=weights.ravel(), minlength=at.size * size)
    return matrix.reshape(at.size, size).astype(np.float32)


def resample(
    channels: NDArray[np.float32],
    matrices_zyx: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Interpolate a box: one matrix product per axis.

    Args:
        channels: (C, z, y, x) float32.
        matrices_zyx: float32 matrices (M_z, z), (M_y, y), (M_x, x), such as :func:`bspline_matrix` makes.

    Returns:
        (C, M_z, M_y, M_x) float32.
    """
    along_z, along_y, along_x = matrices_zyx
    box = _products(along_z, channels.swapaxes(1, 2))  # (C, y, M_z, x)
    box = _products(box, along_x.T)  # (C, y, M_z, M_x)
    return _products(along_y, box.swapaxes(1, 2))


def _products(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """``left @ right``, of which one is a stack of matrices, in equal parts that BLAS does in this thread."""
    *stack, rows, inner = left.shape if left.ndim > right.ndim else (*right.shape[:-2], *left.shape)
    columns = right.shape[-1]
    result = np.empty((*stack, rows, columns), dtype=np.float32)
    parts = max(1, math.ceil(rows * inner * columns / ONE_THREAD_PRODUCTS))
    width = math.ceil(columns / parts)
    for start in range(0, columns, max(1, width)):
        part = slice(start, start + width)
        np.matmul(left, right[..., part], out=result[..., part])
    return result


def _cubic_weights(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M, 4) cubic B-spline weights at distances 1+f, f, 1-f, 2-f for (M,) fractions f in [0, 1)."""
    f, g = fraction, 1.0 - fraction
    return np.stack([g**3, 3 * f**3 - 6 * f**2 + 4, 3 * g**3 - 6 * g**2 + 4, f**3], axis=1) / 6.0


def _mirrored(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Fold any integer index into ``[0, size)`` by reflection about the outermost samples."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.mod(index, period)
    return np.asarray(np.minimum(folded, period - folded))
