"""How slices lie: rules on their places in the patient, and the even, right-angled grid they must form.

ITK's series reader takes the mean distance of the slices for the spacing and only warns when they are uneven; a
missing slice then moves every nodule beyond it. Here every slice's position and orientation is checked.
"""

from __future__ import annotations

from collections import Counter
from math import atan, degrees, isclose, isnan

import numpy as np
import numpy.typing as npt

from nodule_diag.ct.dicom.headers import SliceHeader
from nodule_diag.ct.dicom.rules import Series
from nodule_diag.ct.grid import SHEAR_TOLERANCE, StoredGrid
from nodule_diag.errors import CTError

Numbers = tuple[float, ...]

ORIENTATION_TOLERANCE = 1e-3
"""Difference of direction cosines between slices: 0.06 degrees, as for shear."""

PIXEL_SPACING_TOLERANCE = 1e-4
"""Relative difference of pixel spacing between slices; rounding of decimal strings stays below it."""

DUPLICATE_MM = 0.01
"""Slices closer than this lie on the same place."""

GAP_TOLERANCE = 0.05
"""Relative deviation of a gap from the usual one."""

GAP_TOLERANCE_MM = 0.02
"""The same in mm, for thin slices whose positions are rounded to 0.01 mm."""

IN_PLANE_TOLERANCE_MM = 0.1
"""Sideways shift of a slice against the first; couch sag and rounding stay below it."""

NAMED_AT_MOST = 5
"""How many offending places a message spells out."""


def several_slices(series: Series) -> None:
    """One slice is no volume: it has no spacing."""
    if len(series.slices) == 1:
        raise CTError(
            f"{series.source} is not a three-dimensional volume: it holds a single slice, {series.slices[0].file.name}",
            code="ct-not-3d",
            hint="give the folder that holds the whole series",
        )


def of_one_kind(series: Series) -> None:
    """Same size, pixel spacing and orientation everywhere; what most slices have is taken as right."""
    kinds = [(header.rows, header.columns, header.orientation) for header in series.slices]
    first = series.slices[kinds.index(Counter(kinds).most_common(1)[0][0])]
    for header in series.slices:
        if (header.rows, header.columns) != (first.rows, first.columns):
            difference = f"{header.columns} x {header.rows} pixels against {first.columns} x {first.rows}"
        elif not _close(header.pixel_spacing_mm, first.pixel_spacing_mm, relative=PIXEL_SPACING_TOLERANCE):
            difference = f"pixel spacing {header.pixel_spacing_mm} mm against {first.pixel_spacing_mm} mm"
        elif not _close(header.orientation, first.orientation, absolute=ORIENTATION_TOLERANCE):
            difference = f"orientation {header.orientation} against {first.orientation}"
        else:
            continue
        why = f"has {difference} in {first.file.name}: they do not belong together"
        hint = "remove scout and reformatted images from the series"
        raise series.refused(header, why, code="ct-inconsistent-slices", hint=hint)


def right_angled(series: Series) -> None:
    """Rows and columns are unit vectors at a right angle, or pixels lie where nobody can say."""
    first = series.slices[0]
    vectors = _cosines(first)
    lengths = np.linalg.norm(vectors, axis=1)
    if max(*np.abs(lengths - 1), abs(vectors[0] @ vectors[1])) > 10 * SHEAR_TOLERANCE:
        why = f"has an ImageOrientationPatient that is not two unit vectors at a right angle: {first.orientation}"
        raise series.refused(first, why, code="ct-sheared", hint="the header is damaged; export the series again")


def in_order_of_height(series: Series) -> None:
    """Slices are sorted along their common normal: file names and instance numbers may say anything."""
    heights = _heights(series)
    series.slices = [series.slices[i] for i in np.argsort(heights, kind="stable")]


def one_at_a_place(series: Series) -> None:
    """No two slices lie at one height: they would be two time points or two reconstructions."""
    heights, names = _heights(series), [header.file.name for header in series.slices]
    same = np.flatnonzero(np.diff(heights) < DUPLICATE_MM).tolist()
    if same:
        places = [f"{names[i]} and {names[i + 1]} at {heights[i]:.2f} mm" for i in same]
        raise CTError(
            f"{series.source} has duplicate slices at the same position: {_some(places)}",
            code="ct-duplicate-slices",
            hint="give one reconstruction of one time point only",
        )


