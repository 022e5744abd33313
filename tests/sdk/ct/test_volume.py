"""Reading a CT: one array and one geometry, whatever the file stored. The truth is SimpleITK's and nibabel's."""

import gzip
import threading
import tracemalloc

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

import ct_files as make
from nodule_diag.ct import limits
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError

FORMATS = ("scan.nii", "scan.nii.gz", "scan.mha", "scan.mhd", "scan.nrrd")


def assert_same(ct: CTVolume, expected: sitk.Image, *, atol: float = 1e-4) -> None:
    """Equal to an ITK image that is already in LPS order."""
    np.testing.assert_array_equal(ct.hu, sitk.GetArrayViewFromImage(expected))
    np.testing.assert_allclose(ct.spacing_xyz_mm, expected.GetSpacing(), atol=atol)
    np.testing.assert_allclose(ct.origin_xyz_mm, expected.GetOrigin(), atol=atol)
    np.testing.assert_allclose(ct.direction.ravel(), expected.GetDirection(), atol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("compress", [False, True])
def test_every_format_agrees_with_simpleitk(tmp_path, name, compress):
    truth = make.image()
    ct = read_ct(make.write(tmp_path / name, truth, compress=compress))

    assert_same(ct, truth)
    assert ct.hu.dtype == np.int16
    assert ct.hu.flags.c_contiguous
    assert not ct.hu.flags.writeable
    assert (ct.stored_orientation, ct.warnings, ct.series_uid) == ("LPS", (), None)
    assert ct.path == str(tmp_path / name)
    assert ct.size_xyz == truth.GetSize()


@pytest.mark.parametrize("stored", make.ORIENTATIONS)
@pytest.mark.parametrize("name", ["scan.nii", "scan.mha", "scan.nrrd"])
def test_every_stored_orientation_gives_the_same_volume(tmp_path, name, stored):
    truth = make.image()
    turned = sitk.DICOMOrient(truth, stored)
    ct = read_ct(make.write(tmp_path / name, turned))

    assert_same(ct, truth)
    np.testing.assert_array_equal(ct.direction, np.eye(3))
    assert ct.stored_orientation == stored
    assert ct.stored_size_xyz == turned.GetSize()
    np.testing.assert_allclose(ct.stored_spacing_xyz_mm, turned.GetSpacing(), atol=1e-6)


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


@pytest.mark.parametrize("name", FORMATS)
def test_oblique_scan_keeps_its_rotation(tmp_path, name):
    turn = np.deg2rad(12)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    truth = make.image(direction=rotation)
    ct = read_ct(make.write(tmp_path / name, sitk.DICOMOrient(truth, "RSA")))

    assert_same(ct, truth)
    assert len(ct.warnings) == 1
    assert "12.0 degrees" in ct.warnings[0]


class TestNifti:
    """Details of the header that SimpleITK and nibabel know how to read too."""

    @pytest.mark.parametrize("cls", [nibabel.Nifti1Image, nibabel.Nifti2Image])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_versions_and_byte_orders(self, tmp_path, cls, order):
        native = make.nifti(cls=cls)
        header = native.header.as_byteswapped(order)
        cls(native.get_fdata().astype(np.int16), native.affine, header).to_filename(tmp_path / "scan.nii")
        assert_same(read_ct(tmp_path / "scan.nii"), make.image())

    @pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32, np.float64])
    def test_integral_values_become_int16(self, tmp_path, dtype):
        written = nibabel.Nifti1Image(make.chest_hu().astype(dtype).T, make.ras_affine(), dtype=dtype)
        written.to_filename(tmp_path / "scan.nii")
        ct = read_ct(tmp_path / "scan.nii")
        assert ct.hu.dtype == np.int16
        np.testing.assert_array_equal(ct.hu, make.chest_hu())

    def test_scaled_unsigned_values(self, tmp_path):
        stored = (make.chest_hu().astype(np.int32) + 1024).astype(np.uint16)
        # nibabel resets the scaling of what it writes from an array; put it into the file.
        raw = nibabel.Nifti1Image(stored.T, make.ras_affine())
        raw.to_filename(tmp_path / "scan.nii")
        make.patched(tmp_path / "scan.nii", 112, "<2f", 1.0, -1024.0)
        ct = read_ct(tmp_path / "scan.nii")
        assert ct.hu.dtype == np.int16
        np.testing.assert_array_equal(ct.hu, make.chest_hu())

    def test_fractional_values_stay_float(self, tmp_path):
        hu = make.chest_hu().astype(np.float32)
        # The first fraction comes late, after integral slices have been stored.
        hu[7:] += 0.25
        make.nifti(hu).to_filename(tmp_path / "scan.nii")
        ct = read_ct(tmp_path / "scan.nii")
        assert ct.hu.dtype == np.float32
        np.testing.assert_array_equal(ct.hu, np.maximum(hu, -1024))

    @pytest.mark.parametrize("last_axis", [1, -1])
    def test_qform_alone(self, tmp_path, last_axis):
        turn = np.deg2rad(170)
        rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
        affine = make.ras_affine(direction=rotation * [1, 1, last_axis])
        written = make.nifti(affine_ras=affine)
        written.set_qform(affine, code=1)
        written.set_sform(None, code=0)
        written.to_filename(tmp_path / "scan.nii")
        truth = sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / "scan.nii")), "LPS")
        assert_same(read_ct(tmp_path / "scan.nii"), truth)

    def test_sform_and_qform_that_disagree(self, tmp_path):
        written = make.nifti()
        moved = make.ras_affine(origin=(0, 0, 0))
        written.set_qform(moved, code=1)
        written.set_sform(make.ras_affine(), code=1)
        written.to_filename(tmp_path / "scan.nii")
        ct = read_ct(tmp_path / "scan.nii")
        np.testing.assert_allclose(ct.origin_xyz_mm, make.ORIGIN_XYZ, atol=1e-4)
        assert "disagree by 132.1 mm" in ct.warnings[0]

    def test_metres(self, tmp_path):
        affine = make.ras_affine() * np.array([[1e-3]] * 3 + [[1]])
        written = make.nifti(affine_ras=affine)
        written.header.set_xyzt_units("meter")
        written.to_filename(tmp_path / "scan.nii")
        assert_same(read_ct(tmp_path / "scan.nii"), make.image(), atol=1e-3)

    def test_singleton_fourth_dimension_is_a_volume(self, tmp_path):
        nibabel.Nifti1Image(make.chest_hu().T[..., None], make.ras_affine()).to_filename(tmp_path / "scan.nii")
        assert_same(read_ct(tmp_path / "scan.nii"), make.image())


