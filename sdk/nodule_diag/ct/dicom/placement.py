"""The even, right-angled grid of a stack of slices, and the source slices of each of its planes.

Positions are decimal text, often rounded, and couches sag. So the grid is the least-squares fit to all slices, and
slices within its tolerances are used unchanged. Other slices are interpolated: missing or uneven slices along the
normal, and the shear of a tilted gantry along the columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import atan, degrees
from typing import NamedTuple

import numpy as np

from nodule_diag.ct.dicom.headers import SliceHeader
from nodule_diag.ct.dicom.places import GAP, Floats, axes_of, heights_of, points_of
from nodule_diag.ct.dicom.rules import Series
from nodule_diag.ct.dicom.stack import some
from nodule_diag.ct.gaps import SliceGap
from nodule_diag.ct.grid import SHEAR_TOLERANCE, SPACING_SLACK_MM, WARN_SPACING_MM, StoredGrid
from nodule_diag.errors import CTError

ROUNDING_MM = 0.06
"""How far a slice may lie from its place along the normal: positions with one decimal are off by 0.05 mm, and their fit
by a little more. The network's voxels are 0.5 mm."""

UNEVEN = 0.05
"""The same, as a share of the usual distance of slices: the positions of thick slices are not more exact."""

DRIFT_MM = 0.5
"""How far a slice may lie sideways from the others: one of the network's voxels; a chest CT's pixels are larger."""

MAX_TILT_DEG = 35.0
"""Gantries tilt by at most 30 degrees. A larger angle is a damaged header, not a tilt."""

MAX_GROWTH = 2.0
"""The most slices of the grid per original slice: with more, most of the CT would be interpolated."""

ON_A_SLICE = 1e-3
"""Distance in millimetres, or as a share of a step, below which a level is that of a slice."""

_DECIMALS = 9
"""A fit to decimal text is rounded to the precision of such text, so that exact positions give exact grids."""


class Source(NamedTuple):
    """The source of one slice of the grid: ``lower`` where ``weight`` is 0, and ``upper`` where it is 1."""

    lower: int
    upper: int
    weight: float


@dataclass(frozen=True, eq=False)
class Placement:
    """The places of a series' slices in the grid.

    Attributes:
        grid: The volume's grid.
        sources: One for each slice of the grid, in its order.
        slices: The number of slices of the series.
        shifts: (slices, 2) pixels along x (a row) and y (a column) that each slice moves; None where no slice moves.
        gaps: Where slices are missing.
    """

    grid: StoredGrid
    sources: list[Source]
    slices: int
    shifts: Floats | None
    gaps: tuple[SliceGap, ...]

    @property
    def resampled(self) -> bool:
        """Whether the grid's slices differ from those of the series."""
        return self.shifts is not None or self.sources != [Source(i, i, 0.0) for i in range(self.slices)]


class _Levels(NamedTuple):
    first: float
    step: float
    size: int
    sources: list[Source]
    missing: int


def placement_of(series: Series) -> Placement:
    """Fit the grid, with warnings about interpolated slices.

    Args:
        series: Slices that all rules have passed, in the order of their heights.

    Raises:
        CTError: ``ct-missing-slices``, ``ct-uneven-gaps``, ``ct-inconsistent-slices``, or as `StoredGrid.checked`.
    """
    slices = series.slices
    first, axes, heights = slices[0], axes_of(slices), heights_of(slices)
    levels = _levels(series, heights)
    row_mm, column_mm = first.pixel_spacing_mm or (0.0, 0.0)
    # PixelSpacing gives the distance of rows first; x is along a row, so its step is the second number.
    pixel_mm = np.array([column_mm, row_mm])
    sideways = _sideways(series, points_of(slices) @ axes[:2].T, heights)
    corner, size = np.mean(sideways, axis=0), (first.columns, first.rows)
    shifts = None
    if np.ptp(sideways, axis=0).any():
        corner = sideways.min(axis=0)
        shifts = (sideways - corner) / np.where(pixel_mm > 0, pixel_mm, np.inf)
        columns, rows = np.ceil(shifts.max(axis=0) - 1e-6).astype(int).tolist()
        size = first.columns + columns, first.rows + rows
    grid = StoredGrid.checked(
        (*size, levels.size),
        spacing_xyz_mm=(column_mm, row_mm, levels.step),
        origin_xyz_mm=np.round(np.array([*corner, levels.first]) @ axes, _DECIMALS),
        direction=axes.T,
        path=series.source,
    )
    thickness = float(np.median([header.thickness_mm for header in slices]))
    if thickness > WARN_SPACING_MM + SPACING_SLACK_MM >= levels.step:  # wider spacing has its own warning
        series.warnings.append(
            f"slices are {thickness:.3g} mm thick; the method was made for slices of at most {WARN_SPACING_MM:g} mm"
        )
    return Placement(grid, levels.sources, len(slices), shifts, _gaps(grid, heights, levels))


def _tolerance(step: float) -> float:
    return max(ROUNDING_MM, UNEVEN * step)


