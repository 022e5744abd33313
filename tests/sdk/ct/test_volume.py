"""Reading a CT: one array and one geometry, whatever the file stored. The truth is SimpleITK's."""

import threading
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk

import ct_files as make
from nodule_diag.ct import limits
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError

FORMATS = ("scan.nii", "scan.nii.gz", "scan.mha", "scan.mhd", "scan.nrrd", "scan.nhdr")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("compress", [False, True])
def test_every_format_agrees_with_simpleitk(tmp_path, name, compress):
    truth = make.image()
    ct = read_ct(make.write(tmp_path / name, truth, compress=compress))

    make.assert_same(ct, truth)
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

    make.assert_same(ct, truth)
    np.testing.assert_array_equal(ct.direction, np.eye(3))
    assert ct.stored_orientation == stored
    assert ct.stored_size_xyz == turned.GetSize()
    np.testing.assert_allclose(ct.stored_spacing_xyz_mm, turned.GetSpacing(), atol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_oblique_scan_keeps_its_rotation(tmp_path, name):
    turn = np.deg2rad(12)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    truth = make.image(direction=rotation)
    ct = read_ct(make.write(tmp_path / name, sitk.DICOMOrient(truth, "RSA")))

    make.assert_same(ct, truth)
    assert len(ct.warnings) == 1
    assert "12.0 degrees" in ct.warnings[0]


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


def test_no_memory_is_a_ct_error(tmp_path, monkeypatch):
    def none_left(*_args, **_kwargs):
        raise MemoryError

    path = make.write(tmp_path / "scan.nii")
    monkeypatch.setattr("numpy.empty", none_left)
    with pytest.raises(CTError, match="more memory than there is") as caught:
        read_ct(path)
    assert caught.value.code == "ct-too-large"


def test_padding_goes_into_place_from_every_type(tmp_path):
    """Clamped values are written straight into the array, which is int16 or float32 whatever the file stores."""
    hu = make.chest_hu()
    hu[:, 0, :] = -3024
    truth = np.maximum(hu, -1024)
    for dtype in (np.int16, np.int32, np.int64, np.float32, np.float64):
        ct = read_ct(make.write(tmp_path / "scan.mha", make.image(hu.astype(dtype))))
        assert ct.hu.dtype == np.int16
        np.testing.assert_array_equal(ct.hu, truth)
        ct = read_ct(make.write(tmp_path / "scan.mha", make.image(hu.astype(np.float64) + 0.25)))
        np.testing.assert_array_equal(ct.hu, np.maximum(hu + np.float32(0.25), -1024))


class TestFromArray:
    """Voxels in memory get the same checks as a file."""

    def test_equals_the_file(self, tmp_path):
        hu = make.chest_hu()
        ct = CTVolume.from_array(hu, spacing_zyx_mm=make.SPACING_XYZ[::-1], origin_xyz_mm=make.ORIGIN_XYZ)
        make.assert_same(ct, make.image())
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
        make.assert_same(ct, make.image())
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


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.mha", "scan.nrrd"])
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


@pytest.mark.parametrize("name", FORMATS)
def test_reading_in_threads(tmp_path, name):
    path = make.write(tmp_path / name)
    volumes = []
    threads = [threading.Thread(target=lambda: volumes.append(read_ct(path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(volumes) == 6
    for volume in volumes:
        make.assert_same(volume, make.image())


@pytest.mark.real_data
@pytest.mark.slow
def test_real_ct_in_every_format_and_orientation(data_root, tmp_path):
    source = data_root / "ct" / "LIDC-IDRI-0314.nii.gz"
    truth = sitk.ReadImage(str(source))
    make.assert_same(read_ct(source), truth)
    for name, stored in (("a.nii", "RAS"), ("b.mha", "LPI"), ("c.nrrd", "SPL"), ("d.mhd", "RPI")):
        turned = sitk.DICOMOrient(truth, stored)
        ct = read_ct(make.write(tmp_path / name, turned))
        make.assert_same(ct, truth)
        assert ct.stored_orientation == stored
        (tmp_path / name).unlink()
