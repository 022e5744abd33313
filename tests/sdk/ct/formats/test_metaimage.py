"""MetaImage: its header's own words, and a data file beside it."""

import numpy as np
import pytest
import SimpleITK as sitk

import ct_files as make
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import CTError


def test_big_endian_metaimage_with_a_skipped_header(tmp_path):
    path = make.write(tmp_path / "scan.mhd")
    header = path.read_text().replace("BinaryDataByteOrderMSB = False", "BinaryDataByteOrderMSB = True")
    path.write_text(header.replace("ElementDataFile", "HeaderSize = 7\nElementDataFile"))
    raw = np.frombuffer((tmp_path / "scan.raw").read_bytes(), "<i2")
    (tmp_path / "scan.raw").write_bytes(b"skipped" + raw.astype(">i2").tobytes())
    make.assert_same(read_ct(path), make.image())


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"= scan.raw", b"= sc\0an.raw", "ct-detached-data"),
        (b"= scan.raw", b"= itself.raw", "ct-missing-data-file"),
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


def test_a_data_file_may_be_a_link(tmp_path):
    """git-annex, DVC and model hubs keep files so."""
    path = make.write(tmp_path / "scan.mhd")
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "scan.raw").rename(store / "0a1b")
    (tmp_path / "scan.raw").symlink_to(store / "0a1b")
    (store / "header").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(store / "header")
    make.assert_same(read_ct(path), make.image())


@pytest.mark.parametrize(
    "value", ["../scan.raw", "/etc/hostname", "a/../../scan.raw", "LIST", "scan%03d.raw 1 12 1", ""]
)
def test_a_name_that_leads_out_of_the_folder_or_to_several(tmp_path, value):
    (tmp_path / "sub").mkdir()
    path = make.write(tmp_path / "sub" / "scan.mhd")
    (tmp_path / "sub" / "scan.raw").rename(tmp_path / "scan.raw")
    path.write_bytes(path.read_bytes().replace(b"= scan.raw", b"= " + value.encode()))
    with pytest.raises(CTError) as caught:
        read_ct(path)
    assert caught.value.code == "ct-detached-data"


@pytest.mark.parametrize("dimensions", [4, 5])
@pytest.mark.parametrize("compress", [False, True])
def test_one_volume_of_more_dimensions(tmp_path, dimensions, compress):
    image = make.image()
    for _ in range(3, dimensions):
        image = sitk.JoinSeries([image])
    make.assert_same(read_ct(make.write(tmp_path / "scan.mha", image, compress=compress)), make.image())


def test_a_spatial_axis_that_also_runs_along_a_fourth_is_none(tmp_path):
    path = make.write(tmp_path / "scan.mha", sitk.JoinSeries([make.image()]))
    path.write_bytes(path.read_bytes().replace(b"TransformMatrix = 1 0 0 0 ", b"TransformMatrix = 1 0 0 0.5 "))
    with pytest.raises(CTError, match="TransformMatrix") as caught:
        read_ct(path)
    assert caught.value.code == "ct-damaged"


def test_voxels_of_one_file_after_a_header_of_another_kind(tmp_path):
    """HeaderSize counts from the beginning of the file that holds them, as MetaIO does."""
    path = make.write(tmp_path / "scan.mha")
    for size in (b"-1", b"%d" % (path.stat().st_size - 21504 + len(b"HeaderSize = 000\n"))):
        whole = make.write(path).read_bytes()
        path.write_bytes(whole.replace(b"ElementDataFile", b"HeaderSize = " + size + b"\nElementDataFile"))
        make.assert_same(read_ct(path), sitk.ReadImage(str(path)))
        make.assert_same(read_ct(path), make.image())


