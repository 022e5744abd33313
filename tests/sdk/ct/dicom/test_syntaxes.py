"""Every transfer syntax that is read gives what was stored: docs/transfer-syntaxes.md is made here."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate

import ct_files as make
from nodule_diag.ct.dicom.pixels import DECODED, ENCAPSULATED_UNCOMPRESSED, syntax_name
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import CTError

UPDATE = "NODULE_DIAG_UPDATE_DOCS"
GE = "1.2.840.113619.5.2"
SHAPE = (3, 32, 32)
HU = make.chest_hu(SHAPE)
STREAMS = json.loads(Path(__file__).with_name("htj2k.json").read_text())["streams"]
needs_dcmtk = pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="no dcmtk")


def slices():
    """Unsigned values of 12 bits, which every encoder takes."""
    items = make.dicom_slices(HU)
    for item in items:
        item.BitsStored, item.HighBit, item.PixelRepresentation = 12, 11, 0
    return items


def by_pydicom(folder, syntax, **options):
    items = slices()
    if options:
        for item in items:
            make.encoded([item], uid.ExplicitVRLittleEndian)
            item.compress(syntax, generate_instance_uid=False, **options)
        return make.save_series(folder, items)
    return make.save_series(folder, make.encoded(items, syntax))


def by_hand(folder, syntax):
    """What pydicom cannot write: frames of plain pixels, and GE's big endian pixels behind a little endian header."""
    items = make.encoded(slices(), uid.ImplicitVRLittleEndian if syntax == GE else uid.ExplicitVRLittleEndian)
    for item in items:
        if syntax == GE:
            item.PixelData = np.frombuffer(item.PixelData, "<u2").astype(">u2").tobytes()
        else:
            item.file_meta.TransferSyntaxUID = ENCAPSULATED_UNCOMPRESSED
            item.PixelData = encapsulate([item.PixelData])
            item["PixelData"].is_undefined_length = True
    make.save_series(folder, items)
    if syntax == GE:
        for path in folder.iterdir():
            item = path.read_bytes()
            plain = uid.ImplicitVRLittleEndian.encode() + b"\0"
            assert len(plain) == len(GE)
            path.write_bytes(item.replace(plain, GE.encode()))
    return folder


def by_dcmtk(command):
    def encode(folder, syntax):
        plain = make.save_series(folder / "plain", slices())
        for path in sorted(plain.iterdir()):
            subprocess.run([*command.split(), path, folder / path.name], check=True, capture_output=True)
        shutil.rmtree(plain)
        return folder

    return encode


def by_openjph(folder, syntax):
    items = make.encoded(slices(), uid.ExplicitVRLittleEndian)
    for item, stream in zip(items, STREAMS[syntax], strict=True):
        item.file_meta.TransferSyntaxUID = syntax
        item.PixelData = encapsulate([base64.b64decode(stream)])
        item["PixelData"].is_undefined_length = True
    return make.save_series(folder, items)


def rounded(count):
    def encode(folder, syntax):
        return by_pydicom(folder, syntax, **count)

    return encode


