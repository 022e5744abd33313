"""The cube against scipy, against analytic volumes and against the literal whole-volume pipeline."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nodule_diag.ct.points import lps_from_index
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CoordinateError
from nodule_diag.preprocessing.mask import LungMask
from nodule_diag.preprocessing.patch import OUTSIDE_LUNG_HU, extract_patches, patch_offsets_mm, window_channels

OBLIQUE = np.array([[np.cos(0.1), -np.sin(0.1), 0.0], [np.sin(0.1), np.cos(0.1), 0.0], [0.0, 0.0, 1.0]])


def volume(hu: np.ndarray, spacing: tuple[float, float, float], direction: np.ndarray | None = None) -> CTVolume:
    """Past the checks of ``from_array``: these arrays need not look like a chest."""
    axes = np.eye(3) if direction is None else direction
    return CTVolume(hu, spacing, (-120.0, 35.5, -300.25), axes, path="<test>")


def noise_ct(
    shape: tuple[int, int, int] = (30, 50, 60),
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.7),
    direction: np.ndarray | None = None,
    seed: int = 3,
) -> CTVolume:
    """Smooth noise over the range of both windows."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.0)
    hu = (noise / noise.std() * 250 - 100).clip(-1024, 3071).astype(np.int16)
    return volume(hu, spacing, direction)


def at_index(ct: CTVolume, *index_xyz: tuple[float, float, float]) -> np.ndarray:
    return lps_from_index(ct, np.array(index_xyz, dtype=float))


def scipy_patch(ct: CTVolume, index_xyz: tuple[float, float, float]) -> np.ndarray:
    """Window, spline and cube with scipy, on the whole volume."""
    offsets = (np.arange(64) - 31.5) * 0.5
    where = [i + offsets / s for i, s in zip(index_xyz[::-1], ct.spacing_zyx_mm, strict=True)]
    inside = np.ones((64, 64, 64), dtype=bool)
    for axis, (at, size) in enumerate(zip(where, ct.hu.shape, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = 64
        inside &= ((at >= -0.5) & (at <= size - 0.5)).reshape(shape)
    lattice = np.meshgrid(*where, indexing="ij")
    channels = []
    for low, high in ((-1000, 400), (-160, 240)):
        window = ((ct.hu.astype(np.float64) - low) / (high - low)).clip(0, 1)
        channels.append(ndimage.map_coordinates(window, lattice, order=3, mode="mirror") * inside)
    return np.stack(channels)


def test_windows() -> None:
    hu = np.array([-1024, -1000, -300, -160, 40, 240, 400, 3071], dtype=np.int16)
    lung, mediastinum = window_channels(hu)
    np.testing.assert_allclose(lung, [0, 0, 0.5, 0.6, 1040 / 1400, 1240 / 1400, 1, 1], atol=1e-6)
    np.testing.assert_allclose(mediastinum, [0, 0, 0, 0, 0.5, 1, 1, 1], atol=1e-6)
    assert lung.dtype == np.float32


@pytest.mark.parametrize("index_xyz", [(30.0, 25.0, 15.0), (29.31, 24.87, 14.49), (3.3, 46.2, 1.1), (-8.0, 20.0, 33.0)])
def test_equals_scipy_also_across_the_border(index_xyz: tuple[float, float, float]) -> None:
    ct = noise_ct()
    patch = extract_patches(ct, at_index(ct, index_xyz))[0]
    np.testing.assert_allclose(patch, scipy_patch(ct, index_xyz), atol=5e-6)
    assert patch.dtype == np.float32


def test_voxels_lie_where_the_docstring_says() -> None:
    """A volume whose HU is linear in millimetres along one axis gives the cube's positions back."""
    spacing = (1.5, 0.7, 0.9)
    shape = (120, 160, 140)
    for axis in range(3):
        ramp = (np.arange(shape[axis], dtype=np.float32) - 70) * np.float32(spacing[axis])
        hu = np.broadcast_to(np.expand_dims(ramp, [a for a in range(3) if a != axis]), shape).astype(np.float32)
        ct = volume(np.ascontiguousarray(hu), spacing)
        patch = extract_patches(ct, at_index(ct, (70.2, 71.0, 69.5)))[0]
        center = ((69.5, 71.0, 70.2)[axis] - 70) * spacing[axis]
        profile = np.moveaxis(patch[1], axis, 0)
        expected = (center + patch_offsets_mm() + 160) / 400
        np.testing.assert_allclose(profile, np.broadcast_to(expected[:, None, None], (64, 64, 64)), atol=1e-5)


def test_an_oblique_scan_gives_the_cube_along_its_own_axes() -> None:
    straight, oblique = noise_ct(), noise_ct(direction=OBLIQUE)
    index = (30.4, 25.2, 14.9)
    one = extract_patches(straight, at_index(straight, index))
    np.testing.assert_allclose(extract_patches(oblique, at_index(oblique, index)), one, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipped_anatomy_gives_the_flipped_cube(axis: int) -> None:
    ct = noise_ct()
    mirrored = volume(np.ascontiguousarray(np.flip(ct.hu, axis)), ct.spacing_zyx_mm)
    index = [30.25, 24.5, 14.75]
    flipped = list(index)
    flipped[2 - axis] = ct.hu.shape[axis] - 1 - index[2 - axis]
    one = extract_patches(ct, at_index(ct, tuple(index)))[0]
    other = extract_patches(mirrored, at_index(mirrored, tuple(flipped)))[0]
    np.testing.assert_allclose(np.flip(other, axis + 1), one, atol=3e-6)


@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.6, 1.0, 2.5, 5.0])] * 3),
    index=st.tuples(*[st.floats(-3, 14)] * 3),
)
@settings(max_examples=10)
def test_any_volume_and_any_place_equal_scipy(shape, spacing, index) -> None:
    ct = noise_ct(shape if shape != (1, 1, 1) else (1, 1, 2), spacing)
    patch = extract_patches(ct, at_index(ct, index))[0]
    expected = scipy_patch(ct, index)
    # A voxel on the very border may count as inside here and as outside there.
    rim = np.abs(patch - expected) > 1e-5
    assert rim.mean() <= 0.1 if _touches_border(ct, index) else not rim.any()


