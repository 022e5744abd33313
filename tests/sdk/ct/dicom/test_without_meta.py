"""Files that begin without a preamble or without group 2, or whose group 2 is wrong about the encoding of the rest."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

import ct_files as make
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import CTError


def encoded(item, *, implicit: bool, meta: str | None, preamble: bool) -> bytes:
    body = DicomBytesIO()
    body.is_little_endian, body.is_implicit_VR = True, implicit
    write_dataset(body, item)
    head = BytesIO()
    if preamble:
        head.write(b"\0" * 128 + b"DICM")
    if meta is not None:
        item.file_meta.TransferSyntaxUID = meta
        write_file_meta_info(head, item.file_meta, enforce_standard=True)
    return head.getvalue() + body.getvalue()


@pytest.mark.parametrize("preamble", [True, False])
@pytest.mark.parametrize("meta", [None, ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("implicit", [True, False])
def test_read_as_they_are(tmp_path: Path, *, implicit: bool, meta: str | None, preamble: bool) -> None:
    if meta is not None and not preamble:
        pytest.skip("group 2 stands behind a preamble")
    slices = make.dicom_slices()
    folder = make.save_series(tmp_path / "good", slices)
    wanted = read_ct(folder)
    other = tmp_path / "other"
    other.mkdir()
    for number, item in enumerate(slices):
        (other / f"{number}.dcm").write_bytes(encoded(item, implicit=implicit, meta=meta, preamble=preamble))
    np.testing.assert_array_equal(read_ct(other).hu, wanted.hu)


def test_an_element_that_stands_twice_is_refused(tmp_path: Path) -> None:
    folder = make.save_series(tmp_path / "series", make.dicom_slices())
    path = folder / "003.dcm"
    data = path.read_bytes()
    at = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    path.write_bytes(data[:at] + struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 6) + b"OTHER " + data[at:])
    with pytest.raises(CTError) as caught:
        read_ct(folder)
    assert "003.dcm" in str(caught.value)
