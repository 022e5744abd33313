"""The sampling grid of a CT as its file stores it, and the same grid in canonical axes.

A file may store its axes in any order and sign. The canonical grid has +x towards the patient's left, +y towards
posterior and +z towards superior, up to the small rotation of an oblique scan. The conversion only permutes and
reverses axes, so no voxel is interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import acos, degrees, inf
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from nodule_diag.ct.limits import check_size
from nodule_diag.ct.refusals import damaged
from nodule_diag.errors import CTError

Axes = tuple[int, int, int]
Flips = tuple[bool, bool, bool]
Triple = tuple[float, float, float]
_Value = TypeVar("_Value")

MAX_SPACING_MM = 5.0
"""Larger slice spacings are refused: a nodule of the paper's range would lie in one or two slices."""

SPACING_SLACK_MM = 5e-4
"""Tolerance above MAX_SPACING_MM: float32 gives 5.0000001 for 5 mm, and positions of a metre to 6e-5 mm."""

WARN_SPACING_MM = 3.0
"""The paper's limit (section 4.1: scans with slices over 3 mm are left out); above it the result carries a warning."""

MIN_SPACING_MM = 0.05
"""Below this the unit of the header is wrong (metres or micrometres): clinical CT stops near 0.1 mm."""

SHEAR_TOLERANCE = 1e-3
"""Largest |cos| between two axes: 0.06 degrees, which moves a point by 0.3 mm over 300 mm; header rounding is 1e-6."""

SNAP_TOLERANCE = 1e-6
"""Axes this close to the patient's axes are taken as exactly parallel: float32 headers are not more precise."""

WARN_ROTATION_DEG = 5.0
"""Patches follow the scan's axes; a larger rotation of the scan gives a warning in the result."""


@dataclass(frozen=True, eq=False)
class StoredGrid:
    """Where the voxels of a file lie, in the file's own axis order.

    Attributes:
        size_xyz: Voxels along the stored axes.
        spacing_xyz_mm: Distance of neighbours along the stored axes, mm.
        origin_xyz_mm: LPS position of the first stored voxel, mm.
        direction: (3, 3) float64; column i is the unit LPS vector of stored axis i. Orthonormal.
    """

    size_xyz: tuple[int, int, int]
    spacing_xyz_mm: Triple
    origin_xyz_mm: Triple
    direction: npt.NDArray[np.float64]

    @classmethod
    def checked(
        cls,
        size_xyz: Sequence[int],
        *,
        spacing_xyz_mm: Iterable[float],
        origin_xyz_mm: Iterable[float],
        direction: npt.ArrayLike,
        path: str,
    ) -> StoredGrid:
        """Build a grid from header values, refusing grids that cannot be used for a diagnosis.

        Args:
            size_xyz: Three integers.
            spacing_xyz_mm: Three numbers, mm.
            origin_xyz_mm: Three numbers, LPS mm.
            direction: (3, 3) columns of the axes in LPS; need not be perfectly orthonormal.
            path: The file, for messages.

        Raises:
            CTError: ``ct-damaged``, ``ct-not-3d``, ``ct-too-large``, ``ct-bad-spacing``, ``ct-slice-spacing`` or
                ``ct-sheared``.
        """
        size = tuple(int(n) for n in size_xyz)
        check_size(size, path=path)
        spacing = tuple(float(s) for s in spacing_xyz_mm)
        origin = tuple(float(o) for o in origin_xyz_mm)
        matrix = np.asarray(direction, dtype=np.float64)
        _check_spacing(spacing, path)
        if len(origin) != 3 or matrix.shape != (3, 3) or not np.isfinite([*origin, *matrix.flat]).all():
            raise damaged(path, f"its origin {origin} or its direction {matrix.tolist()} is not a place in space")
        return cls(_three(size), _triple(spacing), _triple(origin), _orthonormal(matrix, path))

    def canonical(self) -> CanonicalGrid:
        """The same grid with +x to the left, +y to posterior, +z to superior."""
        axes = _canonical_axes(self.direction)
        size, spacing = np.array(self.size_xyz)[[*axes]], np.array(self.spacing_xyz_mm)[[*axes]]
        columns = self.direction[:, axes]
        flips = np.diagonal(columns) < 0
        first = np.where(flips, size - 1, 0)  # index, along the stored axes, of canonical voxel (0, 0, 0)
        origin = np.asarray(self.origin_xyz_mm) + columns @ (spacing * first)
        direction = columns * np.where(flips, -1.0, 1.0)
        if float(np.abs(direction - np.eye(3)).max()) < SNAP_TOLERANCE:
            direction = np.eye(3)
        direction.setflags(write=False)
        return CanonicalGrid(
            size_xyz=_three(size.tolist()),
            spacing_xyz_mm=_triple(spacing),
            origin_xyz_mm=_triple(origin),
            direction=direction,
            stored_axes=axes,
            stored_flips=_three(flips.tolist()),
        )

    def warnings(self) -> tuple[str, ...]:
        """Warnings about this grid for the result."""
        notes = []
        widest = max(self.spacing_xyz_mm)
        if widest > WARN_SPACING_MM + SPACING_SLACK_MM:
            notes.append(
                f"slice spacing is {widest:.3g} mm; the method was made for slices of at most {WARN_SPACING_MM:g} mm"
            )
        # Rotation angle of an orthonormal matrix from its trace.
        turn = degrees(acos(float(np.clip((np.trace(self.canonical().direction) - 1) / 2, -1, 1))))
        if turn > WARN_ROTATION_DEG:
            notes.append(f"the scan is turned {turn:.1f} degrees against the patient's axes; patches follow the scan")
        return tuple(notes)


