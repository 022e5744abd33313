"""Where slices are missing: the voxels there were interpolated, and no nodule may be diagnosed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nodule_diag.ct.points import Points, index_from_lps
from nodule_diag.errors import CoordinateError

if TYPE_CHECKING:
    from nodule_diag.ct.volume import CTVolume

GAP_MARGIN_MM = 10.0
"""How far a gap must stay from a nodule's cube. The cubic spline that cuts the cube out gives each further voxel 0.27
times the weight of the one before (its pole): across four slices of 2.5 mm 0.5 % are left."""


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


def require_no_gap(ct: CTVolume, point_xyz_mm: Sequence[float] | Points, *, half_cube_mm: float) -> None:
    """Refuse a nodule whose cube lies in a gap, or within `GAP_MARGIN_MM` of one.

    Args:
        ct: The volume.
        point_xyz_mm: (3,) LPS mm: the middle of the cube.
        half_cube_mm: Half of its side.

    Raises:
        CoordinateError: ``coordinate-near-gap``, naming the gap.
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
                f" ({', '.join(f'{value:.2f}' for value in point_xyz_mm)}) mm LPS: a gap of {gap.width_mm:.3g} mm,"
                f" where the nodule's cube of {2 * half_cube_mm:g} mm needs {GAP_MARGIN_MM:g} mm of whole CT around it",
                code="coordinate-near-gap",
                hint="copy or export the whole series again",
            )
