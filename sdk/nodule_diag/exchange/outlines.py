"""Centroids of points, lines, outlines and solids in space, as DICOM draws them (PS3.3, C.18.6, C.18.9, C.8.8.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nodule_diag.exchange.refusals import UnreadableError

Vectors = npt.NDArray[np.float64]
"""(N, 3), LPS mm."""

SLACK_MM = 5.0
"""How far a centroid may lie outside every outline before its parts count as scattered: one thick slice."""
SMALLEST_MM2 = 1e-9
"""An outline of a smaller area is a line or a point."""
MOST_POINTS = 64
"""How many points of an outline decide at most whether it lies inside another."""
INWARD = 0.01
"""How far these points are moved to the centroid, as a share of the way."""
_COUNTS = {"POINT": (1, 1), "CIRCLE": (2, 2), "ELLIPSE": (4, 4), "ELLIPSOID": (6, 6), "POLYGON": (3, None)}


class Shape(NamedTuple):
    """The centroid and weight of a graphic.

    Attributes:
        centroid: (3,) LPS mm.
        amount: Number of points, or mm, mm2, mm3.
        dimension: 0 points, 1 lines, 2 areas, 3 solids.
    """

    centroid: Vectors
    amount: float
    dimension: int


def shape_of(kind: str, points: Vectors) -> Shape:
    """The centroid of one graphic.

    Args:
        kind: Its DICOM Graphic Type.
        points: (N, 3) its vertices, LPS mm.

    Raises:
        UnreadableError: for an unknown type, or too few or too many vertices.
    """
    least, most = _COUNTS.get(kind, (1, None))
    if kind not in (*_COUNTS, "MULTIPOINT", "POLYLINE"):
        raise UnreadableError(f"its graphic type {kind!r} is unknown")
    if len(points) < least or (most is not None and len(points) > most):
        raise UnreadableError(f"a {kind} of {len(points)} vertices")
    if not np.isfinite(points).all():
        raise UnreadableError(f"a {kind} whose coordinates are not finite")
    if kind == "CIRCLE":
        return Shape(points[0], float(np.pi * np.sum((points[1] - points[0]) ** 2)), 2)
    if kind in ("ELLIPSE", "ELLIPSOID"):
        axes = np.linalg.norm(points[1::2] - points[::2], axis=1)
        return Shape(points.mean(axis=0), float(np.pi / (4 if len(axes) == 2 else 6) * axes.prod()), len(axes))
    closed = len(points) > 3 and np.array_equal(points[0], points[-1])
    if kind == "POLYGON" or (kind == "POLYLINE" and closed):
        return area(points)
    if kind == "POLYLINE" and len(points) > 1:
        lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
        if lengths.sum() > 0:
            return Shape(np.average((points[1:] + points[:-1]) / 2, axis=0, weights=lengths), float(lengths.sum()), 1)
    return Shape(points.mean(axis=0), float(len(points)), 0)


def area(points: Vectors) -> Shape:
    """A plane outline by its area, from signed triangles, so that inner outlines joined by a keyhole are subtracted."""
    middle = points.mean(axis=0)
    spokes = points - middle
    crosses = np.cross(spokes, np.roll(spokes, -1, axis=0))
    normal = crosses.sum(axis=0)
    length = float(np.linalg.norm(normal))
    if length < SMALLEST_MM2:
        return Shape(middle, 0.0, 2)
    weights = crosses @ (normal / length)
    thirds = (spokes + np.roll(spokes, -1, axis=0)) / 3
    return Shape(middle + (weights @ thirds) / weights.sum(), length / 2, 2)


def combined(shapes: Sequence[Shape]) -> Vectors:
    """(3,) LPS mm: the common centroid of the shapes with the most dimensions, weighted by their amount."""
    highest = max(shape.dimension for shape in shapes)
    chosen = [shape for shape in shapes if shape.dimension == highest]
    centroids, amounts = np.array([shape.centroid for shape in chosen]), np.array([shape.amount for shape in chosen])
    return np.asarray(np.average(centroids, axis=0, weights=amounts if amounts.sum() > 0 else None))


def scattered(shapes: Sequence[Shape], centroid: Vectors) -> bool:
    """Whether the centroid of plane outlines lies in none of them, because they belong to separate parts.

    An outline is treated as a disk of its area, and ``SLACK_MM`` is allowed beyond the disk.
    """
    planes = [shape for shape in shapes if shape.dimension == 2 and shape.amount > 0]
    away = (float(np.linalg.norm(shape.centroid - centroid)) - np.sqrt(shape.amount / np.pi) for shape in planes)
    return bool(planes) and min(away) > SLACK_MM


def without_inner(outlines: Sequence[Vectors]) -> list[Shape]:
    """Outlines that are holes in each other (CLOSED_PLANAR_XOR): one inside an odd number of others is subtracted."""
    shapes = [area(outline) for outline in outlines]
    signed = []
    for outline, shape in zip(outlines, shapes, strict=True):
        some = outline[:: -(-len(outline) // MOST_POINTS)]
        inward = some + INWARD * (shape.centroid - some)  # off the outlines that it touches
        depth = sum(_holds(other, inward) for other in outlines if other is not outline)
        signed.append(shape._replace(amount=shape.amount * (-1.0) ** depth))
    return signed


def _holds(outline: Vectors, points: Vectors) -> bool:
    """Whether most of the points lie in the plane of an outline and inside the outline (even-odd rule)."""
    spokes = outline - outline[0]
    normal = np.cross(spokes, np.roll(spokes, -1, axis=0)).sum(axis=0)
    length = float(np.linalg.norm(normal))
    if length < SMALLEST_MM2:
        return False
    level = points[np.abs((points - outline[0]) @ normal) <= 0.01 * length]
    if 2 * len(level) <= len(points):
        return False
    plane = [axis for axis in range(3) if axis != int(np.abs(normal).argmax())]
    here = outline[:, plane] - level[:, None, plane]
    there = np.roll(here, -1, axis=1)
    crosses = (here[..., 1] > 0) != (there[..., 1] > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = here[..., 0] - here[..., 1] * (there[..., 0] - here[..., 0]) / (there[..., 1] - here[..., 1])
    inside = np.count_nonzero(crosses & (at > 0), axis=1) % 2
    return bool(2 * inside.sum() > len(points))