def evenly_spaced(series: Series) -> None:
    """All gaps are the usual one, no slice is missing, and gaps do not add up to a drift of half a slice."""
    heights = _heights(series)
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    tolerance = max(GAP_TOLERANCE * usual, GAP_TOLERANCE_MM)
    odd = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    multiples = np.rint(gaps[odd] / usual)
    between = [_between(series, heights, i) for i in odd.tolist()]
    if odd.size and ((multiples >= 2) & (np.abs(gaps[odd] - multiples * usual) <= tolerance * multiples)).all():
        missing = int((multiples - 1).sum())
        plural = "s" if missing > 1 else ""
        raise CTError(
            f"{series.source} has {missing} missing slice{plural} (spacing {usual:.3g} mm): {_some(between)}",
            code="ct-missing-slices",
            hint="copy or export the whole series again",
        )
    if odd.size:
        places = [f"{gap:.3g} mm {place}" for gap, place in zip(gaps[odd], between, strict=True)]
        raise CTError(
            f"{series.source} has uneven slice gaps, where {usual:.3g} mm is usual: {_some(places)}",
            code="ct-uneven-gaps",
            hint="give an evenly spaced reconstruction, or resample the scan first",
        )
    away = np.abs(heights - np.linspace(heights[0], heights[-1], len(heights)))
    worst = int(away.argmax())
    if away[worst] > usual / 2:
        raise CTError(
            f"{series.source} has slices whose spacing drifts: the one at {heights[worst]:.2f} mm lies"
            f" {away[worst]:.2f} mm from its place among evenly spaced ones",
            code="ct-uneven-gaps",
            hint="export one reconstruction of evenly spaced slices",
        )


def over_each_other(series: Series) -> None:
    """Each slice lies straight above the one before: else the gantry was tilted, or the field of view moved."""
    points, heights = _points(series), _heights(series)
    rise = heights - heights[0]
    shift = points - points[0] - np.outer(rise, _axes(series)[2])
    tolerance = max(IN_PLANE_TOLERANCE_MM, SHEAR_TOLERANCE * float(rise[-1]))
    if float(np.linalg.norm(shift, axis=1).max()) <= tolerance:
        return
    slope = (rise @ shift) / (rise @ rise)
    rest = np.linalg.norm(shift - np.outer(rise, slope), axis=1)
    angle = degrees(atan(float(np.linalg.norm(slope))))
    if float(rest.max()) <= tolerance:
        said = series.slices[0].gantry_tilt_deg
        header = "" if isnan(said) else f" (the header says {said:g})"
        raise CTError(
            f"{series.source} was taken with the gantry tilted by {angle:.1f} degrees{header}:"
            " its slices are sheared against each other",
            code="ct-gantry-tilt",
            hint="correct the tilt by resampling (as dcm2niix does) and give the result",
        )
    worst = int(np.argmax(rest))
    why = f"does not lie over the other slices: it is shifted sideways by {np.linalg.norm(shift[worst]):.2f} mm"
    hint = "give one reconstruction with a constant field of view"
    raise series.refused(series.slices[worst], why, code="ct-inconsistent-slices", hint=hint)


def grid_of(series: Series) -> StoredGrid:
    """The grid of slices that all rules have passed.

    Raises:
        CTError: As `StoredGrid.checked`.
    """
    first, heights = series.slices[0], _heights(series)
    row_spacing, column_spacing = first.pixel_spacing_mm or (0.0, 0.0)
    return StoredGrid.checked(
        (first.columns, first.rows, len(heights)),
        # PixelSpacing gives the distance of rows first; x runs along a row, so its step is the second number.
        spacing_xyz_mm=(column_spacing, row_spacing, (heights[-1] - heights[0]) / (len(heights) - 1)),
        origin_xyz_mm=first.position_mm or (),
        direction=_axes(series).T,
        path=series.source,
    )


def _cosines(header: SliceHeader) -> npt.NDArray[np.float64]:
    """(2, 3) directions along a row and along a column, as they stand in the header."""
    return np.reshape(np.asarray(header.orientation, dtype=np.float64), (2, 3))


def _axes(series: Series) -> npt.NDArray[np.float64]:
    """(3, 3) unit vectors along a row, along a column and along the normal, as rows."""
    vectors = _cosines(series.slices[0])
    axes = np.stack([*vectors, np.cross(*vectors)])
    return np.asarray(axes / np.linalg.norm(axes, axis=1, keepdims=True))


def _points(series: Series) -> npt.NDArray[np.float64]:
    """(slices, 3) positions, LPS mm."""
    return np.array([header.position_mm for header in series.slices], dtype=np.float64)


def _heights(series: Series) -> npt.NDArray[np.float64]:
    """(slices,) positions along the normal, mm."""
    heights: npt.NDArray[np.float64] = _points(series) @ _axes(series)[2]
    return heights


def _close(left: Numbers | None, right: Numbers | None, *, relative: float = 0.0, absolute: float = 0.0) -> bool:
    pairs = zip(left or (), right or (), strict=True)
    return all(isclose(a, b, rel_tol=relative, abs_tol=absolute) for a, b in pairs)


def _between(series: Series, heights: npt.NDArray[np.float64], i: int) -> str:
    names = ", ".join(header.file.name for header in series.slices[i : i + 2])
    return f"between {heights[i]:.2f} and {heights[i + 1]:.2f} mm ({names})"


def _some(places: list[str]) -> str:
    """A list for a message, cut where it gets long."""
    more = f"; and {len(places) - NAMED_AT_MOST} more" if len(places) > NAMED_AT_MOST else ""
    return "; ".join(places[:NAMED_AT_MOST]) + more
