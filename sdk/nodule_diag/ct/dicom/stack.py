"""Stacks DICOM slices by their positions in the patient and checks that they form an even, right-angled grid.

ITK's series reader takes the mean distance of the slices for the spacing and only warns when they are uneven; a
missing slice then moves every nodule beyond it. Here every slice's position and orientation is checked.
"""

from __future__ import annotations

from collections import Counter
from math import atan, degrees

import numpy as np
import numpy.typing as npt

from nodule_diag.ct.dicom.files import SliceHeader
from nodule_diag.ct.grid import SHEAR_TOLERANCE, StoredGrid
from nodule_diag.errors import CTError

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


def stack(slices: list[SliceHeader], *, source: str) -> tuple[list[SliceHeader], StoredGrid]:
    """Order slices along their common normal.

    Args:
        slices: Of one series; position, orientation and spacing are there.
        source: The folder or archive, for messages.

    Returns:
        The slices in ascending order along the normal, and the grid they form.

    Raises:
        CTError: ``ct-not-3d``, ``ct-inconsistent-slices``, ``ct-duplicate-slices``, ``ct-missing-slices``,
            ``ct-uneven-gaps``, ``ct-gantry-tilt``, or as `StoredGrid.checked`.
    """
    if len(slices) == 1:
        raise CTError(
            f"{source} is not a three-dimensional volume: it holds a single slice, {slices[0].file.name}",
            code="ct-not-3d",
            hint="give the folder that holds the whole series",
        )
    _check_consistent(slices, source)
    _check_copies(slices, source)
    row, column, normal = _axes(slices[0], source)
    points = np.array([header.position_mm for header in slices], dtype=np.float64)
    order = np.argsort(points @ normal, kind="stable")
    ordered = [slices[i] for i in order]
    points = points[order]
    heights = points @ normal
    _check_gaps(ordered, heights, source)
    _check_tilt(ordered, points, heights, normal, source)
    row_spacing, column_spacing = slices[0].pixel_spacing_mm or (0.0, 0.0)
    grid = StoredGrid.checked(
        (slices[0].columns, slices[0].rows, len(slices)),
        # PixelSpacing gives the distance of rows first; x runs along a row, so its step is the second number.
        spacing_xyz_mm=(column_spacing, row_spacing, (heights[-1] - heights[0]) / (len(slices) - 1)),
        origin_xyz_mm=points[0],
        direction=np.column_stack([row, column, normal]),
        path=source,
    )
    return ordered, grid


def _check_consistent(slices: list[SliceHeader], source: str) -> None:
    """Same size, pixel spacing and orientation everywhere; what most slices have is taken as right."""
    kinds = [(header.rows, header.columns, header.orientation) for header in slices]
    first = slices[kinds.index(Counter(kinds).most_common(1)[0][0])]
    for header in slices:
        if (header.rows, header.columns) != (first.rows, first.columns):
            difference = f"{header.columns} x {header.rows} pixels against {first.columns} x {first.rows}"
        elif not np.allclose(
            header.pixel_spacing_mm or (), first.pixel_spacing_mm or (), rtol=PIXEL_SPACING_TOLERANCE, atol=0
        ):
            difference = f"pixel spacing {header.pixel_spacing_mm} mm against {first.pixel_spacing_mm} mm"
        elif not np.allclose(header.orientation or (), first.orientation or (), rtol=0, atol=ORIENTATION_TOLERANCE):
            difference = f"orientation {header.orientation} against {first.orientation}"
        else:
            continue
        raise CTError(
            f"{source}: slices do not belong together: {header.file.name} has {difference} in {first.file.name}",
            code="ct-inconsistent-slices",
            hint="remove scout and reformatted images from the series",
        )


def _check_copies(slices: list[SliceHeader], source: str) -> None:
    """The same image twice, under two file names."""
    seen: dict[str, str] = {}
    for header in slices:
        if header.sop_uid and header.sop_uid in seen:
            raise CTError(
                f"{source} has duplicate slices: {seen[header.sop_uid]} and {header.file.name} are the same image",
                code="ct-duplicate-slices",
                hint="remove the copies",
            )
        seen[header.sop_uid] = header.file.name


def _axes(first: SliceHeader, source: str) -> npt.NDArray[np.float64]:
    """Unit vectors along a row, along a column and along the normal, as rows of (3, 3)."""
    cosines = np.asarray(first.orientation, dtype=np.float64)
    row, column = cosines[:3], cosines[3:]
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(row @ column))) > 10 * SHEAR_TOLERANCE:
        raise CTError(
            f"{source}: {first.file.name} has an ImageOrientationPatient that is not two unit vectors at a right"
            f" angle: {first.orientation}",
            code="ct-sheared",
            hint="the header is damaged; export the series again",
        )
    row, column = row / lengths[0], column / lengths[1]
    normal = np.cross(row, column)
    return np.stack([row, column, normal / np.linalg.norm(normal)])