def _levels(series: Series, heights: Floats) -> _Levels:
    """Even levels along the normal: a fit where slices lie on them, with or without gaps, else interpolated."""
    number, extent = len(heights), float(heights[-1] - heights[0])
    usual = float(np.median(np.diff(heights)))
    if extent / usual + 1 > MAX_GROWTH * number:
        raise CTError(
            f"{series.source} has {number} slices where {extent / usual + 1:.0f} would be even, {usual:.3g} mm apart:"
            f" {_wide(series.slices, heights, usual)}",
            code="ct-missing-slices",
            hint="copy or export the whole series again; give one stack of slices only",
        )
    whole = np.maximum(1, np.rint(np.diff(heights) / usual))
    for steps in (np.arange(number, dtype=np.float64), np.concatenate([[0.0], np.cumsum(whole)])):
        first, step = _line(steps, heights)
        if float(np.abs(heights - first - step * steps).max()) <= _tolerance(step):
            break
    else:
        return _interpolated(series, heights, usual)
    count = int(steps[-1]) + 1
    missing = count - number
    if missing:
        slices_are = "slices are" if missing > 1 else "slice is"
        where = _wide(series.slices, heights, usual)
        series.warnings.append(f"{missing} {slices_are} missing and interpolated ({step:.3g} mm apart): {where}")
    sources = _between(steps, np.arange(count, dtype=np.float64))
    return _Levels(round(first, _DECIMALS), round(step, _DECIMALS), count, sources, missing)


def _interpolated(series: Series, heights: Floats, usual: float) -> _Levels:
    """Levels at the usual distance from the first slice on, where the slices lie unevenly."""
    count = 1 + int((heights[-1] - heights[0]) / usual + UNEVEN)
    gaps = np.diff(heights)
    odd = np.flatnonzero(np.abs(gaps - usual) > _tolerance(usual)).tolist() or [int(np.abs(gaps - usual).argmax())]
    places = [f"{gaps[i]:.3g} mm {_place(series.slices, i)}" for i in odd]
    series.warnings.append(
        f"slices lie unevenly and were interpolated to the {usual:.3g} mm that is usual: {some(places)}"
    )
    levels = heights[0] + usual * np.arange(count)
    return _Levels(float(heights[0]), usual, count, _between(heights, levels), int((gaps > GAP * usual).sum()))


def _line(steps: Floats, heights: Floats) -> tuple[float, float]:
    """The start of the least-squares line, and its step."""
    away = steps - np.mean(steps)
    step = float(away @ heights / (away @ away))
    return float(np.mean(heights) - step * np.mean(steps)), step


def _between(heights: Floats, levels: Floats) -> list[Source]:
    """For each level: the slices below and above it, and how near to the upper one; on a slice, that slice alone."""
    upper = np.clip(np.searchsorted(heights, levels - ON_A_SLICE), 0, len(heights) - 1)
    lower = np.where(np.abs(heights[upper] - levels) <= ON_A_SLICE, upper, np.maximum(upper - 1, 0))
    width = heights[upper] - heights[lower]
    weight = np.clip(np.divide(levels - heights[lower], width, out=np.zeros(len(levels)), where=width > 0), 0, 1)
    return [Source(*values) for values in zip(lower.tolist(), upper.tolist(), weight.tolist(), strict=True)]


def _sideways(series: Series, shifts: Floats, heights: Floats) -> Floats:
    """(slices, 2) mm along a row and a column where each slice begins: all equal, or those of a tilted gantry."""
    rise = heights - heights.mean()
    tolerance = max(DRIFT_MM, SHEAR_TOLERANCE * float(np.ptp(heights)))
    centre = shifts.mean(axis=0)
    if float(np.linalg.norm(shifts - centre, axis=1).max()) <= tolerance:
        return np.broadcast_to(centre, shifts.shape)
    slope = rise @ shifts / (rise @ rise)
    fit = centre + np.outer(rise, slope)
    angle = degrees(atan(float(np.linalg.norm(slope))))
    if float(np.linalg.norm(shifts - fit, axis=1).max()) <= tolerance:
        if angle > MAX_TILT_DEG:
            raise CTError(
                f"{series.source}: the slices lie as if the gantry was tilted by {angle:.0f} degrees,"
                " and a gantry tilts by at most 30: ImageOrientationPatient contradicts ImagePositionPatient",
                code="ct-inconsistent-slices",
                hint="the header is damaged; export the series again",
            )
        series.warnings.append(
            f"the gantry was tilted by {angle:.1f} degrees: the slices were moved over each other by interpolation"
        )
        return np.asarray(np.where(np.abs(slope) * np.ptp(heights) > tolerance, fit, centre))
    away = np.linalg.norm(shifts - np.median(shifts, axis=0), axis=1)
    worst = int(np.argmax(np.linalg.norm(shifts - fit, axis=1)))
    why = f"does not lie over the other slices: it is shifted sideways by {away[worst]:.2f} mm"
    hint = "give one reconstruction with a constant field of view"
    raise series.refused(series.slices[worst], why, code="ct-inconsistent-slices", hint=hint)


def _gaps(grid: StoredGrid, heights: Floats, levels: _Levels) -> tuple[SliceGap, ...]:
    """The gaps on canonical axes."""
    if not levels.missing:
        return ()
    axes, index = grid.canonical(), (heights - levels.first) / levels.step
    axis = axes.stored_axes.index(2)
    if axes.stored_flips[axis]:
        index = levels.size - 1 - index
    wide: list[int] = np.flatnonzero(np.diff(heights) > GAP * levels.step).tolist()
    sides = [(i, *sorted(index[i : i + 2].tolist())) for i in wide]
    return tuple(SliceGap(axis, low, high, float(heights[i + 1] - heights[i])) for i, low, high in sides)


def _wide(slices: list[SliceHeader], heights: Floats, usual: float) -> str:
    gaps = np.diff(heights)
    return some([f"{gaps[i]:.3g} mm {_place(slices, i)}" for i in np.flatnonzero(gaps > GAP * usual).tolist()])


def _place(slices: list[SliceHeader], i: int) -> str:
    """The positions of two neighbours, on the patient's axis that is closest to the normal."""
    axis = int(np.abs(axes_of(slices[i : i + 1])[2]).argmax())
    low, high = sorted(points_of(slices[i : i + 2])[:, axis].tolist())
    return f"between {'xyz'[axis]} {low:.2f} and {high:.2f}"
