"""The spline matrix against scipy, SimpleITK and the properties of an interpolation."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nodule_diag.preprocessing.spline import PREFILTER_REACH, bspline_matrix

SEED = 20_240_611


@pytest.mark.parametrize("size", [2, 3, 5, 17, 64, 300])
def test_equals_scipy_cubic_spline_with_mirror_boundary(size: int) -> None:
    rng = np.random.default_rng(SEED)
    samples = rng.normal(size=size)
    positions = np.concatenate([rng.uniform(0, size - 1, 50), np.arange(size)])
    expected = ndimage.map_coordinates(samples, positions[None], order=3, mode="mirror")
    np.testing.assert_allclose(bspline_matrix(size, positions) @ samples, expected, atol=2e-6)


@pytest.mark.parametrize("size", [4, 9, 40])
def test_half_voxel_rim_is_the_mirror_too(size: int) -> None:
    samples = np.random.default_rng(SEED).normal(size=size)
    positions = np.array([-0.5, -0.25, size - 0.75, size - 0.5])
    expected = ndimage.map_coordinates(samples, positions[None], order=3, mode="mirror")
    np.testing.assert_allclose(bspline_matrix(size, positions) @ samples, expected, atol=2e-6)


def test_equals_simpleitk_bspline_in_three_dimensions() -> None:
    rng = np.random.default_rng(SEED)
    volume = rng.normal(size=(14, 18, 23)).astype(np.float32)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((0.7, 0.8, 2.5))
    new_size, new_spacing, origin = (20, 22, 40), (0.5, 0.5, 0.5), (1.3, 2.1, 4.9)
    expected = sitk.GetArrayFromImage(
        sitk.Resample(image, new_size, sitk.Transform(), sitk.sitkBSpline, origin, new_spacing)
    )
    x, y, z = (
        bspline_matrix(n, (o + s * np.arange(m)) / old)
        for n, o, s, m, old in zip(image.GetSize(), origin, new_spacing, new_size, image.GetSpacing(), strict=True)
    )
    np.testing.assert_allclose(np.einsum("iz,jy,kx,zyx->ijk", z, y, x, volume), expected, atol=5e-6)


@given(size=st.integers(1, 90), start=st.floats(-60, 120), step=st.floats(0.05, 3))
@settings(max_examples=80)
def test_rows_sum_to_one_inside_and_vanish_outside(size: int, start: float, step: float) -> None:
    positions = start + step * np.arange(40)
    sums = bspline_matrix(size, positions).sum(axis=1)
    clearly_inside = (positions > -0.499) & (positions < size - 0.501)
    clearly_outside = (positions < -0.502) | (positions > size - 0.498)
    np.testing.assert_allclose(sums[clearly_inside], 1, atol=1e-6)
    assert not sums[clearly_outside].any()


@given(size=st.integers(1, 60), data=st.data())
@settings(max_examples=60)
def test_flipping_the_axis_flips_the_matrix(size: int, data: st.DataObject) -> None:
    positions = np.array(data.draw(st.lists(st.floats(-0.4, size - 0.6), min_size=1, max_size=20)))
    flipped = bspline_matrix(size, size - 1 - positions)[:, ::-1]
    np.testing.assert_allclose(bspline_matrix(size, positions), flipped, atol=1e-6)


def test_matrix_is_banded() -> None:
    matrix = bspline_matrix(400, [200.3])[0]
    (used,) = np.nonzero(matrix)
    assert used.min() >= 200 - 1 - PREFILTER_REACH
    assert used.max() <= 200 + 2 + PREFILTER_REACH


def test_reproduces_cubic_polynomials_away_from_the_ends() -> None:
    index = np.arange(120) / 50.0
    positions = np.linspace(45, 75, 31)
    values = bspline_matrix(120, positions).astype(np.float64) @ (index**3 - 2 * index)
    at = positions / 50.0
    np.testing.assert_allclose(values, at**3 - 2 * at, atol=1e-5)


def test_one_sample_is_a_constant() -> None:
    np.testing.assert_allclose(bspline_matrix(1, [-0.5, 0.0, 0.5, 0.6])[:, 0], [1, 1, 1, 0], atol=1e-6)


@pytest.mark.parametrize(("size", "positions"), [(0, [0.0]), (4, [float("nan")]), (4, [[1.0]])])
def test_refuses_what_is_not_an_axis(size: int, positions: list[float]) -> None:
    with pytest.raises(ValueError, match=r"axis|positions"):
        bspline_matrix(size, positions)
