"""NIfTI: what SimpleITK and nibabel know how to read too, and the checksums that they do not reach."""

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

import ct_files as make
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import CTError


@pytest.mark.parametrize("stored", ["RAS", "LPS", "LAS", "PIR", "SAL"])
def test_nifti_written_by_nibabel(tmp_path, stored):
    hu = make.chest_hu()
    plain = make.nifti(hu)
    target = nibabel.orientations.axcodes2ornt(tuple(stored))
    turned = plain.as_reoriented(
        nibabel.orientations.ornt_transform(nibabel.orientations.io_orientation(plain.affine), target)
    )
    turned.to_filename(tmp_path / "scan.nii.gz")
    ct = read_ct(tmp_path / "scan.nii.gz")

    np.testing.assert_array_equal(ct.hu, hu)
    np.testing.assert_allclose(ct.origin_xyz_mm, make.ORIGIN_XYZ, atol=1e-4)
    # nibabel and this package name an axis by where it runs to.
    assert ct.stored_orientation == stored


@pytest.mark.parametrize("cls", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_versions_and_byte_orders(tmp_path, cls, order):
    native = make.nifti(cls=cls)
    header = native.header.as_byteswapped(order)
    cls(native.get_fdata().astype(np.int16), native.affine, header).to_filename(tmp_path / "scan.nii")
    make.assert_same(read_ct(tmp_path / "scan.nii"), make.image())


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32, np.float64])
def test_integral_values_become_int16(tmp_path, dtype):
    written = nibabel.Nifti1Image(make.chest_hu().astype(dtype).T, make.ras_affine(), dtype=dtype)
    written.to_filename(tmp_path / "scan.nii")
    ct = read_ct(tmp_path / "scan.nii")
    assert ct.hu.dtype == np.int16
    np.testing.assert_array_equal(ct.hu, make.chest_hu())


def test_scaled_unsigned_values(tmp_path):
    stored = (make.chest_hu().astype(np.int32) + 1024).astype(np.uint16)
    # nibabel resets the scaling of what it writes from an array; put it into the file.
    raw = nibabel.Nifti1Image(stored.T, make.ras_affine())
    raw.to_filename(tmp_path / "scan.nii")
    make.patched(tmp_path / "scan.nii", 112, "<2f", 1.0, -1024.0)
    ct = read_ct(tmp_path / "scan.nii")
    assert ct.hu.dtype == np.int16
    np.testing.assert_array_equal(ct.hu, make.chest_hu())


def test_fractional_values_stay_float(tmp_path):
    hu = make.chest_hu().astype(np.float32)
    # The first fraction comes late, after integral slices have been stored.
    hu[7:] += 0.25
    make.nifti(hu).to_filename(tmp_path / "scan.nii")
    ct = read_ct(tmp_path / "scan.nii")
    assert ct.hu.dtype == np.float32
    np.testing.assert_array_equal(ct.hu, np.maximum(hu, -1024))


@pytest.mark.parametrize("last_axis", [1, -1])
def test_qform_alone(tmp_path, last_axis):
    turn = np.deg2rad(170)
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    affine = make.ras_affine(direction=rotation * [1, 1, last_axis])
    written = make.nifti(affine_ras=affine)
    written.set_qform(affine, code=1)
    written.set_sform(None, code=0)
    written.to_filename(tmp_path / "scan.nii")
    truth = sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / "scan.nii")), "LPS")
    make.assert_same(read_ct(tmp_path / "scan.nii"), truth)


def test_sform_and_qform_that_disagree(tmp_path):
    written = make.nifti()
    moved = make.ras_affine(origin=(0, 0, 0))
    written.set_qform(moved, code=1)
    written.set_sform(make.ras_affine(), code=1)
    written.to_filename(tmp_path / "scan.nii")
    ct = read_ct(tmp_path / "scan.nii")
    np.testing.assert_allclose(ct.origin_xyz_mm, make.ORIGIN_XYZ, atol=1e-4)
    assert "disagree by 132.1 mm" in ct.warnings[0]


def test_forms_that_agree_at_two_corners_disagree(tmp_path):
    """A square slice whose axes are swapped."""
    written = make.nifti(make.chest_hu((12, 32, 32)), make.ras_affine(spacing=(0.75, 0.75, 2.5)))
    swapped = make.ras_affine(spacing=(0.75, 0.75, 2.5))[:, [1, 0, 2, 3]]
    written.set_qform(make.ras_affine(spacing=(0.75, 0.75, 2.5)), code=1)
    written.set_sform(swapped, code=1)
    written.to_filename(tmp_path / "scan.nii")
    assert "sform and qform disagree by 32.9 mm" in read_ct(tmp_path / "scan.nii").warnings[0]


def test_metres(tmp_path):
    affine = make.ras_affine() * np.array([[1e-3]] * 3 + [[1]])
    written = make.nifti(affine_ras=affine)
    written.header.set_xyzt_units("meter")
    written.to_filename(tmp_path / "scan.nii")
    make.assert_same(read_ct(tmp_path / "scan.nii"), make.image(), atol=1e-3)


def test_singleton_fourth_dimension_is_a_volume(tmp_path):
    nibabel.Nifti1Image(make.chest_hu().T[..., None], make.ras_affine()).to_filename(tmp_path / "scan.nii")
    make.assert_same(read_ct(tmp_path / "scan.nii"), make.image())


def test_a_checksum_that_comes_after_the_last_block_of_voxels_is_verified(tmp_path):
    packed = gzip.compress(make.write(tmp_path / "plain.nii").read_bytes(), 0, mtime=0)
    # A file name in the gzip header moves the last two bytes of the checksum into the second block that is read.
    name = b"x" * (2**20 + 2 - len(packed) - 1)
    data = bytearray(packed[:3] + b"\x08" + packed[4:10] + name + b"\0" + packed[10:])
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(data)
    make.assert_same(read_ct(path), make.image())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CTError, match="Incorrect checksum"):
        read_ct(path)
