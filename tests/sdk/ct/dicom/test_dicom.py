"""DICOM from folders and archives: same voxels and geometry as any other form of the scan."""

import os
import struct
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)

import ct_files as make
from nodule_diag.ct.dicom import headers
from nodule_diag.ct.dicom import series as series_module
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError


def assert_same(left: CTVolume, right: CTVolume, *, atol: float = 1e-4) -> None:
    np.testing.assert_array_equal(left.hu, right.hu)
    np.testing.assert_allclose(left.spacing_xyz_mm, right.spacing_xyz_mm, atol=atol)
    np.testing.assert_allclose(left.origin_xyz_mm, right.origin_xyz_mm, atol=atol)
    np.testing.assert_allclose(left.direction, right.direction, atol=1e-6)


@pytest.fixture
def truth(tmp_path) -> CTVolume:
    return read_ct(make.write(tmp_path / "truth.mha"))


def test_folder_and_archive_equal_the_volume(tmp_path, truth):
    folder = make.save_series(tmp_path / "series", make.dicom_slices())
    for path in (folder, make.zipped(folder, tmp_path / "scan.zip")):
        ct = read_ct(path)
        assert_same(ct, truth)
        assert ct.series_uid == f"{make.UID_ROOT}.1"
        assert (ct.hu.dtype, ct.stored_orientation, ct.path) == (np.int16, "LPS", str(path))


def test_order_of_files_and_instance_numbers_does_not_matter(tmp_path, truth):
    shuffled = [make.dicom_slices()[i] for i in np.random.default_rng(0).permutation(12)]
    # No extension, nested folders, and things that are no DICOM beside them.
    folder = make.save_series(tmp_path / "study", shuffled, name="nested/IM{:04d}".format)
    (folder / "LICENSE").write_text("CC BY 3.0")
    (folder / ".DS_Store").write_bytes(b"\0" * 200)
    (folder / "nested" / "._IM0001.dcm").write_bytes(b"\0" * 200)
    assert_same(read_ct(folder), truth)


