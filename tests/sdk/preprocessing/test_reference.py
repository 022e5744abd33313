"""The default preprocessing against the literal one, on small volumes and on real CTs."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nodule_diag.ct.points import index_from_lps, lps_from_index
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.preprocessing.lungs import lung_mask
from nodule_diag.preprocessing.mask import LungMask
from nodule_diag.preprocessing.patch import extract_patches
from nodule_diag.preprocessing.reference import reference_lung_mask, reference_patch

PATCH_TOLERANCE = 1e-3
LEAST_DICE = 0.98
REACH_MM = 56.0
"""Round a nodule. What a cubic spline takes from a voxel falls by 0.268 with each one between: 40 mm round the cube, of
2.5 mm at most, leave 1e-9 of it."""

CASES = {
    "LIDC-IDRI-0314": ("LIDC-IDRI-0314.nii.gz", (-56.94, 131.27, -520.6)),
    "LIDC-IDRI-0001": ("LIDC-IDRI-0001_dicom.zip", (56.17, 86.20, -115.86)),
}


def small_ct(shape: tuple[int, int, int] = (24, 60, 54)) -> CTVolume:
    hu = np.random.default_rng(9).normal(-200, 400, shape).clip(-1024, 3071).astype(np.int16)
    return CTVolume(hu, (2.0, 0.75, 0.8), (10.0, -20.0, 30.0), np.eye(3), path="<test>")


@pytest.mark.parametrize("index_xyz", [(27.0, 30.0, 12.0), (26.3, 31.7, 11.2), (2.0, 57.5, 0.4), (60.0, -9.0, 12.0)])
@pytest.mark.parametrize("masked", [False, True])
def test_default_patch_is_the_literal_one(index_xyz: tuple[float, float, float], masked: bool) -> None:
    ct = small_ct()
    center = lps_from_index(ct, np.array([index_xyz]))
    lungs = np.random.default_rng(1).random(ct.hu.shape) < 0.6 if masked else None
    mask = LungMask.from_array(ct, lungs) if lungs is not None else None
    patch = extract_patches(ct, center, lung_mask=mask)[0]
    np.testing.assert_allclose(patch, reference_patch(ct, center[0], lung_mask=lungs), atol=2e-5)


def nodule_voxels(data_root: Path, case: str) -> np.ndarray:
    """(N, 3) LPS mm of the 50 % consensus mask's voxels."""
    image = sitk.ReadImage(str(data_root / "ct" / f"{case}_nodule_mask.nii.gz"))
    index_xyz = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1]
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    return index_xyz * np.array(image.GetSpacing()) + np.array(image.GetOrigin())


def part_near(ct: CTVolume, center_xyz_mm: tuple[float, float, float]) -> tuple[slice, slice, slice]:
    """The voxels within ``REACH_MM``. All of a CT at 0.5 mm would say the same in minutes and gigabytes."""
    index_zyx = index_from_lps(ct, np.array([center_xyz_mm]))[0][::-1]
    reach = REACH_MM / np.array(ct.spacing_zyx_mm)
    low, high = np.floor(index_zyx - reach).clip(0), np.ceil(index_zyx + reach) + 1
    z, y, x = (slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))
    return z, y, x


@pytest.mark.real_data
@pytest.mark.parametrize("case", CASES)
def test_annotated_nodule_is_inside_the_default_mask(data_root: Path, case: str) -> None:
    ct = read_ct(data_root / "ct" / CASES[case][0])
    mask = lung_mask(ct)
    assert 1500 < mask.to_array().sum() * np.prod(ct.spacing_zyx_mm) / 1000 < 8000  # millilitres
    assert mask.contains(CASES[case][1])
    voxels = nodule_voxels(data_root, case)
    assert all(mask.contains(voxel) for voxel in voxels[::7])


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_both_preprocessings_agree_on_a_real_ct(data_root: Path, case: str) -> None:
    name, center = CASES[case]
    ct = read_ct(data_root / "ct" / name)
    literal = reference_lung_mask(ct)
    found = lung_mask(ct).to_array()
    assert 2 * np.count_nonzero(literal & found) / (literal.sum() + found.sum()) >= LEAST_DICE
    patch = extract_patches(ct, [center], lung_mask=LungMask.from_array(ct, literal))[0]
    part = part_near(ct, center)
    x, y, z = lps_from_index(ct, np.array([[axis.start for axis in part[::-1]]]))[0].tolist()
    near = CTVolume(ct.hu[part], ct.spacing_zyx_mm, (x, y, z), ct.direction, path=ct.path)
    assert np.abs(patch - reference_patch(near, center, lung_mask=literal[part])).max() <= PATCH_TOLERANCE


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("orientation", "suffix"),
    [("LPS", ".mha"), ("RAS", ".nrrd"), ("LPI", ".mha"), ("SRA", ".nii"), ("PIR", ".mha")],
)
def test_patch_does_not_depend_on_how_the_scan_is_stored(
    data_root: Path, tmp_path: Path, orientation: str, suffix: str
) -> None:
    name, center = CASES["LIDC-IDRI-0314"]
    image = sitk.ReadImage(str(data_root / "ct" / name))
    stored = tmp_path / f"stored{suffix}"
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(stored))
    original, copy = read_ct(data_root / "ct" / name), read_ct(stored)
    assert copy.hu.shape == original.hu.shape
    one = extract_patches(original, [center], lung_mask=lung_mask(original))
    other = extract_patches(copy, [center], lung_mask=lung_mask(copy))
    np.testing.assert_allclose(other, one, atol=2e-5)
