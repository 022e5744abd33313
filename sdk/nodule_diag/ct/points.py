"""Points: LPS millimetres, RAS millimetres, voxels of the file; and whether a point lies in the CT.

All points inside the SDK are LPS millimetres (x towards the patient's left, y towards posterior, z towards superior).
Points of other spaces are converted here, once, when they come in.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from nodule_diag.errors import CoordinateError, UsageError

if TYPE_CHECKING:
    from nodule_diag.ct.volume import CTVolume

Space = Literal["lps", "ras", "voxel"]
Points = npt.NDArray[np.float64]

_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])

HALF_VOXEL_SLACK = 1e-6
"""Voxels of slack at the border: rounding must not move a point on the border outside."""

GAP_MARGIN_MM = 10.0
"""Least distance between a gap and a nodule's cube. The cubic spline that samples the cube gives each further voxel
0.27 times the weight of the one before (its pole): four slices of 2.5 mm away, the weight is 0.5 %."""


def _points(points: npt.ArrayLike) -> Points:
    """As an (N, 3) float64 array of finite numbers."""
    try:
        array = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise CoordinateError(
            f"points must be numbers, got {reprlib.repr(points)}", code="coordinate-malformed", hint="give x, y and z"
        ) from error
    if array.ndim != 2 or array.shape[1] != 3:
        raise CoordinateError(
            f"points must be an array of shape (N, 3), got {array.shape}",
            code="coordinate-malformed",
            hint="give x, y and z for each nodule",
        )
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise CoordinateError(
            f"point {_text(array[bad][0])} has a coordinate that is not a finite number",
            code="coordinate-not-finite",
            hint="give three numbers in millimetres",
        )
    return array


def _text(point: Points) -> str:
    """``(x, y, z)`` with at most two decimals."""
    return "(" + ", ".join(f"{round(float(value), 2) + 0.0:g}" for value in point) + ")"


def lps_from_index(ct: CTVolume, index_xyz: npt.ArrayLike) -> Points:
    """(N, 3) float64 LPS mm of (N, 3) continuous indices x, y, z into ``ct.hu``; integers are voxel centres."""
    scaled = _points(index_xyz) * ct.spacing_xyz_mm
    return np.asarray(scaled @ ct.direction.T + ct.origin_xyz_mm)


def index_from_lps(ct: CTVolume, points_xyz_mm: npt.ArrayLike) -> Points:
    """(N, 3) float64 continuous indices x, y, z into ``ct.hu`` of (N, 3) LPS mm; they may lie outside of it."""
    offset = _points(points_xyz_mm) - ct.origin_xyz_mm
    # The direction is orthonormal, so its transpose is its inverse: offset @ D equals (D^T offset)^T.
    return np.asarray((offset @ ct.direction) / ct.spacing_xyz_mm)


def to_lps(ct: CTVolume, points: npt.ArrayLike, *, space: Space = "lps") -> Points:
    """Convert points of any supported space to LPS mm.

    Args:
        ct: The volume that the points belong to.
        points: (N, 3) in ``space``.
        space: ``lps`` or ``ras`` in mm, or ``voxel``: the index in the file as stored, in x, y, z order (fastest axis
            first), starting at 0; for DICOM the slices count along the stacking direction, and a slice is where its
            header says, also where the volume was interpolated.

    Returns:
        (N, 3) float64, LPS mm.

    Raises:
        CoordinateError: For numbers that are not finite, or another shape.
        UsageError: For an unknown space.
    """
    array = _points(points)
    if space == "lps":
        return array
    if space == "ras":
        return np.asarray(array * _RAS_TO_LPS)
    if space == "voxel":
        if ct.dicom is not None and ct.dicom.resampled:
            return _lps_on_slices(ct, array)
        return lps_from_stored(ct, array)
    raise UsageError(f"unknown space {space!r}", hint=f"use one of {', '.join(get_args(Space))}")


def lps_from_stored(ct: CTVolume, index_xyz: npt.ArrayLike) -> Points:
    """(N, 3) float64 LPS mm of (N, 3) indices x, y, z into the volume, along the axes of the file."""
    return lps_from_index(ct, _flipped(ct, _points(index_xyz)[:, ct.stored_axes]))


def stored_voxel(ct: CTVolume, points_xyz_mm: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """(N, 3) int64: the voxel that holds each of (N, 3) LPS mm inside the volume, x, y, z as the file stores them.

    Between the slices of an interpolated series it is the voxel of the nearest slice.
    """
    points = _points(points_xyz_mm)
    stored = _flipped(ct, index_from_lps(ct, points))[:, np.argsort(ct.stored_axes)]
    size = np.array(ct.stored_size_xyz)
    if ct.dicom is not None and ct.dicom.resampled:
        starts, steps = _slices_of(ct)
        normal = np.cross(*steps)
        away = np.abs((points @ normal)[:, None] - starts @ normal)
        nearest = away.argmin(axis=1)
        offset = points - starts[nearest]
        stored = np.column_stack([*(offset @ step / (step @ step) for step in steps), nearest])
        size[2] = len(starts)
    return np.clip(np.floor(stored + 0.5), 0, size - 1).astype(np.int64)


def _slices_of(ct: CTVolume) -> tuple[Points, Points]:
    """(slices, 3) first pixels of a series' slices, and (2, 3) the steps along a row and a column, LPS mm."""
    starts = np.array([one.position_xyz_mm for one in ct.dicom.slices] if ct.dicom else [], dtype=np.float64)
    corner, *along = lps_from_stored(ct, [(0, 0, 0), (1, 0, 0), (0, 1, 0)])
    return starts, np.array(along) - corner


