"""Centroids of graphics in space, against formulas and against counted pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from skimage.draw import polygon2mask

from nodule_diag.exchange.outlines import Shape, area, combined, scattered, shape_of, without_inner
from nodule_diag.exchange.refusals import UnreadableError

turns = st.tuples(*[st.floats(-180, 180)] * 3).map(lambda angles: Rotation.from_euler("xyz", angles, degrees=True))
moves = st.tuples(*[st.floats(-500, 500)] * 3).map(np.array)
radii = st.lists(st.floats(1, 9), min_size=3, max_size=12)


def flat(points) -> np.ndarray:
    return np.column_stack([points, np.zeros(len(points))])


@settings(max_examples=50)
@given(radii=radii, turn=turns, move=moves, backwards=st.booleans())
def test_an_outline_has_the_centroid_of_its_pixels(radii, turn, move, backwards):
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    star = np.column_stack([np.cos(angles), np.sin(angles)]) * np.array(radii)[:, None]
    step = 0.05
    mask = polygon2mask((400, 400), star / step + 200)
    expected = flat([(np.argwhere(mask).mean(axis=0) - 200) * step])
    points = flat(star)[:: -1 if backwards else 1]
    found = area(turn.apply(points) + move)
    np.testing.assert_allclose(found.centroid, turn.apply(expected)[0] + move, atol=0.05)
    assert found.amount == pytest.approx(mask.sum() * step**2, rel=0.03, abs=0.2)
    again = shape_of("POLYLINE", np.vstack([points, points[:1]]))
    np.testing.assert_allclose(again.centroid, area(points).centroid, atol=1e-9)
    assert again.dimension == 2


SQUARE = flat([(0, 0), (10, 0), (10, 10), (0, 10)])
HOLE = flat([(6, 4), (8, 4), (8, 6), (6, 6)])


@given(turn=turns, move=moves)
def test_holes_are_subtracted(turn, move):
    """By a keyhole, where the inner outline runs the other way, and by CLOSEDPLANAR_XOR."""
    expected = turn.apply([(500 - 4 * 7) / 96, (500 - 4 * 5) / 96, 0]) + move
    keyhole = np.vstack([SQUARE, SQUARE[:1], HOLE[::-1], HOLE[-1:]])
    found = area(turn.apply(keyhole) + move)
    np.testing.assert_allclose(found.centroid, expected, atol=1e-6)
    assert found.amount == pytest.approx(96)
    island = flat([(6.5, 4.5), (7.5, 4.5), (7.5, 5.5), (6.5, 5.5)])
    apart = SQUARE + np.array([0, 0, 3])
    signed = without_inner([turn.apply(outline) + move for outline in (SQUARE, HOLE, island, apart)])
    assert [shape.amount for shape in signed] == pytest.approx([100, -4, 1, 100])
    np.testing.assert_allclose(combined(signed[:2]), expected, atol=1e-6)


@given(turn=turns, move=moves, start=st.integers(0, 359))
def test_a_hole_that_touches_the_outer_outline_is_subtracted(turn, move, start):
    angles = np.radians(np.arange(360))
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    outer, inner = flat(circle * 8 + [10, 20]), flat(np.roll(circle, start, axis=0) * 5 + [13, 20])
    neighbour = flat(circle + np.array([19, 20]))
    signed = without_inner([turn.apply(outline) + move for outline in (outer, inner, neighbour)])
    assert [np.sign(shape.amount) for shape in signed] == [1, -1, 1]
    expected = turn.apply([(10 * 64 - 13 * 25) / 39, 20, 0]) + move
    np.testing.assert_allclose(combined(signed[:2]), expected, atol=1e-6)


@given(turn=turns, move=moves)
def test_a_hole_along_the_outer_outline_is_subtracted(turn, move):
    """It shares an edge, and so does what lies beside it."""
    hole, beside = (flat([(x, 2), (10, 2), (10, 8), (x, 8)]) for x in (7, 13))
    signed = without_inner([turn.apply(outline) + move for outline in (SQUARE, hole, beside)])
    assert [shape.amount for shape in signed] == pytest.approx([100, -18, 18])


@given(turn=turns, move=moves)
def test_other_graphics(turn, move):
    def there(points):
        return turn.apply(np.array(points, float)) + move

    arms = np.concatenate([[axis, -axis] for axis in np.diag([3.0, 2.0, 1.0])])
    for kind, points, centroid, amount, dimension in (
        ("POINT", [(1, 2, 3)], (1, 2, 3), 1, 0),
        ("MULTIPOINT", [(0, 0, 0), (2, 0, 0), (4, 0, 3)], (2, 0, 1), 3, 0),
        ("POLYLINE", [(0, 0, 0), (8, 0, 0), (8, 2, 0)], (4.8, 0.2, 0), 10, 1),
        ("CIRCLE", [(1, 1, 1), (1, 3, 1)], (1, 1, 1), 4 * np.pi, 2),
        ("ELLIPSE", arms[:4], (0, 0, 0), 6 * np.pi, 2),
        ("ELLIPSOID", arms, (0, 0, 0), 4 / 3 * np.pi * 6, 3),
        ("POLYGON", [(0, 0, 0), (3, 0, 0), (0, 3, 0)], (1, 1, 0), 4.5, 2),
        ("POLYGON", [(0, 0, 0), (1, 0, 0), (2, 0, 0)], (1, 0, 0), 0, 2),
        ("POLYLINE", [(1, 1, 1), (1, 1, 1)], (1, 1, 1), 2, 0),
    ):
        found = shape_of(kind, there(points))
        np.testing.assert_allclose(found.centroid, there([centroid])[0], atol=1e-9)
        assert (found.amount, found.dimension) == (pytest.approx(amount, abs=1e-6), dimension)


@pytest.mark.parametrize(
    ("kind", "count"), [("CIRCLE", 1), ("ELLIPSE", 3), ("ELLIPSOID", 4), ("POLYGON", 2), ("POINT", 2), ("SPLINE", 4)]
)
def test_graphics_that_are_none(kind, count):
    with pytest.raises(UnreadableError):
        shape_of(kind, np.ones((count, 3)))


def test_not_finite():
    with pytest.raises(UnreadableError, match="not finite"):
        shape_of("POINT", np.array([[np.nan, 0, 0]]))


def test_most_dimensions_count():
    point, line, plane = Shape(np.zeros(3), 9, 0), Shape(np.ones(3), 9, 1), Shape(np.full(3, 2.0), 1, 2)
    assert combined([point, line, plane]).tolist() == [2, 2, 2]
    assert combined([point, line]).tolist() == [1, 1, 1]
    assert combined([plane, plane._replace(centroid=np.full(3, 5.0), amount=2)]).tolist() == [4, 4, 4]
    assert combined([plane._replace(amount=0.0)]).tolist() == [2, 2, 2]


def test_parts_that_lie_apart():
    planes = [Shape(np.array([0, 0, z]), 50.0, 2) for z in range(5)]
    assert not scattered(planes, combined(planes))
    apart = [*planes, *(shape._replace(centroid=shape.centroid + np.array([40, 0, 0])) for shape in planes)]
    assert scattered(apart, combined(apart))
    assert not scattered([Shape(np.zeros(3), 1, 0)], np.full(3, 99.0))