def _check_drift(heights: npt.NDArray[np.float64], usual: float, source: str) -> None:
    """Gaps that are all usual may still add up: no slice may lie half a slice from where the even grid has it."""
    away = np.abs(heights - np.linspace(heights[0], heights[-1], len(heights)))
    worst = int(away.argmax())
    if away[worst] > usual / 2:
        raise CTError(
            f"{source} has slices whose spacing drifts: the one at {heights[worst]:.2f} mm lies {away[worst]:.2f} mm"
            " from its place among evenly spaced ones",
            code="ct-uneven-gaps",
            hint="export one reconstruction of evenly spaced slices",
        )


def _check_gaps(ordered: list[SliceHeader], heights: npt.NDArray[np.float64], source: str) -> None:
    """Duplicate positions, missing slices, uneven gaps: in this order, as each would look like the next."""
    gaps = np.diff(heights)
    same = np.flatnonzero(gaps < DUPLICATE_MM)
    if same.size:
        places = [
            f"{ordered[i].file.name} and {ordered[i + 1].file.name} at {heights[i]:.2f} mm" for i in same.tolist()
        ]
        raise CTError(
            f"{source} has duplicate slices at the same position: {_some(places)}",
            code="ct-duplicate-slices",
            hint="give one reconstruction of one time point only",
        )
    usual = float(np.median(gaps))
    tolerance = max(GAP_TOLERANCE * usual, GAP_TOLERANCE_MM)
    odd = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    if not odd.size:
        _check_drift(heights, usual, source)
        return
    multiples = np.rint(gaps[odd] / usual)
    whole = (multiples >= 2) & (np.abs(gaps[odd] - multiples * usual) <= tolerance * multiples)
    if whole.all():
        missing = int((multiples - 1).sum())
        plural = "s" if missing > 1 else ""
        places = [_between(ordered, heights, i) for i in odd.tolist()]
        raise CTError(
            f"{source} has {missing} missing slice{plural} (spacing {usual:.3g} mm): {_some(places)}",
            code="ct-missing-slices",
            hint="copy or export the whole series again",
        )
    places = [f"{gaps[i]:.3g} mm {_between(ordered, heights, i)}" for i in odd.tolist()]
    raise CTError(
        f"{source} has uneven slice gaps, where {usual:.3g} mm is usual: {_some(places)}",
        code="ct-uneven-gaps",
        hint="give an evenly spaced reconstruction, or resample the scan first",
    )


def _check_tilt(
    ordered: list[SliceHeader],
    points: npt.NDArray[np.float64],
    heights: npt.NDArray[np.float64],
    normal: npt.NDArray[np.float64],
    source: str,
) -> None:
    """Slices must lie over each other along the normal."""
    rise = heights - heights[0]
    shift = points - points[0] - np.outer(rise, normal)
    tolerance = max(IN_PLANE_TOLERANCE_MM, SHEAR_TOLERANCE * float(rise[-1]))
    if float(np.linalg.norm(shift, axis=1).max()) <= tolerance:
        return
    slope = (rise @ shift) / (rise @ rise)
    rest = np.linalg.norm(shift - np.outer(rise, slope), axis=1)
    angle = degrees(atan(float(np.linalg.norm(slope))))
    if float(rest.max()) <= tolerance:
        said = ordered[0].gantry_tilt_deg
        header = "" if said is None else f" (the header says {said:g})"
        raise CTError(
            f"{source} was taken with the gantry tilted by {angle:.1f} degrees{header}:"
            " its slices are sheared against each other",
            code="ct-gantry-tilt",
            hint="correct the tilt by resampling (as dcm2niix does) and give the result",
        )
    worst = int(np.argmax(rest))
    raise CTError(
        f"{source}: slices do not lie over each other: {ordered[worst].file.name} is shifted sideways by"
        f" {float(np.linalg.norm(shift[worst])):.2f} mm",
        code="ct-inconsistent-slices",
        hint="give one reconstruction with a constant field of view",
    )


def _between(ordered: list[SliceHeader], heights: npt.NDArray[np.float64], i: int) -> str:
    return f"between {heights[i]:.2f} and {heights[i + 1]:.2f} mm ({ordered[i].file.name}, {ordered[i + 1].file.name})"


def _some(places: list[str]) -> str:
    """A list for a message, cut where it gets long."""
    more = f"; and {len(places) - NAMED_AT_MOST} more" if len(places) > NAMED_AT_MOST else ""
    return "; ".join(places[:NAMED_AT_MOST]) + more
