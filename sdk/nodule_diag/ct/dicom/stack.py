"""Rules on the geometry of slices, once all slices are of one volume.

ITK's series reader takes the mean distance of the slices as the spacing and only warns when they are uneven; a
missing slice then moves every nodule beyond it. Here every slice's position and orientation is checked, and
`nodule_diag.ct.dicom.placement` puts each slice at its own position.
"""

from __future__ import annotations

from collections import Counter
from math import isclose

import numpy as np

from nodule_diag.ct.dicom.places import SAME_PLACE_MM, heights_of
from nodule_diag.ct.dicom.rules import Series
from nodule_diag.ct.grid import SHEAR_TOLERANCE
from nodule_diag.errors import CTError

Numbers = tuple[float, ...]

ORIENTATION_TOLERANCE = 1e-3
"""Difference of direction cosines between slices: 0.06 degrees, as for shear."""

PIXEL_SPACING_TOLERANCE = 1e-4
"""Relative difference of pixel spacing between slices; rounding of decimal strings stays below it."""

NAMED_AT_MOST = 5
"""How many wrong places a message lists."""


def several_slices(series: Series) -> None:
    """Refuse a single slice, which has no spacing and is not a volume."""
    if len(series.slices) == 1:
        raise CTError(
            f"{series.source} is not a three-dimensional volume: it holds a single slice, {series.slices[0].file.name}",
            code="ct-not-3d",
            hint="give the folder that holds the whole series",
        )


def of_one_kind(series: Series) -> None:
    """Require the same size, pixel spacing and orientation everywhere; the most common value is taken as right."""
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
    """Require unit vectors at a right angle for rows and columns; otherwise the place of pixels is unknown."""
    first = series.slices[0]
    vectors = np.reshape(np.asarray(first.orientation, dtype=np.float64), (2, 3))
    lengths = np.linalg.norm(vectors, axis=1)
    if max(*np.abs(lengths - 1), abs(vectors[0] @ vectors[1])) > 10 * SHEAR_TOLERANCE:
        why = f"has an ImageOrientationPatient that is not two unit vectors at a right angle: {first.orientation}"
        raise series.refused(first, why, code="ct-sheared", hint="the header is damaged; export the series again")


def in_order_of_height(series: Series) -> None:
    """Sort slices along their common normal, because file names and instance numbers are not reliable."""
    heights = heights_of(series.slices)
    series.slices = [series.slices[i] for i in np.argsort(heights, kind="stable")]


def one_at_a_place(series: Series) -> None:
    """Refuse two slices at one height: they would be two time points or two reconstructions."""
    heights, names = heights_of(series.slices), [header.file.name for header in series.slices]
    same = np.flatnonzero(np.diff(heights) < SAME_PLACE_MM).tolist()
    if same:
        places = [f"{names[i]} and {names[i + 1]} at {heights[i]:.2f} mm" for i in same]
        raise CTError(
            f"{series.source} has duplicate slices at the same position: {some(places)}",
            code="ct-duplicate-slices",
            hint="give one reconstruction of one time point only",
        )


def some(places: list[str]) -> str:
    """A list for a message, shortened where it is long."""
    more = f"; and {len(places) - NAMED_AT_MOST} more" if len(places) > NAMED_AT_MOST else ""
    return "; ".join(places[:NAMED_AT_MOST]) + more


def _close(left: Numbers | None, right: Numbers | None, *, relative: float = 0.0, absolute: float = 0.0) -> bool:
    pairs = zip(left or (), right or (), strict=True)
    return all(isclose(a, b, rel_tol=relative, abs_tol=absolute) for a, b in pairs)
