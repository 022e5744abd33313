"""One list of what can be read: reader, errors, help and README say the same, and nothing more is loaded."""

import json
import subprocess
import sys

import pytest

import ct_files as make
from nodule_diag.ct.formats.registry import FORMAT_NAMES, FORMATS, SUFFIXES, format_of
from nodule_diag.ct.reading import read_ct, read_ct_in_memory
from nodule_diag.errors import CTError

HEAVY = {"pydicom", "SimpleITK"}


@pytest.mark.parametrize("suffix", [suffix for form in FORMATS for suffix in form.suffixes])
def test_every_suffix_is_read_in_any_case(tmp_path, suffix):
    assert read_ct(make.write(tmp_path / f"scan{suffix}")).size_xyz == (28, 32, 12)
    assert format_of(f"SCAN{suffix.upper()}") is format_of(f"scan{suffix}") is not None


def test_errors_help_and_readme_name_every_format(tmp_path, repo_root):
    (tmp_path / "report.docx").write_bytes(b"PK")
    with pytest.raises(CTError) as caught:
        read_ct(tmp_path / "report.docx")
    assert caught.value.hint == f"supported are {SUFFIXES}"
    program = "from nodule_diag_cli.main import run; run(['predict', '--help'])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=None).stdout
    assert FORMAT_NAMES in " ".join(shown.replace("\u2502", " ").split())
    readme = (repo_root / "README.md").read_text(encoding="utf-8")
    for name in [*(form.name for form in FORMATS), "DICOM", "zip"]:
        assert name in readme


@pytest.mark.parametrize(
    ("name", "brings"),
    [("scan.nii", set()), ("scan.nii.gz", set()), ("scan.mha", set()), ("scan.nrrd", set()), ("", {"pydicom"})],
    ids=lambda value: value or "DICOM",
)
def test_reading_loads_only_what_its_format_needs(tmp_path, name, brings):
    """A cold ``predict`` pays for every import: pydicom takes a quarter of a second, SimpleITK as much."""
    path = make.write(tmp_path / name) if name else make.save_series(tmp_path / "series", make.dicom_slices())
    program = f"import sys, json, nodule_diag; nodule_diag.read_ct({str(path)!r}); print(json.dumps([*sys.modules]))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert HEAVY & set(json.loads(finished.stdout)) == brings


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.mha", "scan.mhd", "scan.nrrd", "scan.nhdr"])
def test_files_in_memory_are_one_ct(tmp_path, name):
    make.write(tmp_path / name)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert read_ct_in_memory(files).size_xyz == (28, 32, 12)
    beside = files | {"scan.json": b"{}", ".DS_Store": bytes(200)}
    assert read_ct_in_memory(beside).size_xyz == (28, 32, 12)
    make.write(tmp_path / "prior.nii")
    series = make.save_series(tmp_path / "series", make.dicom_slices())
    (series / "003.dcm").rename(series / "IM3")
    make.zipped(series, tmp_path / "series.zip")
    for other in (tmp_path / "prior.nii", series / "004.dcm", series / "IM3", tmp_path / "series.zip"):
        for given in (files | {other.name: other.read_bytes()}, {other.name: other.read_bytes()} | files):
            with pytest.raises(CTError, match="is a whole CT, and ") as caught:
                read_ct_in_memory(given)
            assert caught.value.code == "ct-several-files"