ENCODED = [
    *[(syntax, "pydicom", by_pydicom) for syntax in DECODED[:4]],
    (GE, "by hand", by_hand),
    (ENCAPSULATED_UNCOMPRESSED, "by hand", by_hand),
    (uid.RLELossless, "pydicom", by_pydicom),
    (uid.RLELossless, "dcmtk", by_dcmtk("dcmcrle")),
    (uid.JPEGBaseline8Bit, "dcmtk", by_dcmtk("dcmcjpeg +eb +q 95")),
    (uid.JPEGExtended12Bit, "dcmtk", by_dcmtk("dcmcjpeg +ee +q 95")),
    ("1.2.840.10008.1.2.4.53", "dcmtk", by_dcmtk("dcmcjpeg +es +q 95")),
    ("1.2.840.10008.1.2.4.55", "dcmtk", by_dcmtk("dcmcjpeg +ep +q 95")),
    (uid.JPEGLossless, "dcmtk", by_dcmtk("dcmcjpeg +el +sv 6")),
    (uid.JPEGLosslessSV1, "GDCM", by_pydicom),
    (uid.JPEGLosslessSV1, "dcmtk", by_dcmtk("dcmcjpeg +e1")),
    (uid.JPEGLSLossless, "CharLS", by_pydicom),
    (uid.JPEGLSLossless, "dcmtk", by_dcmtk("dcmcjpls +el")),
    (uid.JPEGLSNearLossless, "CharLS", rounded({"jls_error": 3})),
    (uid.JPEGLSNearLossless, "dcmtk", by_dcmtk("dcmcjpls +en +md 2")),
    (uid.JPEG2000Lossless, "OpenJPEG", by_pydicom),
    (uid.JPEG2000, "OpenJPEG", rounded({"j2k_psnr": [60]})),
    *[(syntax, "OpenJPH", by_openjph) for syntax in STREAMS],
]
LOSSY = {
    *(uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"),
    *(uid.JPEGLSNearLossless, uid.JPEG2000, "1.2.840.10008.1.2.4.203"),
}
MOST_LOST_HU = {uid.JPEGBaseline8Bit: 60}
"""Eight bits for 1,150 HU, after dcmtk's own scaling; 25 for the others."""


@pytest.fixture(params=ENCODED, ids=lambda case: f"{uid.UID(case[0]).keyword or case[0]}, {case[1]}")
def encoded(request, tmp_path):
    """A series in some syntax, the syntax, and its encoder."""
    syntax, name, encode = request.param
    if name == "dcmtk" and shutil.which("dcmcjpeg") is None:
        pytest.skip("no dcmtk")
    folder = tmp_path / "series"
    folder.mkdir()
    return encode(folder, syntax), syntax


def test_it_gives_what_was_stored(encoded, tmp_path):
    folder, syntax = encoded
    assert syntax.encode() in (folder / "000.dcm").read_bytes()
    ct = read_ct(folder)
    lost = np.abs(ct.hu.astype(int) - HU).max()
    assert (0 < lost <= MOST_LOST_HU.get(syntax, 25)) if syntax in LOSSY else lost == 0
    warned = [warning for warning in ct.warnings if "compressed with loss" in warning]
    assert len(warned) == (syntax in LOSSY)
    if warned:
        assert syntax_name(syntax) in warned[0]
    np.testing.assert_array_equal(read_ct(make.zipped(folder, tmp_path / "scan.zip")).hu, ct.hu)


def test_every_syntax_that_is_read_is_tried():
    assert {syntax for syntax, *_ in ENCODED} == set(DECODED)


@needs_dcmtk
@pytest.mark.parametrize("option", ["+ee", "+es", "+ep", "+e1 +pl"])
def test_what_was_lost_is_what_dcmtk_finds(tmp_path, option):
    folder = by_dcmtk(f"dcmcjpeg {option}")(make.save_series(tmp_path / "series", []), None)
    for number, plane in enumerate(read_ct(folder).hu):
        plain = tmp_path / "plain.dcm"
        subprocess.run(["dcmdjpeg", folder / f"{number:03d}.dcm", plain], check=True)
        item = dcmread(plain)
        np.testing.assert_array_equal(
            plane, np.maximum(item.pixel_array.astype(int) + int(item.RescaleIntercept), -1024)
        )


@needs_dcmtk
def test_a_loss_before_the_last_encoding_is_told(tmp_path):
    """The header remembers it, with the ratio."""
    folder = by_dcmtk("dcmcjpeg +ee")(make.save_series(tmp_path / "series", []), None)
    for path in folder.iterdir():
        subprocess.run(["dcmdjpeg", path, path], check=True)
    (warning,) = read_ct(folder).warnings
    ratio = dcmread(folder / "000.dcm").LossyImageCompressionRatio
    assert f"Explicit VR Little Endian (1.2.840.10008.1.2.1), ratio {float(ratio):.3g}:1" in warning


@pytest.mark.parametrize(
    "syntax", [known for known in uid.AllTransferSyntaxes if known not in DECODED], ids=lambda known: known.keyword
)
def test_all_others_are_refused_by_name(tmp_path, syntax):
    items = make.encoded(make.dicom_slices(HU), uid.ExplicitVRLittleEndian)
    for item in items:
        item.file_meta.TransferSyntaxUID = syntax
        item.PixelData = encapsulate([b"\0" * 100])
        item["PixelData"].is_undefined_length = True
    with pytest.raises(CTError) as caught:
        read_ct(make.save_series(tmp_path / "series", items))
    assert caught.value.code == "ct-transfer-syntax"
    assert f"000.dcm is stored as {syntax.name} ({syntax}), which is not read" in str(caught.value)


@needs_dcmtk
def test_the_page_in_the_docs_is_true(tmp_path, repo_root):
    rows = []
    for syntax in DECODED:
        by, lost = [], set()
        for number, (of, name, encode) in enumerate(ENCODED):
            if of == syntax:
                folder = tmp_path / f"{syntax}-{number}"
                folder.mkdir()
                by.append(name)
                lost.add(np.abs(read_ct(encode(folder, syntax)).hu.astype(int) - HU).max() > 0)
        (some,) = lost
        name = "GE, private" if syntax == GE else uid.UID(syntax).name
        rows.append(f"| {name} | `{syntax}` | {', '.join(by)} | {'some, with a warning' if some else 'nothing'} |")
    page = PAGE + "\n".join(rows) + "\n"
    target = repo_root / "docs" / "transfer-syntaxes.md"
    if os.environ.get(UPDATE) == "1":
        target.write_text(page, encoding="utf-8")
    assert target.read_text(encoding="utf-8") == page, f"run again with {UPDATE}=1 and commit {target.name}"


PAGE = f"""# Transfer syntaxes

How the pixels of a DICOM slice may be stored. This page is made by the test that encodes a series in each of them and
compares what is read with what was stored: `{UPDATE}=1 pytest tests/sdk/ct/dicom/test_syntaxes.py`.

All other transfer syntaxes are refused by name (`ct-transfer-syntax`). Nothing has to be installed: GDCM, which comes
with SimpleITK, decodes compressed slices. GDCM runs in a separate process. A damaged slice that crashes GDCM, hangs
it or exhausts its memory is an error that names the slice (`ct-decoder-died`). If the embedding program is not Python
(`ct-no-decoder`), set the variable `NODULE_DIAG_PYTHON` to a Python that has this package.

Lossy slices are read, and the result carries a warning.

| Transfer syntax | UID | Encoded in the test by | Lost |
|---|---|---|---|
"""
