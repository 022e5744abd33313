"""Points between LPS, RAS, canonical and stored indices; the truth is ITK's own transform."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

import ct_files as make
from nodule_diag.ct import points as geometry
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CoordinateError, UsageError


def volume(stored: str = "LPS", turn_deg: float = 0.0) -> tuple[CTVolume, sitk.Image]:
    """A chest stored in some orientation, and the ITK image it was made from."""
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    image = sitk.DICOMOrient(make.image(direction=[[1, 0, 0], [0, c, -s], [0, s, c]]), stored)
    ct = CTVolume.from_array(
        sitk.GetArrayViewFromImage(image),
        spacing_zyx_mm=image.GetSpacing()[::-1],
        origin_xyz_mm=image.GetOrigin(),
        direction=np.reshape(image.GetDirection(), (3, 3)),
    )
    return ct, image


orientations = st.sampled_from(make.ORIENTATIONS)
turns = st.floats(-20, 20)
fractions = st.tuples(*[st.floats(0, 1)] * 3)


@settings(max_examples=60)
@given(stored=orientations, turn=turns, fraction=fractions)
def test_stored_index_is_the_one_of_itk(stored, turn, fraction):
    ct, image = volume(stored, turn)
    index = np.array(fraction) * (np.array(image.GetSize()) - 1)
    point = np.array(image.TransformContinuousIndexToPhysicalPoint(index.tolist()))

    # 1e-4 mm: axes within 1e-6 of the patient's are taken as parallel, which moves a far voxel by that much.
    np.testing.assert_allclose(geometry.to_lps(ct, [index], space="voxel")[0], point, atol=1e-4)
    found = geometry.stored_voxel(ct, [point])[0]
    assert np.abs(found - index).max() <= 0.5 + 1e-6


@settings(max_examples=60)
@given(stored=orientations, turn=turns, fraction=fractions)
def test_the_voxel_found_holds_the_same_hu(stored, turn, fraction):
    ct, image = volume(stored, turn)
    index = np.rint(np.array(fraction) * (np.array(ct.size_xyz) - 1)).astype(int)
    point = geometry.lps_from_index(ct, [index])
    x, y, z = (int(i) for i in geometry.stored_voxel(ct, point)[0])

    assert image[x, y, z] == ct.hu[index[2], index[1], index[0]]


@settings(max_examples=60)
@given(stored=orientations, turn=turns, fraction=fractions)
def test_index_and_lps_are_inverse(stored, turn, fraction):
    ct, _ = volume(stored, turn)
    index = (np.array(fraction) * 3 - 1) * np.array(ct.size_xyz)
    np.testing.assert_allclose(geometry.index_from_lps(ct, geometry.lps_from_index(ct, [index])), [index], atol=1e-9)


@settings(max_examples=40)
@given(stored=orientations, turn=turns)
def test_bounds_are_those_of_the_voxel_corners(stored, turn):
    ct, image = volume(stored, turn)
    size = np.array(image.GetSize())
    corners = [
        image.TransformContinuousIndexToPhysicalPoint((np.array([i, j, k]) * size - 0.5).tolist())
        for i in (0, 1)
        for j in (0, 1)
        for k in (0, 1)
    ]
    np.testing.assert_allclose(
        geometry.volume_bounds_lps(ct), [np.min(corners, axis=0), np.max(corners, axis=0)], atol=1e-4
    )


def test_ras_is_nibabels_frame(tmp_path):
    path = make.write(tmp_path / "scan.nii.gz")
    ras = nibabel.load(path).affine @ [3, 4, 5, 1]
    ct = read_ct(path)
    np.testing.assert_allclose(
        geometry.to_lps(ct, [ras[:3]], space="ras"), geometry.lps_from_index(ct, [[3, 4, 5]]), atol=1e-4
    )


def test_unknown_space():
    ct, _ = volume()
    with pytest.raises(UsageError, match="'mni'"):
        geometry.to_lps(ct, [[0, 0, 0]], space="mni")


@pytest.mark.parametrize(
    "points",
    [
        *([1, 2, 3], [[1, 2]], [], "abc", [["a", "b", "c"]], [[None, 1, 2]]),
        *([[10**400, 0, 0]], [["a"] * 3] * 9999),
    ],
)
def test_malformed_points(points):
    ct, _ = volume()
    with pytest.raises(CoordinateError) as caught:
        geometry.to_lps(ct, points)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("space", ["lps", "ras", "voxel"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_must_be_finite(space, bad):
    ct, _ = volume()
    with pytest.raises(CoordinateError, match="not a finite number"):
        geometry.to_lps(ct, [[0, 0, 0], [0, bad, 0]], space=space)


class TestRequireInside:
    """The border belongs to the volume; beyond it there is nothing to diagnose."""

    @pytest.mark.parametrize("axis", range(3))
    @pytest.mark.parametrize("end", [0, 1])
    def test_border(self, axis, end):
        ct, _ = volume("SAR")
        index = np.array([10.0, 10.0, 5.0])
        index[axis] = (-0.5, ct.size_xyz[axis] - 0.5)[end]
        geometry.require_inside(ct, geometry.lps_from_index(ct, [index])[0])
        stored = geometry.stored_voxel(ct, geometry.lps_from_index(ct, [index]))[0]
        assert (stored >= 0).all()
        assert (stored < ct.stored_size_xyz).all()
        index[axis] += (-0.01, 0.01)[end]
        with pytest.raises(CoordinateError, match=r"outside the CT, which spans x -20\.88 to 0\.12"):
            geometry.require_inside(ct, geometry.lps_from_index(ct, [index])[0])

    def test_mirror_is_looked_up_in_the_lungs_only_when_it_is_in_the_volume(self):
        ct, _ = volume()
        asked = []

        def in_lung(point):
            asked.append(point.tolist())
            return True

        with pytest.raises(CoordinateError) as caught:
            geometry.require_inside(ct, (10, -20, -120), in_lung=in_lung)
        assert asked == [[-10, 20, -120]]
        assert "--space ras" in caught.value.hint
        with pytest.raises(CoordinateError) as caught:
            geometry.require_inside(ct, (500, -20, -120), in_lung=in_lung)
        assert len(asked) == 1
        assert "mirrored" not in caught.value.hint
