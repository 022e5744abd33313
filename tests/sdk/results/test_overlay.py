"""Overlays, read back by SimpleITK and nibabel: do they lie on the CT as its file stores it?"""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import OutputError
from nodule_diag.results.diagnosis import Cam
from nodule_diag.results.overlay import write_cam, write_segmentation
from nodule_diag.results.segmentation import Segmentation

NODULE_XYZ_MM = np.array([-31.0, 12.5, -140.0])
RADIUS_MM = 7.0
ORIENTATIONS = [
    "".join(letters[k] for k in order)
    for order in itertools.permutations(range(3))
    for letters in itertools.product("LR", "PA", "SI")
]


def stored_ct(folder: Path, orientation: str, *, turn_deg: float = 0.0) -> tuple[CTVolume, sitk.Image]:
    """A small CT stored in an orientation, and what SimpleITK thinks of it."""
    canonical = sitk.Image(40, 44, 30, sitk.sitkInt16)
    canonical.SetSpacing((1.5, 1.2, 2.5))
    turn = np.deg2rad(turn_deg)
    canonical.SetDirection((np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1))
    canonical.SetOrigin((-60.0, -14.0, -175.0))
    noise = np.random.default_rng(0).integers(-1000, 200, (30, 44, 40)).astype(np.int16)
    image = sitk.GetImageFromArray(noise)
    image.CopyInformation(canonical)
    image = sitk.DICOMOrient(image, orientation)
    path = folder / "ct.nii"
    sitk.WriteImage(image, str(path))
    return read_ct(path), sitk.ReadImage(str(path))


def ball(ct: CTVolume) -> np.ndarray:
    """(16, 16, 16) soft ball of RADIUS_MM in the cube's middle, 0.5 on its surface."""
    axis = (np.arange(16) - 7.5) * 2
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    return np.clip(0.5 + (RADIUS_MM - distance) / 8, 0, 1).astype(np.float32)


def physical_points(image: sitk.Image) -> np.ndarray:
    """(z, y, x, 3) LPS mm of every voxel, by ITK's formula from ITK's numbers."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in reversed(image.GetSize())), indexing="ij")
    scaled = np.stack([x, y, z], -1) * np.array(image.GetSpacing())
    return scaled @ np.array(image.GetDirection()).reshape(3, 3).T + np.array(image.GetOrigin())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_lies_on_the_stored_ct(tmp_path: Path, orientation: str) -> None:
    ct, image = stored_ct(tmp_path, orientation)
    assert ct.stored_orientation == orientation
    center = (float(NODULE_XYZ_MM[0]), float(NODULE_XYZ_MM[1]), float(NODULE_XYZ_MM[2]))
    write_cam(tmp_path / "cam.nii.gz", ct, Cam(ball(ct), center, ct.direction))
    write_segmentation(tmp_path / "segmentation.nii.gz", ct, Segmentation(ball(ct), center, ct.direction))

    for name in ("cam", "segmentation"):
        overlay = sitk.ReadImage(str(tmp_path / f"{name}.nii.gz"))
        assert overlay.GetSize() == image.GetSize()
        np.testing.assert_allclose(overlay.GetSpacing(), image.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(overlay.GetOrigin(), image.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(overlay.GetDirection(), image.GetDirection(), atol=1e-6)
        by_nibabel = nib.load(tmp_path / f"{name}.nii.gz")
        np.testing.assert_allclose(by_nibabel.affine, nib.load(tmp_path / "ct.nii").affine, atol=1e-4)
        np.testing.assert_allclose(by_nibabel.get_qform(), by_nibabel.get_sform(), atol=1e-4)
        values = sitk.GetArrayFromImage(overlay).astype(float)
        np.testing.assert_allclose(by_nibabel.get_fdata().T, values, atol=1e-6)
        where = physical_points(image)
        centroid = (where * values[..., None]).sum(axis=(0, 1, 2)) / values.sum()
        np.testing.assert_allclose(centroid, NODULE_XYZ_MM, atol=0.4)  # voxels are up to 2.5 mm

    mask = values > 0
    distance = np.linalg.norm(where - NODULE_XYZ_MM, axis=-1)
    assert mask[distance < RADIUS_MM - 1].all()
    assert not mask[distance > RADIUS_MM + 1].any()


def test_lies_on_an_oblique_ct(tmp_path: Path) -> None:
    ct, image = stored_ct(tmp_path, "LPS", turn_deg=11.0)
    center = (float(NODULE_XYZ_MM[0]), float(NODULE_XYZ_MM[1]), float(NODULE_XYZ_MM[2]))
    ramp = np.broadcast_to(np.linspace(0, 1, 16, dtype=np.float32), (16, 16, 16)).copy()
    write_cam(tmp_path / "cam.nii.gz", ct, Cam(ramp, center, ct.direction))
    overlay = sitk.ReadImage(str(tmp_path / "cam.nii.gz"))
    np.testing.assert_allclose(overlay.GetDirection(), image.GetDirection(), atol=1e-6)
    values = sitk.GetArrayFromImage(overlay)
    offset = (physical_points(image) - NODULE_XYZ_MM) @ np.array(image.GetDirection()).reshape(3, 3)
    inner = (np.abs(offset) < 14.9).all(axis=-1)
    expected = (offset[..., 0] / 2 + 7.5) / 15
    np.testing.assert_allclose(values[inner], expected[inner], atol=0.5 / 255 + 1e-6)
    assert not values[(np.abs(offset) > 16.01).any(axis=-1)].any()


def test_cube_across_the_border(tmp_path: Path) -> None:
    ct, image = stored_ct(tmp_path, "RAS")
    corner = tuple(float(value) for value in ct.origin_xyz_mm)
    write_cam(tmp_path / "cam.nii.gz", ct, Cam(np.ones((16, 16, 16), np.float32), corner, ct.direction))
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "cam.nii.gz")))
    near = (np.abs(physical_points(image) - np.array(corner)) <= 16).all(axis=-1)
    np.testing.assert_allclose(values, near, atol=1e-6)


def test_is_deterministic_and_small(tmp_path: Path) -> None:
    ct, _ = stored_ct(tmp_path, "LPS")
    cam = Cam(ball(ct), (-31.0, 12.5, -140.0), ct.direction)
    for name in ("a", "b"):
        write_cam(tmp_path / f"{name}.nii.gz", ct, cam)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (tmp_path / "a.nii.gz").stat().st_size < 20_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz", "ct.nii"]


def test_full_disk(tmp_path: Path) -> None:
    ct, _ = stored_ct(tmp_path, "LPS")
    cam = Cam(ball(ct), (-31.0, 12.5, -140.0), ct.direction)
    with pytest.raises(OutputError, match="cannot write"):
        write_cam(tmp_path / "no" / "folder.nii.gz", ct, cam)
