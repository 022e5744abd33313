"""Maps, measurements and equations 8 and 9 against numbers worked out another way."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError
from nodule_diag.results.diagnosis import Cam, Faithfulness, SimilarCase
from nodule_diag.results.maps import CubeMap
from nodule_diag.results.segmentation import Segmentation

CENTER = (-31.0, 12.5, -140.0)
AXIS_MM = (np.arange(16) - 7.5) * 2.0


def soft_ball(
    radius_mm: float, *, at_zyx_mm: tuple[float, float, float] = (0.0, 0.0, 0.0), width_mm: float = 4.0
) -> np.ndarray:
    """(16, 16, 16) probability that falls through 0.5 at the ball's surface."""
    z, y, x = (AXIS_MM - shift for shift in at_zyx_mm)
    distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    return np.clip(0.5 + (radius_mm - distance) / width_mm, 0, 1).astype(np.float32)


def segmented(values: np.ndarray, threshold: float = 0.5) -> Segmentation:
    return Segmentation(values, CENTER, np.eye(3), threshold=threshold)


def some_ct(*, turn_deg: float = 0.0, shape: tuple[int, int, int] = (30, 44, 40)) -> CTVolume:
    angle = np.deg2rad(turn_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return CTVolume.from_array(
        np.random.default_rng(0).integers(-1000, 300, shape).astype(np.int16),
        spacing_zyx_mm=(2.5, 1.2, 1.5),
        origin_xyz_mm=(-60.0, -14.0, -175.0),
        direction=turn,
    )


def resampled_by_itk(cube: CubeMap, ct: CTVolume) -> np.ndarray:
    """Trilinear resampling of the 16-grid by ITK; padded by its own border so that the faces behave alike."""
    image = sitk.GetImageFromArray(np.pad(cube.values, 1, mode="edge").astype(np.float64))
    image.SetSpacing((2.0,) * 3)
    image.SetDirection(cube.direction.ravel().tolist())
    image.SetOrigin((np.asarray(cube.center_xyz_mm) + cube.direction @ np.full(3, -8.5 * 2.0)).tolist())
    grid = sitk.Image(*ct.size_xyz, sitk.sitkFloat64)
    grid.SetSpacing(ct.spacing_xyz_mm)
    grid.SetDirection(ct.direction.ravel().tolist())
    grid.SetOrigin(ct.origin_xyz_mm)
    return sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat64))


