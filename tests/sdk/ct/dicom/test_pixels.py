"""Pixels of every kind in Hounsfield units: the truth is what was stored, and DICOM's own formulas by numpy."""

import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

import ct_files as make
from nodule_diag.ct.dicom import decoding
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import CTError

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (RLELossless, JPEG2000Lossless, JPEGLSLossless)
SHAPE = (3, 40, 48)  # OpenJPEG's encoder needs 32 pixels a side
HU = make.chest_hu(SHAPE)


def series_of(stored: np.ndarray, *, bits: int, high: int | None = None, signed: bool, slope="1", intercept="0"):
    """Slices of 16-bit words that hold stored values."""
    items = make.dicom_slices(np.zeros(stored.shape, np.int16), intercept=0)
    for item, plane in zip(items, stored, strict=True):
        item.PixelData = plane.astype("<i4").astype("<u2").tobytes()
        item.BitsStored, item.HighBit = bits, bits - 1 if high is None else high
        item.PixelRepresentation = int(signed)
        item.RescaleSlope, item.RescaleIntercept = slope, intercept
    return items


def encoded_words(items, syntax):
    """Whole words in another syntax, the unused bits too, which pydicom would clear."""
    bits = [(item.BitsStored, item.HighBit) for item in items]
    for item in items:
        item.BitsStored, item.HighBit = 16, 15
    make.encoded(items, syntax)
    for item, (stored, high) in zip(items, bits, strict=True):
        item.BitsStored, item.HighBit = stored, high
    return items


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS, JPEGLosslessSV1], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("bits", [12, 13, 16])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_every_syntax_gives_what_was_stored(tmp_path, syntax, bits, signed):
    if syntax == JPEGLosslessSV1 and signed:
        pytest.skip("SimpleITK writes no signed JPEG Lossless")
    intercept = 0 if signed else -1024
    items = series_of(HU.astype(int) - intercept, bits=bits, signed=signed, intercept=intercept)
    folder = make.save_series(tmp_path / "series", make.encoded(items, syntax))
    for path in (folder, make.zipped(folder, tmp_path / "scan.zip")):
        ct = read_ct(path)
        assert ct.hu.dtype == np.int16
        np.testing.assert_array_equal(ct.hu, HU)


