"""Gaps of missing slices: their voxels were interpolated, and no nodule may be diagnosed from these voxels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SliceGap:
    """Slices that are missing between two others.

    Attributes:
        axis: 0, 1 or 2: the canonical axis x, y or z that the slices are stacked along.
        first, last: The slices on either side, as continuous indices into the volume along this axis, in rising order.
        width_mm: Their distance.
    """

    axis: int
    first: float
    last: float
    width_mm: float