def voxel_centres(ct: CTVolume) -> np.ndarray:
    """(z, y, x, 3) LPS mm."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in ct.hu.shape), indexing="ij")
    return np.stack([x, y, z], -1) * np.array(ct.spacing_xyz_mm) @ ct.direction.T + np.array(ct.origin_xyz_mm)


@pytest.mark.parametrize("turn_deg", [0.0, 12.0])
@pytest.mark.parametrize("center", [CENTER, (-58.0, -10.0, -172.0)])
def test_samples_are_trilinear(turn_deg: float, center: tuple[float, float, float]) -> None:
    """Against ITK, at the voxels of a straight and a turned CT, inside it and across its corner."""
    ct = some_ct(turn_deg=turn_deg)
    cube = Cam(np.random.default_rng(1).random((16, 16, 16), dtype=np.float32), center, ct.direction)
    points = voxel_centres(ct)
    values = cube.sample(points.reshape(-1, 3)).reshape(ct.hu.shape)
    assert values.dtype == np.float32
    inside = np.all(np.abs((points - np.array(center)) @ cube.direction) <= 16.0, axis=-1)
    assert inside.any()
    np.testing.assert_allclose(values[inside], resampled_by_itk(cube, ct)[inside], atol=1e-5)
    assert not values[~inside].any()


def test_a_map_has_one_shape() -> None:
    with pytest.raises(ValueError, match=r"\(16, 16, 15\)"):
        Cam(np.zeros((16, 16, 15), np.float32), CENTER, np.eye(3))


@pytest.mark.parametrize(("radius_mm", "tolerance"), [(3.0, 0.09), (5.0, 0.04), (8.0, 0.02), (11.0, 0.01)])
def test_diameter_of_a_ball(radius_mm: float, tolerance: float) -> None:
    """Chords of a 2 mm grid run inside a curved surface: small balls measure a little small."""
    nodule = segmented(soft_ball(radius_mm))
    assert nodule.diameter_mm == pytest.approx(2 * radius_mm, rel=tolerance)
    assert nodule.diameter_mm == pytest.approx((6 * nodule.volume_mm3 / np.pi) ** (1 / 3))
    assert not nodule.touches_edge
    assert nodule.offset_mm == pytest.approx(np.sqrt(3) * 0.25)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), level=st.floats(0.35, 0.6), threshold=st.sampled_from([0.25, 0.375, 0.5]))
def test_nodule_is_the_component_nearest_to_the_centre(seed: int, level: float, threshold: float) -> None:
    """Against scipy: its zoom by map_coordinates, its labelling, and a search over all voxels."""
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).random((16, 16, 16)), 1.0)
    # In steps of 1/256 every interpolated value is exact in float32 too, so no rounding decides what reaches it.
    values = (np.round(np.clip((rough - rough.mean()) * 4 + level, 0, 1) * 256) / 256).astype(np.float32)
    cell = (np.arange(64) + 0.5) / 4 - 0.5
    fine = ndimage.map_coordinates(
        values.astype(float), np.meshgrid(cell, cell, cell, indexing="ij"), order=1, mode="nearest"
    )
    labels, _ = ndimage.label(fine >= threshold)
    distance = np.linalg.norm(np.stack(np.meshgrid(*[np.arange(64) - 31.5] * 3, indexing="ij")), axis=0)
    nodule = segmented(values, threshold)
    if not labels.any():
        assert nodule.volume_mm3 == 0.0
        return
    nearest = distance[labels > 0].min()
    candidates = {int(label) for label in labels[(labels > 0) & (distance == nearest)]}
    assert any(np.array_equal(nodule.nodule, labels == label) for label in candidates)
    assert nodule.volume_mm3 == pytest.approx(nodule.nodule.sum() * 0.125)
    assert nodule.offset_mm == pytest.approx(nearest * 0.5)


def test_a_second_nodule_does_not_count() -> None:
    alone = segmented(soft_ball(4.0))
    both = segmented(np.maximum(soft_ball(4.0), soft_ball(3.0, at_zyx_mm=(10.0, 10.0, -10.0))))
    assert both.volume_mm3 == alone.volume_mm3 > 0


def test_nothing_segmented() -> None:
    nodule = segmented(np.full((16, 16, 16), 0.49, np.float32))
    assert nodule.to_dict() == {"volume_mm3": 0.0, "diameter_mm": 0.0}
    assert nodule.offset_mm is None
    assert not nodule.touches_edge


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [-1, 1])
def test_touching_an_edge(axis: int, side: int) -> None:
    shift = [0.0, 0.0, 0.0]
    shift[axis] = side * 6.0
    assert segmented(soft_ball(10.5, at_zyx_mm=tuple(shift))).touches_edge
    shift[axis] = side * 4.0
    assert not segmented(soft_ball(10.5, at_zyx_mm=tuple(shift))).touches_edge


def test_whole_cube_is_the_largest_volume() -> None:
    assert segmented(np.ones((16, 16, 16), np.float32)).volume_mm3 == 32.0**3


def test_faithfulness_by_loops() -> None:
    """Equations 8 and 9 written out."""
    rng = np.random.default_rng(5)
    cam, sem = rng.random((2, 16, 16, 16), dtype=np.float32)
    inner = outer = inner_weight = outer_weight = 0.0
    for index in np.ndindex(cam.shape):
        inner += float(cam[index]) * float(sem[index])
        outer += float(cam[index]) * (1 - float(sem[index]))
        inner_weight += float(sem[index])
        outer_weight += 1 - float(sem[index])
    result = Faithfulness.of(cam, sem)
    assert result.cam_nodule == pytest.approx(inner / inner_weight)
    assert result.cam_background == pytest.approx(outer / outer_weight)
    assert result.margin == pytest.approx(inner / inner_weight - outer / outer_weight)


def test_faithfulness_of_extremes() -> None:
    ones, zeros = np.ones((16, 16, 16), np.float32), np.zeros((16, 16, 16), np.float32)
    half = soft_ball(8.0, width_mm=1e-3)
    assert Faithfulness.of(half, half).to_dict() == {"cam_nodule": 1.0, "cam_background": 0.0, "margin": 1.0}
    assert Faithfulness.of(ones, zeros) == Faithfulness(0.0, 1.0)
    assert Faithfulness.of(ones, ones) == Faithfulness(1.0, 0.0)


def test_results_are_frozen_and_plain_json() -> None:
    similar = SimilarCase("c", "p", 0.1, 1, "biopsy", "nodule", 0.7, 3.8, (3.0, 4.0), None)
    with pytest.raises(AttributeError):
        similar.label = 0  # type: ignore[misc]
    assert json.loads(json.dumps(similar.to_dict()))["reader_scores"] == [3.0, 4.0]
    assert issubclass(CTError, ValueError)