@pytest.mark.parametrize(
    ("row", "column"),
    [((0, 1, 0), (0, 0, -1)), ((1, 0, 0), (0, 0, -1)), ((-1, 0, 0), (0, -1, 0)), ((0, 0, 1), (1, 0, 0))],
    ids=["sagittal", "coronal", "prone", "odd"],
)
def test_any_plane_agrees_with_itk(tmp_path, row, column):
    folder = make.save_series(tmp_path / "series", make.dicom_slices(row=row, column=column))
    ct = read_ct(folder)

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    stored = reader.Execute()
    truth = sitk.DICOMOrient(stored, "LPS")
    np.testing.assert_array_equal(ct.hu, sitk.GetArrayViewFromImage(truth))
    np.testing.assert_allclose(ct.origin_xyz_mm, truth.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(ct.spacing_xyz_mm, truth.GetSpacing(), atol=1e-6)
    assert ct.stored_size_xyz == stored.GetSize()
    assert ct.stored_orientation == sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(
        stored.GetDirection()
    )


def test_rescale_differs_between_slices(tmp_path, truth):
    items = make.dicom_slices(intercept=-1024)
    for number, item in enumerate(make.dicom_slices(intercept=-2000)):
        if number % 2:
            items[number] = item
    assert_same(read_ct(make.save_series(tmp_path / "series", items)), truth)


def test_gantry_tilt_that_was_corrected_is_accepted(tmp_path, truth):
    items = make.dicom_slices()
    for item in items:
        item.GantryDetectorTilt = 12
    assert_same(read_ct(make.save_series(tmp_path / "series", items)), truth)


def test_rounded_positions_are_accepted(tmp_path):
    items = make.dicom_slices(spacing=(0.7, 0.7, 0.625))
    for item in items:
        item.ImagePositionPatient = [round(float(v), 2) for v in item.ImagePositionPatient]
    ct = read_ct(make.save_series(tmp_path / "series", items))
    assert ct.spacing_xyz_mm[2] == pytest.approx(0.625, abs=0.002)


def test_choosing_a_series(tmp_path, truth):
    folder = make.save_series(tmp_path / "study" / "a", make.dicom_slices()).parent
    other = make.dicom_slices(make.chest_hu((8, 20, 20)), series=2, description="Kn\u00f6chern")
    for item in other:
        item.SpecificCharacterSet = "ISO_IR 100"
    make.save_series(folder / "b", other)

    assert_same(read_ct(folder, series=f"{make.UID_ROOT}.1"), truth)
    assert read_ct(folder, series=f"{make.UID_ROOT}.2").size_xyz == (20, 20, 8)
    with pytest.raises(CTError) as caught:
        read_ct(folder)
    str(caught.value).encode("utf-8")


def test_objects_that_are_no_images_are_passed_over(tmp_path, truth):
    folder = make.save_series(tmp_path / "series", make.dicom_slices())
    report = make.dicom_slices(series=9)[0]
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    report.Modality = "SR"
    del report.PixelData, report.Rows, report.Columns
    make.save_slice(report, folder / "report.dcm")
    assert_same(read_ct(folder), truth)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_any_number_of_threads_reads_the_same(tmp_path, truth, threads):
    folder = make.save_series(tmp_path / "series", make.dicom_slices())
    for path in (folder, make.zipped(folder, tmp_path / "scan.zip")):
        assert_same(read_ct(path, threads=threads), truth, atol=0)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_no_more_threads_work_than_were_asked_for(tmp_path, truth, threads, monkeypatch):
    """The caller's thread is one of them; all work that was begun counts, whatever it waits for."""
    lock, working, most = threading.Lock(), set(), []

    def counted(work):
        def call(*args, **kwargs):
            with lock:
                working.add(threading.get_ident())
                most.append(len(working | {threading.main_thread().ident}))
            time.sleep(0.002)
            try:
                return work(*args, **kwargs)
            finally:
                with lock:
                    working.discard(threading.get_ident())

        return call

    monkeypatch.setattr(series_module, "hounsfield", counted(series_module.hounsfield))
    monkeypatch.setattr(headers, "_header", counted(headers._header))
    assert_same(read_ct(make.save_series(tmp_path / "series", make.dicom_slices()), threads=threads), truth)
    assert len(most) == 24
    assert max(most) <= threads


def test_nothing_is_written_while_reading(tmp_path):
    """Neither a file nor a folder, whatever has to be decoded by whom: an audit hook sees every attempt."""
    big = make.chest_hu((12, 40, 48))
    paths = []
    for syntax in (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLosslessSV1):
        items = make.encoded(make.dicom_slices(big), syntax)
        folder = make.save_series(tmp_path / syntax.keyword / "series", items)
        paths += [folder, make.zipped(folder, folder.with_suffix(".zip"))]
    program = f"""
import os, sys
import numpy, SimpleITK, pydicom
from nodule_diag.ct.reading import read_ct
import nodule_diag.ct.dicom.series
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
def hook(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)) and (args[2] or 0) & WRITING:
        print("opened for writing:", args[0])
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.truncate", "shutil.copyfile"):
        print(event, args[0])
    elif event.startswith("tempfile."):
        print(event, args)
sys.addaudithook(hook)
for path in {[str(path) for path in paths]!r}:
    read_ct(path, threads=2)
open(os.devnull, "w").close()
"""
    before = sorted(tmp_path.rglob("*"))
    finished = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True, check=True)
    # The last line is the hook's own: it sees what it is meant to see.
    assert finished.stdout == f"opened for writing: {os.devnull}\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_kept_of_the_series(tmp_path):
    items = make.dicom_slices(
        row=(0, 1, 0), column=(0, 0, -1)
    )  # sagittal, from the right to the left: sorted upside down
    folder = make.save_series(tmp_path / "study" / "a", items).parent
    make.save_series(folder / "b", make.dicom_slices(series=2)[:2])
    (folder / "notes.txt").write_text("nothing")
    for path in (folder, make.zipped(folder, tmp_path / "scan.zip")):
        ct = read_ct(path, series=f"{make.UID_ROOT}.1")
        kept = ct.dicom
        assert (kept.study_uid, kept.series_uid, ct.series_uid) == (make.UID_ROOT, *[f"{make.UID_ROOT}.1"] * 2)
        assert kept.frame_of_reference_uid == f"{make.UID_ROOT}.0"
        assert {one.sop_class for one in kept.slices} == {CTImageStorage}
        assert {Path(one.file).name: one.why for one in kept.set_aside} == {
            "notes.txt": "no image",
            "000.dcm": "another series",
            "001.dcm": "another series",
        }
        by_uid = {item.SOPInstanceUID: item for item in items}
        stored = (
            ct.hu
            if not any(ct.stored_flips)
            else np.flip(ct.hu, [2 - axis for axis in range(3) if ct.stored_flips[axis]])
        )
        stored = np.moveaxis(stored, 2 - ct.stored_axes.index(2), 0)  # by slices of the file
        for number, one in enumerate(kept.slices):
            item = by_uid[one.sop_uid]
            assert one.position_xyz_mm == tuple(item.ImagePositionPatient)
            expected = np.frombuffer(item.PixelData, "<i2") + item.RescaleIntercept
            np.testing.assert_array_equal(np.sort(stored[number], axis=None), np.sort(np.maximum(expected, -1024)))
        assert len(kept.slices) == len(items)
        assert "phantom" not in repr(kept), "no PatientID"
    assert read_ct(make.write(tmp_path / "scan.mha")).dicom is None


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    """Its files may be the slices at an end of the scan, which nobody would miss."""
    items = make.dicom_slices()
    make.save_series(tmp_path / "series" / "a", items[:8])
    closed = make.save_series(tmp_path / "series" / "b", items[8:])
    scandir = os.scandir

    def denied(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(CTError, match="Permission denied") as caught:
        read_ct(tmp_path / "series")
    assert caught.value.code == "ct-unreadable"


@pytest.mark.parametrize("frames", ["0", "-3", "many"])
def test_an_impossible_number_of_frames_is_one(tmp_path, truth, frames):
    folder = make.save_series(tmp_path / "series", make.dicom_slices())
    for path in folder.iterdir():
        element = b"\x28\x00\x08\x00IS" + struct.pack("<H", 4) + frames.ljust(4).encode()
        data = path.read_bytes()
        at = data.index(b"\x28\x00\x10\x00US")  # Rows comes next
        path.write_bytes(data[:at] + element + data[at:])
    assert_same(read_ct(folder), truth)


def test_an_extended_offset_table_before_the_pixels(tmp_path, truth):
    items = make.dicom_slices()
    for item in make.encoded(items, ExplicitVRLittleEndian):
        item.compress(RLELossless, generate_instance_uid=False, encapsulate_ext=True)
        assert item.ExtendedOffsetTable
    assert_same(read_ct(make.save_series(tmp_path / "series", items)), truth)


def test_names_are_fit_for_any_terminal(tmp_path):
    """A name may hold an escape sequence or, on Linux, bytes that are no text; an archive's comes from anyone."""
    evil = "bad\n\x1b[2J.dcm"
    folder = tmp_path / "series"
    for name in [evil, *(["\udce4.dcm"] if os.name == "posix" and sys.platform != "darwin" else [])]:
        make.save_series(folder, make.dicom_slices())
        (folder / name).write_bytes(b"")
        with pytest.raises(CTError, match="is empty") as caught:
            read_ct(folder)
        str(caught.value).encode()
        assert str(caught.value).isprintable()
        (folder / name).unlink()
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        archive.writestr(evil, b"")
    with pytest.raises(CTError, match="is empty") as caught:
        read_ct(tmp_path / "scan.zip")
    assert str(caught.value).isprintable()


def test_a_series_number_of_any_length(tmp_path):
    for series in (1, 2):
        folder = make.save_series(tmp_path / "study" / str(series), make.dicom_slices(series=series))
        for path in folder.iterdir():
            old = b"\x20\x00\x11\x00IS\x02\x00" + f"{series} ".encode()
            new = b"\x20\x00\x11\x00IS" + struct.pack("<H", 5000) + b"9" * 5000
            path.write_bytes(path.read_bytes().replace(old, new))
            assert new in path.read_bytes()
    with pytest.raises(CTError) as caught:
        read_ct(folder.parent)
    assert caught.value.code == "ct-several-series"


def test_a_position_that_overflows_is_refused_in_silence(tmp_path):
    items = make.dicom_slices()
    items[3].ImagePositionPatient = ["1e308", "1e308", "1e308"]
    with pytest.raises(CTError):
        read_ct(make.save_series(tmp_path / "series", items))


@given(
    order=st.permutations(range(6)),
    turn=st.floats(-180, 180),
    tip=st.floats(-60, 60),
    spacing=st.tuples(st.floats(0.3, 1.2), st.floats(0.3, 1.2), st.floats(0.5, 4.9)),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shuffled_and_oblique_series_lie_where_their_headers_say(tmp_path, order, turn, tip, spacing, origin):
    """The truth is the standard's formula for a pixel's place (PS3.3, C.7.6.2.1.1), by numpy alone."""
    a, b = np.deg2rad([turn, tip])
    row = np.array([np.cos(a), np.sin(a), 0.0])
    column = np.array([-np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b)])
    hu = make.chest_hu((6, 20, 24))
    items = make.dicom_slices(hu, spacing=spacing, origin=origin, row=row, column=column)
    folder = make.save_series(Path(mkdtemp(dir=tmp_path)), [items[i] for i in order])
    ct = read_ct(folder)
    packed = read_ct(make.zipped(folder, folder.with_suffix(".zip")))
    assert_same(packed, ct, atol=0)

    matrix = np.column_stack([row, column, np.cross(row, column)]) * spacing
    for z, y, x in np.random.default_rng(0).integers(0, hu.shape, (20, 3)):
        place = np.asarray(origin) + matrix @ (x, y, z)
        index = (np.linalg.inv(ct.direction) @ (place - ct.origin_xyz_mm)) / ct.spacing_xyz_mm
        np.testing.assert_allclose(index, np.rint(index), atol=1e-4)
        assert ct.hu[tuple(np.rint(index).astype(int)[::-1])] == hu[z, y, x]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_of_several_bad_slices_the_first_is_named(tmp_path, threads):
    folder = make.save_series(tmp_path / "series", make.dicom_slices())
    files = sorted(folder.iterdir())
    for path in files[3:]:
        path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(CTError, match=files[3].name) as caught:
        read_ct(folder, threads=threads)
    assert caught.value.code == "ct-truncated"
    with pytest.raises(CTError, match=files[3].name):
        read_ct(make.zipped(folder, tmp_path / "scan.zip"), threads=threads)


@pytest.mark.parametrize("threads", [1, 8])
def test_the_first_slice_that_cannot_be_decoded_is_named(tmp_path, threads):
    items = make.encoded(make.dicom_slices(), RLELossless)
    folder = make.save_series(tmp_path / "series", items)
    files = sorted(folder.iterdir())
    for path in files[5:]:
        data = path.read_bytes()
        path.write_bytes(data[:-600])
    with pytest.raises(CTError, match=files[5].name) as caught:
        read_ct(folder, threads=threads)
    assert caught.value.code in {"ct-damaged", "ct-truncated"}


def test_reading_in_several_threads_at_once(tmp_path, truth):
    folder = make.save_series(tmp_path / "series", make.dicom_slices())
    path = make.zipped(folder, tmp_path / "scan.zip")
    with ThreadPoolExecutor(6) as pool:
        for ct in pool.map(read_ct, [folder, path] * 6):
            assert_same(ct, truth, atol=0)


@pytest.mark.real_data
@pytest.mark.slow
def test_real_ct_as_archive_as_folder_and_as_nifti_of_another_tool(data_root, tmp_path):
    archive = data_root / "ct" / "LIDC-IDRI-0001_dicom.zip"
    from_archive = read_ct(archive)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    from_folder = read_ct(tmp_path)
    assert_same(from_archive, from_folder, atol=0)
    assert from_archive.size_xyz == (512, 512, 133)
    assert from_archive.hu.min() == -1024

    # The other tool: pydicom decodes and sorts, nibabel writes, with an affine built here from the standard's formula.
    slices = sorted(
        (pydicom.dcmread(path) for path in tmp_path.rglob("*.dcm")), key=lambda s: float(s.ImagePositionPatient[2])
    )
    hu = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices]).astype(np.int16)
    first, last = slices[0], slices[-1]
    cosines = np.array(first.ImageOrientationPatient, float)
    step = np.subtract(last.ImagePositionPatient, first.ImagePositionPatient) / (len(slices) - 1)
    lps = np.eye(4)
    lps[:3, 0] = cosines[:3] * float(first.PixelSpacing[1])
    lps[:3, 1] = cosines[3:] * float(first.PixelSpacing[0])
    lps[:3, 2] = step
    lps[:3, 3] = first.ImagePositionPatient
    written = nibabel.as_closest_canonical(nibabel.Nifti1Image(hu.T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps))
    nibabel.save(written, tmp_path / "scan.nii")
    from_nifti = read_ct(tmp_path / "scan.nii")
    assert from_nifti.stored_orientation == "RAS"
    assert_same(from_archive, from_nifti)
