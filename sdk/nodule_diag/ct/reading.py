"""The one function that reads any supported file into a CT volume."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter

from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError, UsageError
from nodule_diag.process import LOG, resolve_threads

DICOM_FILE_SUFFIXES = (".dcm", ".dicom", ".ima")
FORMATS = ".nii, .nii.gz, .mha, .mhd, .nrrd, a DICOM folder, or a .zip of one"


def read_ct(path: str | os.PathLike[str], *, series: str | None = None, threads: int | None = None) -> CTVolume:
    """Read a CT of any supported format, or say exactly why it must not be used.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.mha``, ``.mhd``, ``.nrrd``, a DICOM directory, or a ``.zip`` of one.
        series: The SeriesInstanceUID to read, where DICOM holds several.
        threads: CPU threads that reading DICOM may use; ``OMP_NUM_THREADS`` or every available core when left out.

    Returns:
        The volume in HU on canonical LPS axes.

    Raises:
        CTError: With a ``code`` of its own for each kind of rejection; docs/bad-input.md lists them.
        UsageError: When ``series`` is given for a format that has none, or ``threads`` is no number of threads.
    """
    source = Path(path)
    count = resolve_threads(threads)
    started = perf_counter()
    try:
        ct = _read(source, series, count)
    except OSError as error:
        raise CTError(
            f"{source} cannot be read: {error.strerror or error}",
            code="ct-unreadable",
            hint="check the path and its permissions",
        ) from error
    took_ms = (perf_counter() - started) * 1000.0
    LOG.info("read a CT of %d x %d x %d voxels in %.0f ms, %d warnings", *ct.size_xyz, took_ms, len(ct.warnings))
    return ct


def _read(source: Path, series: str | None, threads: int) -> CTVolume:
    """Choose the reader. Each is imported when used: SimpleITK is heavy and NIfTI does without it."""
    name = source.name.lower()
    if not source.exists():
        raise CTError(f"{source} does not exist", code="ct-missing-path", hint="check the path")
    if source.is_dir() or name.endswith(".zip"):
        from nodule_diag.ct.dicom import archive
        from nodule_diag.ct.dicom import series as dicom

        if source.is_dir():
            return dicom.read_folder(source, series=series, threads=threads)
        with archive.unpacked(source, threads=threads) as files:
            return dicom.read_files(files, source=str(source), series=series, threads=threads)
    if name.endswith(DICOM_FILE_SUFFIXES):
        raise CTError(
            f"{source} is a single DICOM file; a CT is a folder of them",
            code="ct-single-dicom-file",
            hint="give the folder that holds the whole series, or a .zip of it",
        )
    if not name.endswith((".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")):
        raise CTError(
            f"{source} is of no supported format: {source.suffix or 'no extension'}",
            code="ct-unsupported-format",
            hint=f"supported are {FORMATS}",
        )
    if series is not None:
        raise UsageError(
            f"{source} is not DICOM, so it has no series {series!r}", code="series-not-dicom", hint="leave --series out"
        )
    if source.stat().st_size == 0:
        raise CTError(f"{source} is empty", code="ct-empty", hint="copy or download the file again")
    if name.endswith((".nii", ".nii.gz")):
        from nodule_diag.ct.formats import nifti

        return nifti.read(source)
    if name.endswith(".nrrd"):
        from nodule_diag.ct.formats import nrrd

        return nrrd.read(source)
    from nodule_diag.ct.formats import metaimage

    return metaimage.read(source)
