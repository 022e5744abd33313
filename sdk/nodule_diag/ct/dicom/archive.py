"""Zip archives of DICOM, unpacked under names of our own into a private folder that is always removed.

No name from the archive ever becomes a path, so nothing can be written outside that folder or over another file;
archives whose names try to are refused all the same, for what else they may hold.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

from nodule_diag.ct.dicom.files import DicomFile
from nodule_diag.ct.limits import MAX_ARCHIVE_BYTES, MAX_FILES, MAX_SLICE_BYTES
from nodule_diag.errors import CTError
from nodule_diag.process import SERVED_COMPRESSION, in_order, open_zip

_ENCRYPTED = 0x1
_GIB = 2**30


@contextmanager
def unpacked(path: Path, *, threads: int) -> Iterator[list[DicomFile]]:
    """Unpack an archive for as long as the block runs.

    Args:
        path: The ``.zip``.
        threads: How many files are inflated at once; zlib does not hold the interpreter's lock.

    Yields:
        The unpacked files, with the names they have in the archive.

    Raises:
        CTError: ``ct-empty``, ``ct-damaged``, or one of ``ct-archive-*``.
    """
    if path.stat().st_size == 0:
        raise CTError(f"{path} is empty", code="ct-empty", hint="copy or download the file again")
    try:
        archive = open_zip(path)
    except zipfile.BadZipFile as error:
        raise CTError(
            f"{path} is truncated or no zip archive: {error}",
            code="ct-truncated",
            hint="copy or download the file again",
        ) from error
    with archive, tempfile.TemporaryDirectory(prefix="nodule-diag-") as folder:
        yield _unpack(archive, _checked(archive, path), Path(folder), path, threads)


def _checked(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The archive's files, after its directory has been found harmless."""
    entries = archive.infolist()
    for entry in entries:
        _check_entry(entry, path)
    files = [entry for entry in entries if not entry.is_dir() and not _is_clutter(entry.filename)]
    if len(files) > MAX_FILES:
        raise CTError(
            f"{path} holds {len(files):,} files, over the limit of {MAX_FILES:,}",
            code="ct-archive-too-many-files",
            hint="pack one CT series alone",
        )
    total = sum(entry.file_size for entry in files)
    if total > MAX_ARCHIVE_BYTES:
        raise CTError(
            f"{path} unpacks to {total / _GIB:.1f} GiB, over the limit of {MAX_ARCHIVE_BYTES / _GIB:.0f} GiB",
            code="ct-archive-too-large",
            hint="pack one CT series alone",
        )
    return files


def _check_entry(entry: zipfile.ZipInfo, path: Path) -> None:
    name = entry.filename
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    parts = (*posix.parts, *windows.parts)
    if posix.is_absolute() or windows.drive or windows.root or ".." in parts:
        raise CTError(
            f"{path} holds a file named {name!r}, which points outside the archive",
            code="ct-archive-path-escape",
            hint="do not trust this archive; pack the DICOM folder again",
        )
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise CTError(
            f"{path} holds a symbolic link, {name!r}",
            code="ct-archive-link",
            hint="pack the DICOM files themselves",
        )
    if entry.flag_bits & _ENCRYPTED:
        raise CTError(
            f"{path} is encrypted: {name!r} needs a password", code="ct-archive-encrypted", hint="unpack it first"
        )
    if entry.compress_type not in SERVED_COMPRESSION:
        raise CTError(
            f"{path} holds {name!r}, which is compressed in a way other than deflate",
            code="ct-archive-compression",
            hint="pack the DICOM folder again as an ordinary zip",
        )
    if entry.file_size > MAX_SLICE_BYTES:
        raise CTError(
            f"{path} holds {name!r}, which unpacks to {entry.file_size / 2**20:,.0f} MiB,"
            f" over the limit of {MAX_SLICE_BYTES // 2**20} MiB for one DICOM slice",
            code="ct-archive-too-large",
            hint="pack the DICOM slices of one CT series alone",
        )


def _is_clutter(name: str) -> bool:
    """What macOS adds to an archive."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith("._")


def _unpack(
    archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], folder: Path, path: Path, threads: int
) -> list[DicomFile]:
    unpack = partial(_unpack_one, archive=archive, folder=folder, path=path, lock=threading.Lock())
    with in_order(unpack, enumerate(entries), threads=threads) as files:
        return list(files)


def _unpack_one(
    numbered: tuple[int, zipfile.ZipInfo], *, archive: zipfile.ZipFile, folder: Path, path: Path, lock: threading.Lock
) -> DicomFile:
    number, entry = numbered
    target = folder / f"{number:06d}"
    try:
        # Reading an open entry is safe beside others; an archive counts its open entries without a lock.
        with lock:
            source = archive.open(entry)
        try:
            with target.open("wb") as copy:
                # zipfile stops at the size the directory promises, which has been added up, and checks the CRC.
                shutil.copyfileobj(source, copy)
        finally:
            with lock:
                source.close()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise CTError(
            f"{path} is damaged: {entry.filename!r} cannot be unpacked ({error})",
            code="ct-damaged",
            hint="copy or download the archive again",
        ) from error
    return DicomFile(target, entry.filename)
