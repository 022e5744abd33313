"""Paths that lead to no CT."""

import os

import ct_files as make
from bad_inputs.case import case
from bad_inputs.dicom import slices


@case("a path that does not exist", "ct-missing-path", "scan.nii.gz")
def missing_path(folder):
    return folder / "scan.nii.gz"


@case("a file of another kind", "ct-unsupported-format", ".docx")
def unsupported_extension(folder):
    path = folder / "report.docx"
    path.write_bytes(b"PK")
    return path


@case("one DICOM file instead of its folder", "ct-single-dicom-file", "000.dcm")
def single_dicom_file(folder):
    return slices(folder) / "000.dcm"


@case("`--series` for a file that is not DICOM", "series-not-dicom", "1.2.3", series="1.2.3", exit_code=2)
def series_of_nifti(folder):
    return make.write(folder / "scan.nii.gz")


@case("an empty file", "ct-empty", "scan.nii")
def empty_file(folder):
    path = folder / "scan.nii"
    path.touch()
    return path


@case("a pipe instead of a file", "ct-unreadable", "pipe")
def pipe(folder):
    path = folder / "scan.nii"
    os.mkfifo(path)
    return path
