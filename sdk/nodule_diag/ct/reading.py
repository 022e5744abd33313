"""Reads any supported file, on a disk or in memory, into a CT volume."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from nodule_diag.ct.formats.ct_file import CTFile
from nodule_diag.ct.formats.registry import ARCHIVE_SUFFIX, DICOM_FILE_SUFFIXES, PAIR_SUFFIXES, SUFFIXES, format_of
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError, UsageError
from nodule_diag.process import LOG, resolve_threads

if TYPE_CHECKING:
    from nodule_diag.ct.dicom.files import DicomFile


def read_ct(
    path: str | os.PathLike[str],
    *,
    series: str | None = None,
    acquisition: int | None = None,
    threads: int | None = None,
) -> CTVolume:
    """Read a CT of any supported format, or raise an error that says exactly why it must not be used.

    Args:
        path: A file of one of the formats of `nodule_diag.ct.formats.registry`, a DICOM folder, or a ``.zip`` of one.
        series: The SeriesInstanceUID to read, where DICOM holds several.
        acquisition: Which volume of a DICOM series to read, where the series holds several: its AcquisitionNumber, or
            its number in the list of the error.
        threads: CPU threads that reading DICOM may use; ``OMP_NUM_THREADS`` or every available core when left out.

    Returns:
        The volume in HU on canonical LPS axes.

    Raises:
        CTError: With its own ``code`` for each kind of rejection; docs/bad-input.md lists the codes.
        UsageError: When ``series`` or ``acquisition`` is given for a format that has none, or ``threads`` is not a
            number of threads.
    """
    source, count = Path(path), resolve_threads(threads)
    return _told(str(source), lambda: _read(source, series, acquisition, count))


def read_ct_in_memory(
    files: Mapping[str, bytes],
    *,
    series: str | None = None,
    acquisition: int | None = None,
    threads: int | None = None,
) -> CTVolume:
    """:func:`read_ct` for files in memory, such as an upload; nothing is written anywhere.

    Args:
        files: Bytes by name: a file of one of the formats, a header with the file that it names, one ``.zip`` of a
            DICOM folder, or the DICOM files of a series.
        series: As :func:`read_ct`.
        acquisition: As :func:`read_ct`.
        threads: As :func:`read_ct`.

    Returns:
        The volume; its ``path`` is the name of the file, or of the first file.

    Raises:
        CTError: As :func:`read_ct`.
        UsageError: As :func:`read_ct`.
    """
    count = resolve_threads(threads)
    if not files:
        raise CTError("no file was given", code="ct-empty", hint=f"give a CT: {SUFFIXES}")
    headed = next((name for name in files if format_of(name)), None)
    name = headed or next(iter(files))
    if headed is not None:
        _require_no_series(headed, series, acquisition)
    return _told(name, lambda: _read_in_memory(name, files, series, acquisition, count))


def dicom_files_in_memory(files: Mapping[str, bytes]) -> list[DicomFile]:
    """The DICOM files that :func:`read_ct_in_memory` takes a series from: those of a ``.zip``, or all given files.

    Raises:
        CTError: As :func:`read_ct` for an archive.
    """
    from nodule_diag.ct.dicom.files import MemoryFile, members_of, printable_name

    if len(files) == 1 and (name := next(iter(files))).lower().endswith(ARCHIVE_SUFFIX):
        return members_of(Path(name), files[name])
    return [MemoryFile(printable_name(name), Path(name), data=data) for name, data in files.items()]


def _read_in_memory(
    name: str, files: Mapping[str, bytes], series: str | None, acquisition: int | None, threads: int
) -> CTVolume:
    """Choose the reader."""
    if empty := [other for other, data in files.items() if not data]:
        raise CTError(f"{empty[0]} is empty", code="ct-empty", hint="copy or download the file again")
    form = format_of(name)
    if form is not None:
        file = CTFile(Path(name), files[name], beside=files)
        ct = form.read(file)
        others = {one: data for one, data in files.items() if one != name and one not in file.used}
        if other := next((one for one, data in others.items() if _may_be_a_ct(one, data)), None):
            raise CTError(
                f"{name} is a whole CT, and {other} came with it",
                code="ct-several-files",
                hint=f"give one CT: {name} alone, or the others without it",
            )
        return ct
    if len(files) == 1 and not name.lower().endswith(ARCHIVE_SUFFIX):
        _refuse_name(Path(name))
    from nodule_diag.ct.dicom.series import read_dicom_files

    found = dicom_files_in_memory(files)
    return read_dicom_files(found, source=name, series=series, acquisition=acquisition, threads=threads)


def _may_be_a_ct(name: str, data: bytes) -> bool:
    """Whether a file is of a CT's format, or a DICOM object or an archive; a note or a sidecar is not."""
    named = name.lower().endswith((*DICOM_FILE_SUFFIXES, ARCHIVE_SUFFIX)) or format_of(name) is not None
    return named or data[128:132] == b"DICM"


def _told(name: str, read: Callable[[], CTVolume]) -> CTVolume:
    """Read a CT and log it; errors of the file system or of memory become this package's."""
    started = perf_counter()
    try:
        # Absurd numbers in a header overflow before the checks that refuse them.
        with np.errstate(over="ignore", invalid="ignore"):
            ct = read()
    except OSError as error:
        raise CTError(
            f"{name} cannot be read: {error.strerror or error}",
            code="ct-unreadable",
            hint="check the path and its permissions",
        ) from error
    except MemoryError as error:
        raise CTError(
            f"{name} needs more memory than there is",
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
    form = format_of(name)
    if form is None:
        _refuse_name(source)
    _require_no_series(str(source), series, acquisition)
    return form.read(CTFile(source))


def _refuse_name(source: Path) -> NoReturn:
    """Refuse a name of no supported format, and say what the file may be."""
    name = source.name.lower()
    if name.endswith(DICOM_FILE_SUFFIXES):
        raise CTError(
            f"{source} is a single DICOM file; a CT is a folder of them",
            code="ct-single-dicom-file",
            hint="give the folder that holds the whole series, or a .zip of it",
        )
    pair = "convert the .hdr and .img pair to one .nii.gz file"
    raise CTError(
        f"{source} is of no supported format: {source.suffix or 'no extension'}",
        code="ct-unsupported-format",
        hint=pair if name.endswith(PAIR_SUFFIXES) else f"supported are {SUFFIXES}",
    )


def _require_no_series(name: str, series: str | None, acquisition: int | None) -> None:
    for option, value in (("series", series), ("acquisition", acquisition)):
        if value is not None:
            raise UsageError(
                f"{name} is not DICOM, so it has no {option} {value!r}",
                code=f"{option}-not-dicom",
                hint=f"leave --{option} out",
            )