@given(
    bits=st.integers(12, 16),
    above=st.integers(0, 4),
    signed=st.booleans(),
    syntax=st.sampled_from([ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless]),
    slope=st.sampled_from(["1", "1.0", "2", "0.5", "1.25", "-1", "3e0"]),
    intercept=st.sampled_from(["0", "-1024", "-1000", "-1024.5", ""]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bits_slope_and_intercept_are_obeyed(tmp_path, bits, above, signed, syntax, slope, intercept, seed):
    """Values stand at HighBit, whatever the bits round them hold; HU is a sum and a product in float64."""
    rng = np.random.default_rng(seed)
    high = min(15, bits - 1 + above)
    low = high + 1 - bits
    factor, offset = float(slope), float(intercept or 0)
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    stored = np.clip(np.rint((HU - offset) / factor), least, most).astype(int)
    expected = stored * factor + offset
    window = ((1 << bits) - 1) << low
    words = ((stored << low) & window) | (rng.integers(0, 2**16, SHAPE) & ~window & 0xFFFF)
    items = series_of(words, bits=bits, high=high, signed=signed, slope=slope, intercept=intercept)
    folder = tmp_path / f"{rng.integers(2**62)}"
    make.save_series(folder, encoded_words(items, syntax))
    try:
        ct = read_ct(folder)
    except CTError as error:
        # Values that 12 bits cut off may leave no air, no tissue, or too much metal.
        assert error.code == "ct-not-hu"
        return
    expected = np.maximum(expected, -1024)
    np.testing.assert_array_equal(ct.hu, expected)
    assert ct.hu.dtype == (np.int16 if (expected == np.rint(expected)).all() else np.float32)


def test_pixels_of_eight_and_of_32_bits(tmp_path):
    for bits, kind in ((8, "<u1"), (32, "<i4")):
        slope = 16 if bits == 8 else 1
        items = make.dicom_slices(HU)
        for item, plane in zip(items, HU, strict=True):
            item.BitsAllocated = item.BitsStored = bits
            item.HighBit, item.PixelRepresentation, item.RescaleSlope = bits - 1, int(bits == 32), slope
            item.PixelData = np.clip((plane.astype(int) + 1024) // slope, 0, 2**31).astype(kind).tobytes()
            item["PixelData"].VR = "OB" if bits == 8 else "OW"
        ct = read_ct(make.save_series(tmp_path / str(bits), items))
        np.testing.assert_array_equal(ct.hu, (HU.astype(int) + 1024) // slope * slope - 1024)


def test_a_slope_of_zero_is_none_and_one_that_is_no_number_is_refused(tmp_path):
    items = series_of(HU.astype(int), bits=16, signed=True, slope="0")
    np.testing.assert_array_equal(read_ct(make.save_series(tmp_path / "zero", items)).hu, HU)
    folder = make.save_series(tmp_path / "text", make.dicom_slices(HU))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\x28\x00\x53\x10DS\x04\x001", b"\x28\x00\x53\x10DS\x04\x00a"))
    with pytest.raises(CTError, match="HU are nan times") as caught:
        read_ct(folder)
    assert caught.value.code == "ct-damaged"


def test_without_files_in_memory_a_decoder_writes_the_code_stream_alone(tmp_path, monkeypatch):
    """As on macOS and Windows, where SimpleITK can be given nothing but files; nothing is left of it."""
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (item,) = make.encoded(series_of(HU[:1].astype(int) + 1024, bits=12, signed=False), JPEG2000Lossless)
    stream = next(generate_frames(item.PixelData, number_of_frames=1))
    request = decoding.REQUEST.pack(JPEG2000Lossless.encode(), *SHAPE[1:], 12, 0) + stream
    answer = decoding.decoder()(request)
    np.testing.assert_array_equal(np.frombuffer(answer, "<u2").reshape(SHAPE[1:]), HU[0].astype(int) + 1024)
    assert list(tmp_path.iterdir()) == []


def test_high_bit_as_dcmtk_has_it(tmp_path):
    """pydicom and GDCM take the lowest 12 bits of values that stand in the highest."""
    if shutil.which("dcm2pnm") is None:
        pytest.skip("no dcmtk")
    stored = HU.astype(int) + 1024
    items = series_of(stored << 4 | 5, bits=12, high=15, signed=False, intercept=-1024)
    folder = make.save_series(tmp_path / "series", items)
    for plane, path in zip(read_ct(folder).hu, sorted(folder.iterdir()), strict=True):
        command = ["dcm2pnm", "--no-modality", "--no-windowing", "--write-n-bit-pnm", "12", path]
        printed = subprocess.run([*command, tmp_path / "plane.pgm"], check=True, capture_output=True)
        assert printed.returncode == 0
        _, columns, rows, highest, *values = (tmp_path / "plane.pgm").read_text().split()
        assert (int(rows), int(columns), int(highest)) == (*SHAPE[1:], 4095)
        np.testing.assert_array_equal(plane, np.reshape(values, SHAPE[1:]).astype(int) - 1024)
    assert (dcmread(path).pixel_array != stored[-1]).any()


@pytest.mark.parametrize("syntax", [*LOSSLESS, JPEGLosslessSV1], ids=lambda uid: uid.keyword)
def test_a_compressed_slice_that_is_cut_off_is_refused(tmp_path, syntax):
    folder = make.save_series(tmp_path / "series", make.encoded(make.dicom_slices(HU), syntax))
    path = folder / "001.dcm"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CTError, match=r"001\.dcm is truncated") as caught:
        read_ct(folder)
    assert caught.value.code == "ct-truncated"


def test_pixel_data_shorter_than_its_image_is_refused(tmp_path):
    """GDCM fills what is missing with whatever lies in memory."""
    items = make.dicom_slices(HU)
    items[1].PixelData = items[1].PixelData[:-200]
    with pytest.raises(CTError, match=r"001\.dcm is truncated: its header promises 3,840 bytes of voxels") as caught:
        read_ct(make.save_series(tmp_path / "series", items))
    assert caught.value.code == "ct-truncated"


def test_deflated_pixel_data_shorter_than_its_image_is_refused(tmp_path):
    """What follows them must not be taken for pixels."""
    items = make.dicom_slices(HU)
    items[1].PixelData = items[1].PixelData[:-200]
    items[1].DataSetTrailingPadding = bytes(400)
    folder = make.save_series(tmp_path / "series", make.encoded(items, DeflatedExplicitVRLittleEndian))
    with pytest.raises(CTError, match=r"001\.dcm is truncated: its header promises 3,840 bytes of voxels") as caught:
        read_ct(folder)
    assert caught.value.code == "ct-truncated"


@pytest.mark.parametrize(("bits", "high"), [(17, 16), (0, 15), (12, 16), (12, 3)])
def test_impossible_bits_are_refused(tmp_path, bits, high):
    items = series_of(HU.astype(int), bits=bits, high=high, signed=True)
    with pytest.raises(CTError, match=f"bits up to {high} of 16 hold {bits}") as caught:
        read_ct(make.save_series(tmp_path / "series", items))
    assert caught.value.code == "ct-damaged"


def test_neither_pydicom_nor_itk_says_anything(tmp_path):
    """pydicom warns of what breaks DICOM's rules and does not matter here."""
    items = make.dicom_slices(HU)
    for item in items:
        item.SpecificCharacterSet = "ISO_IR 100"
    folder = make.save_series(tmp_path / "series", items)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 999"))
    with pytest.warns(UserWarning, match="encoding"):
        dcmread(path)
    program = f"from nodule_diag.ct.reading import read_ct; read_ct({str(folder)!r})"
    finished = subprocess.run([sys.executable, "-W", "always", "-c", program], capture_output=True, check=True)
    assert (finished.stdout, finished.stderr) == (b"", b"")


@pytest.mark.parametrize(
    ("padding", "limit", "signed", "bits"),
    [
        (65535, None, False, 16),
        (63536, None, False, 16),
        (32768, None, False, 16),
        (63536, None, False, 12),  # beyond the stored bits
        (4095, None, False, 12),
        (60000, 65535, False, 16),
        (65535, 60000, False, 16),
        (32767, None, True, 16),
        (-2000, None, True, 16),
        (-32768, -30000, True, 16),
    ],
)
def test_padding_that_the_header_declares_is_air(tmp_path, padding, limit, signed, bits):
    stored = HU.astype(int) + 1024
    outside = np.zeros(SHAPE, bool)
    outside[:, :9, :9] = True
    stored[outside] = padding
    stored[:, 0, 0] = limit or padding
    items = series_of(stored, bits=bits, signed=signed, intercept="-1024")
    for item in items:
        for word, value in (("PixelPaddingValue", padding), ("PixelPaddingRangeLimit", limit)):
            if value is not None:
                item.add_new(word, "SS" if signed else "US", value)
    ct = read_ct(make.save_series(tmp_path / "series", items))
    np.testing.assert_array_equal(ct.hu, np.where(outside, -1024, HU))


def test_padding_that_is_water_is_water(tmp_path):
    """Some headers declare 0 where 0 is a measured value."""
    items = series_of(HU, bits=16, signed=True)
    for item in items:
        item.add_new("PixelPaddingValue", "SS", 0)
    np.testing.assert_array_equal(read_ct(make.save_series(tmp_path / "series", items)).hu, HU)
