"""Resamples slices to a grid that they do not lie on: shifts them, and blends them with their neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nodule_diag.ct.dicom.placement import Placement
from nodule_diag.ct.hounsfield import PADDING_FLOOR_HU

Plane = npt.NDArray[Any]

WHOLE_PIXEL = 1e-3
"""A shift this close to whole pixels needs no interpolation."""


def resampled(placement: Placement, planes: Iterator[Plane]) -> Iterator[Plane]:
    """The slices of the grid, one after the other; two slices of the series are in memory at a time.

    Args:
        placement: The source of each slice.
        planes: (rows, columns) HU of the series' slices, in its order.
    """
    size = placement.grid.size_xyz[:2]
    waiting = iter(placement.sources)
    source = next(waiting, None)
    below: Plane | None = None
    for number, plane in enumerate(planes):
        plane = np.maximum(plane, PADDING_FLOOR_HU)  # padding must not bleed into its neighbours
        if placement.shifts is not None:
            for axis in (0, 1):
                plane = _moved(plane, float(placement.shifts[number, axis]), axis=1 - axis, size=size[axis])
        while source is not None and source.upper == number:
            yield plane if below is None or source.lower == number else _blended(below, plane, source.weight)
            source = next(waiting, None)
        below = plane


def _blended(below: Plane, above: Plane, weight: float) -> Plane:
    """Linear interpolation between two slices; in integers where both slices are."""
    return _as_whole(below * (1 - weight) + above * weight, below.dtype)


def _moved(plane: Plane, shift: float, *, axis: int, size: int) -> Plane:
    """A slice moved by a number of pixels into ``size``, by cubic convolution (Keys 1981, a = -1/2); air around it."""
    plane = np.moveaxis(plane, axis, 0)
    moved = np.full((size, plane.shape[1]), PADDING_FLOOR_HU, dtype=plane.dtype)
    whole = round(shift)
    if abs(shift - whole) <= WHOLE_PIXEL:
        moved[whole : whole + len(plane)] = plane
        return np.moveaxis(moved, 0, axis)
    below = int(np.floor(shift))
    between = 1 - (shift - below)  # position of a grid pixel between its two nearest pixels
    edged = np.pad(plane, ((1, 1), (0, 0)), mode="edge")
    count = len(plane) - 1
    taps = (weight * edged[tap : tap + count] for tap, weight in enumerate(_keys(between)))
    moved[below + 1 : below + 1 + count] = _as_whole(np.clip(sum(taps), plane.min(), plane.max()), plane.dtype)
    return np.moveaxis(moved, 0, axis)


def _keys(t: float) -> tuple[float, float, float, float]:
    """The weights of the four pixels around a place between the second and the third of them."""
    return (
        ((2 - t) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )


def _as_whole(values: Plane, kind: np.dtype[Any]) -> Plane:
    return np.rint(values).astype(kind) if kind.kind in "iu" else values