def test_big_endian_metaimage_with_a_skipped_header(tmp_path):
    path = make.write(tmp_path / "scan.mhd")
    header = path.read_text().replace("BinaryDataByteOrderMSB = False", "BinaryDataByteOrderMSB = True")
    path.write_text(header.replace("ElementDataFile", "HeaderSize = 7\nElementDataFile"))
    raw = np.frombuffer((tmp_path / "scan.raw").read_bytes(), "<i2")
    (tmp_path / "scan.raw").write_bytes(b"skipped" + raw.astype(">i2").tobytes())
    assert_same(read_ct(path), make.image())


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"= scan.raw", b"= sc\0an.raw", "ct-detached-data"),
        (b"= scan.raw", b"= itself.raw", "ct-detached-data"),
        (b"ElementDataFile", b"HeaderSize = \xc2\xb2\nElementDataFile", "ct-damaged"),
        (b"ElementDataFile", b"HeaderSize = " + b"9" * 5000 + b"\nElementDataFile", "ct-damaged"),
        (b"ElementDataFile", b"HeaderSize = 999999999\nElementDataFile", "ct-truncated"),
    ],
)
def test_metaimage_header_that_no_path_and_no_number_can_be_made_of(tmp_path, old, new, code):
    path = make.write(tmp_path / "scan.mhd")
    (tmp_path / "itself.raw").symlink_to(tmp_path / "itself.raw")
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(CTError) as caught:
        read_ct(path)
    assert caught.value.code == code


