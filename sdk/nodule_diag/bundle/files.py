"""The files of a bundle as bytes, from a directory or a zip: bounded, and nothing outside the bundle is ever read."""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from pydantic_core import PydanticCustomError

from nodule_diag.bundle.fields import check_relative_path
from nodule_diag.bundle.manifest import MANIFEST_NAME
from nodule_diag.errors import BundleError
from nodule_diag.process import SERVED_COMPRESSION, open_zip

MAX_FILES = 1000
"""Entries in a bundle, folders included; the packaged one has six."""
MAX_FILE_BYTES = 512 * 2**20
"""Largest single file; the paper's network is 15.5 MB in fp32."""
MAX_MANIFEST_BYTES = 1 * 2**20
"""Largest ``manifest.json``; real ones are a few kB."""

Reader = Callable[[int], bytes]
"""Reads at most the given number of bytes of one file."""


def beside(target: Path, role: str) -> Path:
    """The hidden name beside a bundle's directory for its ``new`` or ``old`` content, or the ``lock`` of its writer."""
    return target.with_name(f".{role}.part.{target.name}")


def list_files(path: Path) -> dict[str, Reader]:
    """List every file of a bundle, with a function that reads the file.

    Args:
        path: A directory, or a zip of its content.

    Returns:
        Readers by path relative to the bundle, sorted.

    Raises:
        BundleError: ``bundle-missing``, ``bundle-not-a-bundle``, ``bundle-unsafe-path`` or ``bundle-too-large``.
    """
    try:
        if not path.is_dir() and not path.is_file():
            former = beside(path, "old") if path.name else path
            killed = f"rename {former} to {path.name}: a killed writer left it"
            hint = killed if former.is_dir() else "check the path given to --bundle"
            raise BundleError(f"there is no bundle at {path}", hint=hint, code="bundle-missing")
        files = _list_directory(path) if path.is_dir() else _list_zip(path)
    except OSError as error:
        raise _unreadable(str(error.filename or path), error) from error
    if MANIFEST_NAME not in files:
        raise BundleError(
            f"{path} is not a bundle: it has no {MANIFEST_NAME} at its top",
            hint="give the folder that holds manifest.json, or a zip of what is in that folder",
            code="bundle-not-a-bundle",
        )
    return dict(sorted(files.items()))


def read_bounded(name: str, reader: Reader, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read one file whole.

    Args:
        name: Its name, for messages.
        reader: As :func:`list_files` returned it.
        limit: Largest size that is accepted, where it is below :data:`MAX_FILE_BYTES`.

    Returns:
        Its bytes.

    Raises:
        BundleError: ``bundle-too-large``, ``bundle-hash-mismatch`` for a zip entry whose own checksum fails, or
            ``bundle-unreadable``.
    """
    limit = min(limit, MAX_FILE_BYTES)
    try:
        data = reader(limit + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise BundleError(
            f"{name} in the bundle is damaged: {error}",
            hint="copy or download the bundle again",
            code="bundle-hash-mismatch",
        ) from error
    except OSError as error:
        raise _unreadable(f"{name} in the bundle", error) from error
    if len(data) > limit:
        raise _too_large(f"{name} is larger than {limit} bytes")
    return data


def _unreadable(what: str, error: OSError) -> BundleError:
    return BundleError(
        f"{what} cannot be read: {error.strerror or error}",
        hint="check the permissions of the bundle and its files",
        code="bundle-unreadable",
    )


def _too_large(what: str) -> BundleError:
    return BundleError(
        f"the bundle is too large: {what}", hint="this is not a nodule-diag bundle", code="bundle-too-large"
    )


def _unsafe(name: str, why: str) -> BundleError:
    return BundleError(
        f"the bundle holds {name!r}, {why}",
        hint="a bundle holds plain files under plain relative paths and nothing else",
        code="bundle-unsafe-path",
    )


def _check_name(name: str) -> None:
    try:
        check_relative_path(name)
    except PydanticCustomError as error:
        raise _unsafe(name, "which is not a plain relative path") from error


def _list_directory(root: Path) -> dict[str, Reader]:
    """Walk without following links: whatever is not a plain file or folder is refused."""
    files: dict[str, Reader] = {}
    entries = 0
    for folder, folders, names in os.walk(root, onerror=_raise):
        for name in sorted(folders) + sorted(names):
            entries += 1
            if entries > MAX_FILES:
                raise _too_large(f"more than {MAX_FILES} entries")
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                raise _unsafe(relative, "which is a link or a device, not a plain file")
            _check_name(relative)
            files[relative] = _reader(partial(_opened, path))
    return files


def _raise(error: OSError) -> None:
    raise error


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def _reader(open_file: Callable[[], IO[bytes]]) -> Reader:
    def read(count: int) -> bytes:
        with open_file() as file:
            return file.read(count)

    return read


def _list_zip(path: Path) -> dict[str, Reader]:
    """List a zip that is read in memory: nothing is ever extracted."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise _too_large(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        archive = open_zip(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise BundleError(
            f"{path} is not a bundle: it is neither a folder nor a readable zip",
            hint="give the folder that holds manifest.json, or a zip of what is in that folder",
            code="bundle-not-a-bundle",
        ) from error
    if len(archive.infolist()) > MAX_FILES:
        raise _too_large(f"more than {MAX_FILES} entries")
    files: dict[str, Reader] = {}
    for entry in archive.infolist():
        # orig_filename: zipfile itself rewrites separators and cuts at NUL, and would hide what the archive says.
        name = entry.orig_filename
        _check_name(name.removesuffix("/"))
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise _unsafe(name, "which is a link, not a plain file")
        if entry.is_dir():
            continue
        if name in files:
            raise _unsafe(name, "twice")
        if entry.flag_bits & 0x1 or entry.compress_type not in SERVED_COMPRESSION:
            raise _unsafe(name, "which is encrypted or compressed in a way other than deflate")
        if entry.file_size > MAX_FILE_BYTES:
            raise _too_large(f"{name} says it has {entry.file_size} bytes")
        files[name] = _reader(partial(archive.open, entry))
    return files