@dataclass(frozen=True, eq=False)
class CanonicalGrid:
    """A grid in canonical axes, with the way back to the file.

    Attributes:
        size_xyz: Voxels along canonical x, y, z.
        spacing_xyz_mm: Spacing along canonical x, y, z, mm.
        origin_xyz_mm: LPS position of canonical voxel (0, 0, 0), mm.
        direction: (3, 3) float64, columns are the canonical axes in LPS; the identity when the scan is not oblique.
        stored_axes: For canonical x, y, z: the stored axis it comes from.
        stored_flips: For canonical x, y, z: whether the stored axis has the opposite direction.
    """

    size_xyz: tuple[int, int, int]
    spacing_xyz_mm: Triple
    origin_xyz_mm: Triple
    direction: npt.NDArray[np.float64]
    stored_axes: Axes
    stored_flips: Flips

    def stored_view(self, canonical_zyx: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A view of a canonical (z, y, x) array that is indexed like the file; writing to it fills the array."""
        forwards, backwards = slice(None), slice(None, None, -1)
        x, y, z = (backwards if flip else forwards for flip in self.stored_flips)
        stored_order = [2 - self.stored_axes.index(stored) for stored in (2, 1, 0)]
        return canonical_zyx[z, y, x].transpose(stored_order)


def _three(values: Iterable[_Value]) -> tuple[_Value, _Value, _Value]:
    x, y, z = values
    return x, y, z


def _triple(values: Iterable[float]) -> Triple:
    """Three numbers as a tuple of floats, without negative zeros."""
    return _three(float(value) + 0.0 for value in values)


def _canonical_axes(direction: npt.NDArray[np.float64]) -> Axes:
    """For LPS x, y, z: the stored axis with the closest direction, each stored axis once."""
    return _three(max(permutations(range(3)), key=lambda axes: float(np.abs(direction[:, [*axes]]).trace())))


def _check_spacing(spacing_xyz_mm: tuple[float, ...], path: str) -> None:
    text = " x ".join(f"{s:g}" for s in spacing_xyz_mm)
    if len(spacing_xyz_mm) != 3 or not all(MIN_SPACING_MM <= s < inf for s in spacing_xyz_mm):
        raise CTError(
            f"{path} has a voxel spacing of {text} mm; each must be at least {MIN_SPACING_MM} mm",
            code="ct-bad-spacing",
            hint="the header is damaged or not in millimetres; export the CT again",
        )
    if max(spacing_xyz_mm) > MAX_SPACING_MM + SPACING_SLACK_MM:
        raise CTError(
            f"{path} has a slice spacing of {max(spacing_xyz_mm):g} mm (voxels of {text} mm);"
            f" at most {MAX_SPACING_MM:g} mm can be diagnosed from",
            code="ct-slice-spacing",
            hint="use the thin-slice reconstruction of the same scan",
        )


def _orthonormal(matrix: npt.NDArray[np.float64], path: str) -> npt.NDArray[np.float64]:
    """The nearest orthonormal matrix, if the axes are at right angles within the tolerance."""
    norms = np.linalg.norm(matrix, axis=0)
    if not (norms.min() > 0 and norms.max() < inf):
        raise damaged(path, f"its axes do not span space: {matrix.tolist()}")
    unit = matrix / norms
    cosines = np.abs(unit.T @ unit - np.eye(3))
    worst = float(cosines.max())
    if worst > SHEAR_TOLERANCE:
        i, j = divmod(int(cosines.argmax()), 3)
        angle = degrees(acos(min(worst, 1.0)))
        raise CTError(
            f"{path} is sheared: its stored axes {i} and {j} meet at {angle:.2f} degrees instead of 90",
            code="ct-sheared",
            hint="resample the scan to a right-angled grid (gantry tilt correction) and give that",
        )
    left, _, right = np.linalg.svd(unit)
    result: npt.NDArray[np.float64] = left @ right
    # Axes parallel to the patient's stay exact: the decomposition would leave 1e-17 where a zero belongs.
    nearest = np.rint(result)
    return nearest if float(np.abs(result - nearest).max()) < SNAP_TOLERANCE else result