def test_headers_that_overflow_are_refused_in_silence(tmp_path):
    """Warnings are errors in these tests."""
    nifti = make.write(tmp_path / "scan.nii")
    for value in (np.inf, np.nan, 3e38):
        make.patched(nifti, 280, "<12f", *[value] * 12)
        with pytest.raises(CTError):
            read_ct(nifti)
    metaimage = make.write(tmp_path / "scan.mha")
    metaimage.write_bytes(metaimage.read_bytes().replace(b"TransformMatrix = 1", b"TransformMatrix = 1e200"))
    with pytest.raises(CTError) as caught:
        read_ct(metaimage)
    assert caught.value.code == "ct-damaged"


def test_a_checksum_that_comes_after_the_last_block_of_voxels_is_verified(tmp_path):
    packed = gzip.compress(make.write(tmp_path / "plain.nii").read_bytes(), 0, mtime=0)
    # A file name in the gzip header moves the last two bytes of the checksum into the second block that is read.
    name = b"x" * (2**20 + 2 - len(packed) - 1)
    data = bytearray(packed[:3] + b"\x08" + packed[4:10] + name + b"\0" + packed[10:])
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(data)
    assert_same(read_ct(path), make.image())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CTError, match="Incorrect checksum"):
        read_ct(path)


def test_padding_is_clamped(tmp_path):
    hu = make.chest_hu()
    hu[:, 0, :] = -3024
    ct = read_ct(make.write(tmp_path / "scan.nrrd", make.image(hu)))
    assert (ct.hu[:, 0, :] == -1024).all()
    np.testing.assert_array_equal(ct.hu[:, 1:], hu[:, 1:])


@pytest.mark.parametrize(("spacing", "warns"), [(3.0, False), (3.01, True), (5.0, True)])
def test_thick_slices_are_pointed_out(tmp_path, spacing, warns):
    ct = read_ct(make.write(tmp_path / "scan.mha", make.image(spacing=(0.7, 0.7, spacing))))
    assert [f"{spacing:.3g} mm" in warning for warning in ct.warnings] == [True] * warns


def test_spacing_limit_is_inclusive(tmp_path):
    with pytest.raises(CTError) as caught:
        read_ct(make.write(tmp_path / "scan.mha", make.image(spacing=(0.7, 0.7, 5.001))))
    assert caught.value.code == "ct-slice-spacing"


def test_rounding_in_a_header_is_no_shear(tmp_path):
    direction = np.eye(3) + np.random.default_rng(0).uniform(-1e-5, 1e-5, (3, 3))
    path = tmp_path / "scan.mha"
    ct = read_ct(make.write(path, make.image(direction=direction)))
    np.testing.assert_allclose(ct.direction.T @ ct.direction, np.eye(3), atol=1e-12)