DIM = b"DimSize = 28 32 12"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (DIM, b"DimSize = 28.5 32 12", "ct-damaged"),
        (DIM, b"DimSize = 28.0 32 12", "ct-damaged"),
        (DIM, b"DimSize = 2.8e1 32 12", "ct-damaged"),
        (DIM, b"DimSize = 2_8 32 12", "ct-damaged"),
        (DIM, b"DimSize = +28 32 12", "ct-damaged"),
        (DIM, b"DimSize = \xef\xbc\x92\xef\xbc\x98 32 12", "ct-damaged"),
        (DIM, b"DimSize = -28 32 12", "ct-damaged"),
        (DIM, b"DimSize = 0x1c 32 12", "ct-damaged"),
        (DIM, b"DimSize = nan 32 12", "ct-damaged"),
        (DIM, b"DimSize = ", "ct-damaged"),
        (DIM, b"DimSize = " + b"9" * 5000, "ct-damaged"),
        (DIM, b"DimSize = " + b"1 " * 30_000, "ct-damaged"),
        (DIM, DIM + b"\n" + DIM, "ct-damaged"),
        (DIM, DIM + b"\nDimSize = 28 32 11", "ct-damaged"),
        (b"NDims = 3", b"NDims = 2", "ct-damaged"),
        (b"NDims = 3", b"NDims = 3.0", "ct-damaged"),
        (b"NDims = 3", b"NDims = 3\nNDims = 3", "ct-damaged"),
        (b"Offset = -20.5", b"Offset = nan", "ct-damaged"),
        (b"Offset = -20.5", b"Offset = 1e999", "ct-damaged"),
        (b"Offset = -20.5", b"Offset = " + b"1" * 400, "ct-damaged"),
        (b"Offset = -20.5", b"Offset = " + b"0" * 100 + b"1.5", "ct-damaged"),
        (b"Offset = -20.5", b"Offset = 1_0.5", "ct-damaged"),
        (b"Offset = -20.5", b"Offset = 1,5", "ct-damaged"),
        (b"Offset = -20.5", b"Offset = 0 -20.5", "ct-damaged"),
        (b"Offset = ", b"Position = 1 2 3\nOffset = ", "ct-damaged"),
        (b"ElementSpacing = ", b"ElementSpacing = inf ", "ct-damaged"),
        (b"CompressedData = False", b"CompressedData = Falsf", "ct-damaged"),
        (b"CompressedData = False", b"CompressedData = True", "ct-damaged"),
        (b"BinaryData = True", b"BinaryData = False", "ct-unsupported-format"),
        (b"OrderMSB = False", b"OrderMSB = yes", "ct-damaged"),
        (b"NDims", b"ElementByteOrderMSB = True\nNDims", "ct-damaged"),
        (b"NDims", b"DistanceUnits = cm\nNDims", "ct-damaged"),
        (b"NDims", b"ElementToIntensityFunctionSlope = 2\nNDims", "ct-damaged"),
        (b"NDims", b"ElementToIntensityFunctionOffset = -1024\nNDims", "ct-damaged"),
        (b"NDims", b"ElementNumberOfChannels = 2\nNDims", "ct-not-scalar"),
        (b"NDims", b"ElementNumberOfChannels = one\nNDims", "ct-damaged"),
        (b"NDims", b"HeaderSize = -2\nNDims", "ct-damaged"),
        (b"NDims", b"HeaderSize = 1.5\nNDims", "ct-damaged"),
        (b"NDims", b"Comment = " + b"c" * 2**20 + b"\nNDims", "ct-damaged"),
        (b"NDims", b"x\n" * 2**16 + b"NDims", "ct-damaged"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else value,
)
def test_a_header_that_cannot_be_right(tmp_path, old, new, code):
    path = make.write(tmp_path / "scan.mha")
    whole = path.read_bytes()
    assert whole.count(old) == 1
    path.write_bytes(whole.replace(old, new))
    with pytest.raises(CTError) as caught:
        read_ct(path)
    assert caught.value.code == code
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("size", ["12725", "12727", "0", "-1", "1.2726e4", "999999999999"])
def test_a_compressed_size_that_is_not_the_file_s(tmp_path, size):
    path = make.write(tmp_path / "scan.mha", compress=True)
    whole = path.read_bytes()
    told = whole.partition(b"CompressedDataSize = ")[2].partition(b"\n")[0]
    path.write_bytes(whole.replace(told, size.replace("1272", told.decode()[:-1]).encode(), 1))
    with pytest.raises(CTError) as caught:
        read_ct(path)
    assert caught.value.code in ("ct-damaged", "ct-truncated")


def test_what_is_no_field_of_ours_may_come_as_often_as_it_likes(tmp_path):
    path = make.write(tmp_path / "scan.mha")
    more = b"Institution = A\nInstitution = B\nno field at all\nElementSize = 9 9 9\n"
    path.write_bytes(path.read_bytes().replace(b"NDims", more + b"NDims"))
    make.assert_same(read_ct(path), make.image())
