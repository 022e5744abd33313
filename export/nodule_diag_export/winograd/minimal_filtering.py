"""Winograd's minimal filtering F(m, r) for any m outputs and r taps, by Cook and Toom's construction.

m outputs of an r-tap correlation take m + r - 1 products instead of m r: ``y = A^T ((G w) * (B^T x))``. The matrices
come from as many interpolation points, one of them infinity, and are exact fractions here (Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016; Blahut, "Fast Algorithms for Signal Processing", chapter 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

POINTS = tuple(Fraction(*ratio) for ratio in ((0, 1), (1, 1), (-1, 1), (2, 1), (-2, 1), (1, 2), (-1, 2)))
"""Finite points, in the order in which they are taken: small points round least."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Filtering:
    """The matrices of F(m, r), with n = m + r - 1.

    Attributes:
        inputs: B^T, [n, n], from a window of cells to factors.
        taps: G, [n, r], from a kernel to factors.
        outputs: A^T, [m, n], from products to outputs.
    """

    inputs: Matrix
    taps: Matrix
    outputs: Matrix


@lru_cache(maxsize=16)
def filtering(outputs: int, taps: int) -> Filtering:
    """F(outputs, taps).

    Raises:
        ValueError: If there are not enough points: outputs + taps may be at most 9.
    """
    size = outputs + taps - 1
    if min(outputs, taps) < 1 or size - 1 > len(POINTS):
        raise ValueError(f"F({outputs}, {taps}) is not offered: outputs + taps may be 2 to {len(POINTS) + 2}")
    points = POINTS[: size - 1]
    factors = [_product([point for point in points if point != skipped]) for skipped in points]
    scales = [_value(factor, point) for factor, point in zip(factors, points, strict=True)]
    infinity = [Fraction(0)] * (size - 1)
    return Filtering(
        inputs=_matrix([[*factor, Fraction(0)] for factor in factors] + [_product(list(points))]),
        taps=_matrix(
            [[point**tap / scale for tap in range(taps)] for point, scale in zip(points, scales, strict=True)]
            + [[*infinity[: taps - 1], Fraction(1)]]
        ),
        outputs=_matrix(
            [[*(point**row for point in points), Fraction(int(row == outputs - 1))] for row in range(outputs)]
        ),
    )


def _product(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (x - root), constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [high - root * low for high, low in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def _value(coefficients: list[Fraction], at: Fraction) -> Fraction:
    return sum((coefficient * at**power for power, coefficient in enumerate(coefficients)), Fraction(0))


def _matrix(rows: list[list[Fraction]]) -> Matrix:
    return np.array([[float(value) for value in row] for row in rows])