def test_unreadable_file_is_a_ct_error(tmp_path, monkeypatch):
    path = make.write(tmp_path / "scan.nii")

    def denied(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", denied)
    with pytest.raises(CTError, match="Permission denied"):
        read_ct(path)


class TestFromArray:
    """Voxels in memory get the same checks as a file."""

    def test_equals_the_file(self, tmp_path):
        hu = make.chest_hu()
        ct = CTVolume.from_array(hu, spacing_zyx_mm=make.SPACING_XYZ[::-1], origin_xyz_mm=make.ORIGIN_XYZ)
        assert_same(ct, make.image())
        assert ct.path == "<array>"

    @pytest.mark.parametrize("stored", ["RAS", "SRP", "AIL"])
    def test_any_orientation(self, stored):
        turned = sitk.DICOMOrient(make.image(), stored)
        ct = CTVolume.from_array(
            sitk.GetArrayFromImage(turned),
            spacing_zyx_mm=turned.GetSpacing()[::-1],
            origin_xyz_mm=turned.GetOrigin(),
            direction=np.reshape(turned.GetDirection(), (3, 3)),
        )
        assert_same(ct, make.image())
        assert ct.stored_orientation == stored

    def test_copies(self):
        hu = make.chest_hu()
        ct = CTVolume.from_array(hu, spacing_zyx_mm=(1, 1, 1), origin_xyz_mm=(0, 0, 0))
        before = ct.hu.copy()
        hu[:] = 0
        np.testing.assert_array_equal(ct.hu, before)

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"hu_zyx": np.zeros((4, 4))}, "ct-not-3d"),
            ({"hu_zyx": np.zeros((4, 4, 4))}, "ct-not-hu"),
            ({"hu_zyx": np.zeros((4, 4, 4), dtype=complex)}, "ct-not-scalar"),
            ({"spacing_zyx_mm": (6.0, 1.0, 1.0)}, "ct-slice-spacing"),
            ({"spacing_zyx_mm": (float("nan"), 1.0, 1.0)}, "ct-bad-spacing"),
            ({"origin_xyz_mm": (float("inf"), 1.0, 1.0)}, "ct-damaged"),
            ({"direction": np.ones((3, 3))}, "ct-sheared"),
            ({"direction": np.zeros((3, 3))}, "ct-damaged"),
            ({"direction": np.eye(2)}, "ct-damaged"),
            ({"direction": 1.0}, "ct-damaged"),
            ({"origin_xyz_mm": (0.0, 0.0)}, "ct-damaged"),
            ({"spacing_zyx_mm": (1.0, 1.0)}, "ct-bad-spacing"),
        ],
    )
    def test_refuses(self, change, code):
        arguments = {"hu_zyx": make.chest_hu(), "spacing_zyx_mm": (1, 1, 1), "origin_xyz_mm": (0, 0, 0), **change}
        with pytest.raises(CTError) as caught:
            CTVolume.from_array(arguments.pop("hu_zyx"), **arguments)
        assert caught.value.code == code


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.mha"])
def test_peak_memory_is_the_volume_and_a_slab(tmp_path, name):
    shape = (96, 512, 512)
    hu = np.broadcast_to(np.int16(40), shape).copy()
    hu[:, :, ::3] = -900
    # The worst case: a file whose axes must be reversed, so that nothing can be used as it lies.
    path = make.write(tmp_path / name, sitk.DICOMOrient(make.image(hu), "RAI"), compress=name.endswith("gz"))
    tracemalloc.start()
    try:
        ct = read_ct(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(ct.hu, hu)
    assert peak < hu.nbytes + 32 * 2**20


def test_limit_is_checked_before_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_VOXELS", 1000)
    with pytest.raises(CTError, match="over the limit of 1,000"):
        read_ct(make.write(tmp_path / "scan.nii.gz"))


def test_reading_in_threads_leaves_itk_as_it_was(tmp_path):
    path = make.write(tmp_path / "scan.nrrd")
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    volumes = []
    threads = [threading.Thread(target=lambda: volumes.append(read_ct(path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(volumes) == 6
    for volume in volumes:
        assert_same(volume, make.image())
    assert sitk.ProcessObject.GetGlobalWarningDisplay() == shown


@pytest.mark.real_data
@pytest.mark.slow
def test_real_ct_in_every_format_and_orientation(data_root, tmp_path):
    source = data_root / "ct" / "LIDC-IDRI-0314.nii.gz"
    truth = sitk.ReadImage(str(source))
    assert_same(read_ct(source), truth)
    for name, stored in (("a.nii", "RAS"), ("b.mha", "LPI"), ("c.nrrd", "SPL"), ("d.mhd", "RPI")):
        turned = sitk.DICOMOrient(truth, stored)
        ct = read_ct(make.write(tmp_path / name, turned))
        assert_same(ct, truth)
        assert ct.stored_orientation == stored
        (tmp_path / name).unlink()