def _lps_on_slices(ct: CTVolume, index_xyz: Points) -> Points:
    """(N, 3) LPS mm of (N, 3) columns, rows and slices of an interpolated series; linear between its slices."""
    starts, steps = _slices_of(ct)
    below = np.clip(np.floor(index_xyz[:, 2]).astype(int), 0, len(starts) - 2)
    between = (index_xyz[:, 2] - below)[:, None]
    return np.asarray(starts[below] + between * (starts[below + 1] - starts[below]) + index_xyz[:, :2] @ steps)


def _flipped(ct: CTVolume, index_xyz: Points) -> Points:
    """Indices along canonical axes, counted from the other end where the file runs the other way, or back again."""
    return np.where(ct.stored_flips, np.subtract(ct.size_xyz, 1) - index_xyz, index_xyz)


def volume_bounds_lps(ct: CTVolume) -> Points:
    """The box around the volume, half a voxel beyond the outermost voxel centres.

    Returns:
        (2, 3) float64, LPS mm: the lowest and the highest x, y, z. An oblique scan does not reach its corners.
    """
    corners = list(product(*((-0.5, size - 0.5) for size in ct.size_xyz)))
    positions = lps_from_index(ct, corners)
    return np.stack([positions.min(axis=0), positions.max(axis=0)])


def is_inside(ct: CTVolume, points_xyz_mm: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether (N, 3) LPS points lie in the volume, its outer half voxels included: (N,) bool."""
    index = index_from_lps(ct, points_xyz_mm)
    low, high = -0.5 - HALF_VOXEL_SLACK, np.asarray(ct.size_xyz) - 0.5 + HALF_VOXEL_SLACK
    return np.asarray(((index >= low) & (index <= high)).all(axis=1))


def require_inside(
    ct: CTVolume, point_xyz_mm: Sequence[float] | Points, *, in_lung: Callable[[Points], bool] | None = None
) -> None:
    """Refuse a point outside the volume.

    Args:
        ct: The volume.
        point_xyz_mm: (3,) LPS mm.
        in_lung: Says whether an LPS point (3,) lies in the lungs; called only for the mirror image of a refused
            point, to recognise RAS coordinates given as LPS.

    Raises:
        CoordinateError: With the point and the volume's bounds. The hint says so if the point would lie in the lungs
            as RAS.
    """
    points = _points([list(point_xyz_mm)])
    if bool(is_inside(ct, points)[0]):
        return
    low, high = volume_bounds_lps(ct)
    ends = zip("xyz", low.round(2), high.round(2), strict=True)
    spans = ", ".join(f"{axis} {a:g} to {b:g}" for axis, a, b in ends)
    mirrored = points * _RAS_TO_LPS
    swapped = in_lung is not None and bool(is_inside(ct, mirrored)[0]) and in_lung(mirrored[0])
    hint = (
        f"with x and y mirrored, {_text(mirrored[0])}, it lies in the lungs: if it is RAS, say --space ras"
        if swapped
        else "give LPS millimetres, or say --space ras or --space voxel"
    )
    raise CoordinateError(
        f"point {_text(points[0])} mm LPS is outside the CT, which spans {spans} mm",
        code="coordinate-outside",
        hint=hint,
    )


def require_no_gap(ct: CTVolume, point_xyz_mm: Sequence[float] | Points, *, half_cube_mm: float) -> None:
    """Refuse a nodule whose cube lies in a gap, or within `GAP_MARGIN_MM` of one.

    Args:
        ct: The volume.
        point_xyz_mm: (3,) LPS mm: the middle of the cube.
        half_cube_mm: Half of its side.

    Raises:
        CoordinateError: ``coordinate-near-gap``, with the gap.
    """
    if not ct.gaps:
        return
    index = index_from_lps(ct, [list(point_xyz_mm)])[0]
    for gap in ct.gaps:
        spacing, at = ct.spacing_xyz_mm[gap.axis], float(index[gap.axis])
        away = max((gap.first - at) * spacing, (at - gap.last) * spacing, 0.0)
        if away < half_cube_mm + GAP_MARGIN_MM:
            raise CoordinateError(
                f"slices are missing {f'{away:.1f} mm from' if away else 'at'} point"
                f" {_text(_points([list(point_xyz_mm)])[0])} mm LPS: a gap of {gap.width_mm:.3g} mm,"
                f" where the nodule's cube of {2 * half_cube_mm:g} mm needs {GAP_MARGIN_MM:g} mm of whole CT around it",
                code="coordinate-near-gap",
                hint="copy or export the whole series again",
            )
