"""Write a file whole or not at all: a temporary file beside it, fsync, then one rename over the old one."""

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
"""Of one file at the same time."""
_PART = re.compile(r"\.\d{1,2}\.part\.")
"""How a temporary file's name begins; the target's follows."""


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


def _taken(target: Path) -> tuple[Path, int]:
    """A new empty file beside the target, and the descriptor whose lock says that its writer lives."""
    for number in range(MOST_WRITERS):
        temporary = target.with_name(f".{number}.part.{target.name}")
        with suppress(FileExistsError, BlockingIOError):
            _clear(temporary)
            held = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            if _is_held(temporary, held):
                return temporary, held
            os.close(held)  # another writer came between, and took it for a dead one's
    raise FileExistsError(errno.EEXIST, f"{MOST_WRITERS} others write it, or left what cannot be removed")


def sweep_dead(folder: Path) -> None:
    """Remove what writers that are dead left in a folder, whichever files they wrote."""
    for path in folder.iterdir():
        if _PART.match(path.name):
            with suppress(OSError):
                _clear(path)


def _is_held(temporary: Path, descriptor: int) -> bool:
    """Lock a new file; whether it is still there, and nobody else's."""
    try:
        try_lock(descriptor)
    except BlockingIOError:
        return False
    except OSError:
        pass  # where no file can be locked, none is cleared
    try:
        return os.path.samestat(os.fstat(descriptor), temporary.stat())
    except FileNotFoundError:
        return False


def _clear(temporary: Path) -> None:
    """Remove what a writer left that is dead.

    Raises:
        BlockingIOError: It lives.
        FileExistsError: What is there cannot be removed.
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

    The temporary name ends with the target's whole name, so writers that choose a format by extension
    (``.nii.gz``) do the right thing. It is the same for every writer of a target: what a killed one left goes with
    the next one. Writers at the same time get a number each.

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
        if os.name == "nt":  # no open file is renamed there
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
