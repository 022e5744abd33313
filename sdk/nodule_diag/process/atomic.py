"""Write a file whole or not at all: a temporary file beside it, fsync, then one rename over the old one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nodule_diag.errors import OutputError


def _synced(path: Path) -> None:
    """Flush a finished file to disk, so that the rename never outlives its content in a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it outlives a power cut; nothing where that is unknown."""
    with suppress(OSError):  # Windows opens no folders, and some network file systems flush none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it replaces the target, on failure it is removed.

    The temporary name ends with the target's whole name, so writers that choose a format by extension
    (``.nii.gz``) do the right thing.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        The path to write to.

    Raises:
        OutputError: When the folder is missing or the file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{secrets.token_hex(6)}.{target.name}")
    try:
        yield temporary
        _synced(temporary)
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}",
            hint="check that the folder exists, is writable and has space left",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` atomically.

    Args:
        path: The file to write; its folder must exist.
        data: Its whole content.

    Raises:
        OutputError: When it cannot be written.
    """
    with writing(path) as temporary:
        temporary.write_bytes(data)
