"""The one function that reads any supported file into a CT volume."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter

import numpy as np

from nodule_diag.ct.formats.registry import ARCHIVE_SUFFIX, DICOM_FILE_SUFFIXES, PAIR_SUFFIXES, SUFFIXES, format_of
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError, UsageError
from nodule_diag.process import LOG, resolve_threads


def read_ct(
    path: str | os.PathLike[str],
    *,
    series: str | None = None,
    acquisition: int | None = None,
    threads: int | None = None,
) -> CTVolume:
    """Read a CT of any supported format, or say exactly why it must not be used.

    Args:
        path: A file of one of the formats of `nodule_diag.ct.formats.registry`, a DICOM folder, or a ``.zip`` of one.
        series: The SeriesInstanceUID to read, where DICOM holds several.
        acquisition: Which volume of a DICOM series to read, where it holds several: its AcquisitionNumber, or the
            number that the error lists it by.
        threads: CPU threads that reading DICOM may use; ``OMP_NUM_THREADS`` or every available core when left out.

    Returns:
        The volume in HU on canonical LPS axes.

    Raises:
        CTError: With a ``code`` of its own for each kind of rejection; docs/bad-input.md lists them.
        UsageError: When ``series`` or ``acquisition`` is given for a format that has none, or ``threads`` is no number
            of threads.
    """
    source = Path(path)
    count = resolve_threads(threads)
    started = perf_counter()
    try:
        # Headers of absurd numbers overflow on the way to the checks that refuse them.
        with np.errstate(over="ignore", invalid="ignore"):
            ct = _read(source, series, acquisition, count)
    except OSError as error:
        raise CTError(
            f"{source} cannot be read: {error.strerror or error}",
            code="ct-unreadable",
            hint="check the path and its permissions",
        ) from error
    except MemoryError as error:
        raise CTError(
            f"{source} needs more memory than there is",
            code="ct-too-large",
            hint="read it where more memory is free",
        ) from error
    took_ms = (perf_counter() - started) * 1000.0
    LOG.info("read a CT of %d x %d x %d voxels in %.0f ms, %d warnings", *ct.size_xyz, took_ms, len(ct.warnings))
    return ct


def _read(source: Path, series: str | None, acquisition: int | None, threads: int) -> CTVolume:
    """Choose the reader."""
    name = source.name.lower()
    if not source.exists():
        raise CTError(f"{source} does not exist", code="ct-missing-path", hint="check the path")
    if not (source.is_file() or source.is_dir()):
        raise CTError(
            f"{source} cannot be read: it is a pipe or a device",
            code="ct-unreadable",
            hint="write the CT to a file and give that",
        )
    if source.is_file() and source.stat().st_size == 0:
        raise CTError(f"{source} is empty", code="ct-empty", hint="copy or download the file again")
    if source.is_dir() or name.endswith(ARCHIVE_SUFFIX):
        from nodule_diag.ct.dicom import series as dicom  # heavy

        return dicom.read(source, series=series, acquisition=acquisition, threads=threads)
    if name.endswith(DICOM_FILE_SUFFIXES):
        raise CTError(
            f"{source} is a single DICOM file; a CT is a folder of them",
            code="ct-single-dicom-file",
            hint="give the folder that holds the whole series, or a .zip of it",
        )
    form = format_of(name)
    if form is None:
        pair = "convert the .hdr and .img pair to one .nii.gz file"
        raise CTError(
            f"{source} is of no supported format: {source.suffix or 'no extension'}",
            code="ct-unsupported-format",
            hint=pair if name.endswith(PAIR_SUFFIXES) else f"supported are {SUFFIXES}",
        )
    for option, value in (("series", series), ("acquisition", acquisition)):
        if value is not None:
            raise UsageError(
                f"{source} is not DICOM, so it has no {option} {value!r}",
                code=f"{option}-not-dicom",
                hint=f"leave --{option} out",
            )
    return form.read(source)
