"""Writes a file atomically: a temporary file beside it, fsync, then one rename over the old file."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nodule_diag.errors import OutputError
from nodule_diag.process.lock import try_lock

MOST_WRITERS = 100
"""Writers of one file at the same time."""
_PART = re.compile(r"\.\d{1,2}\.part\.")
"""The start of a temporary file's name; the target's name follows."""


def _synced(path: Path) -> None:
    """Flush a finished file to disk, so that the rename never outlives its content in a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it outlives a power cut; no effect where not supported."""
    with suppress(OSError):  # not on Windows and some network file systems
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _taken(target: Path) -> tuple[Path, int]:
    """A new empty file beside the target, and its descriptor; the lock shows that the writer is alive."""
    for number in range(MOST_WRITERS):
        temporary = target.with_name(f".{number}.part.{target.name}")
        with suppress(FileExistsError, BlockingIOError):
            _clear(temporary)
            held = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            if _is_held(temporary, held):
                return temporary, held
            os.close(held)  # another writer came between, and took this file for a dead writer's
    raise FileExistsError(errno.EEXIST, f"{MOST_WRITERS} others write it, or left what cannot be removed")


def sweep_dead(folder: Path) -> None:
    """Remove the temporary files of dead writers from a folder, for all targets."""
    for path in folder.iterdir():
        if _PART.match(path.name):
            with suppress(OSError):
                _clear(path)


def _is_held(temporary: Path, descriptor: int) -> bool:
    """Lock a new file; returns whether the file still exists and belongs to this writer."""
    try:
        try_lock(descriptor)
    except BlockingIOError:
        return False
    except OSError:
        pass  # without locks, no file is cleared
    try:
        return os.path.samestat(os.fstat(descriptor), temporary.stat())
    except FileNotFoundError:
        return False


def _clear(temporary: Path) -> None:
    """Remove the temporary file of a dead writer.

    Raises:
        BlockingIOError: The writer is alive.
        FileExistsError: The file cannot be removed.
    """
    try:
        left = os.open(temporary, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return
    except (PermissionError, IsADirectoryError) as error:
        raise FileExistsError from error
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link
            raise FileExistsError from error
        raise
    try:
        try_lock(left)
        if not os.path.samestat(os.fstat(left), temporary.lstat()):
            raise BlockingIOError(errno.EAGAIN, "its writer has just ended, and another one has taken the name")
        temporary.unlink()
    except BlockingIOError:
        raise
    except OSError as error:
        raise FileExistsError from error
    finally:
        os.close(left)


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it replaces the target, on failure it is removed.

    The temporary name ends with the target's whole name, so that writers choose the right format by its extension
    (``.nii.gz``). Every writer of a target uses the same name, so the next writer removes the file of a killed one.
    Writers at the same time get a number each.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        The path to write to.

    Raises:
        OutputError: When the folder is missing or the file cannot be written.
    """
    target = Path(path)
    temporary, held, done = None, None, False
    try:
        temporary, held = _taken(target)
        yield temporary
        _synced(temporary)
        if os.name == "nt":  # Windows does not rename an open file
            os.close(held)
            held = None
        temporary.replace(target)
        done = True  # from here on the name may be another writer's
        sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}",
            hint="check that the folder exists, is writable and has space left",
        ) from error
    finally:
        if temporary is not None and not done:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if held is not None:
            os.close(held)


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