def _touches_border(ct: CTVolume, index_xyz: tuple[float, float, float]) -> bool:
    for i, s, n in zip(index_xyz[::-1], ct.spacing_zyx_mm, ct.hu.shape, strict=True):
        at = i + patch_offsets_mm() / s
        if min(np.abs(at + 0.5).min(), np.abs(at - n + 0.5).min()) < 2e-3:
            return True
    return False


def test_a_batch_equals_single_calls() -> None:
    ct = noise_ct()
    centers = at_index(ct, (30, 25, 15), (10, 40, 3), (55, 2, 28))
    batch = extract_patches(ct, centers)
    assert batch.shape == (3, 2, 64, 64, 64)
    for patch, center in zip(batch, centers, strict=True):
        np.testing.assert_array_equal(patch, extract_patches(ct, center[None])[0])
    assert extract_patches(ct, np.empty((0, 3))).shape == (0, 2, 64, 64, 64)


def test_far_outside_is_zero() -> None:
    ct = noise_ct()
    assert not extract_patches(ct, [(1e4, 0.0, 0.0)]).any()


def test_outside_the_mask_is_air() -> None:
    ct = noise_ct()
    center = at_index(ct, (30, 25, 15))
    lungs = np.zeros(ct.hu.shape, dtype=bool)
    lungs[5:20, 10:40, 12:50] = True
    masked = volume(np.where(lungs, ct.hu, np.int16(OUTSIDE_LUNG_HU)), ct.spacing_zyx_mm)
    patch = extract_patches(ct, center, lung_mask=LungMask.from_array(ct, lungs))
    np.testing.assert_array_equal(patch, extract_patches(masked, center))
    everywhere = LungMask.from_array(ct, np.ones(ct.hu.shape, dtype=bool))
    np.testing.assert_array_equal(extract_patches(ct, center, lung_mask=everywhere), extract_patches(ct, center))
    nowhere = LungMask.from_array(ct, np.zeros(ct.hu.shape, dtype=bool))
    assert not extract_patches(ct, center, lung_mask=nowhere).any()


@pytest.mark.parametrize("centers", [[1.0, 2.0, 3.0], [[1.0, 2.0]], [[float("nan"), 0.0, 0.0]]])
def test_refuses_what_is_not_a_list_of_points(centers: list[float]) -> None:
    with pytest.raises(CoordinateError):
        extract_patches(noise_ct(), centers)
