"""The user's cache for results of this machine: engines and self-test figures. It may be deleted at any time.

The folder is ``$NODULE_DIAG_CACHE`` if set, else ``nodule-diag`` below the user's cache folder: ``$XDG_CACHE_HOME`` or
``~/.cache``; ``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` on Windows.

An engine is code, and figures decide which backend computes a diagnosis. No other user may write in the cache, or
replace a folder on the path to it. Where another user could, the cache is not used, and one warning says so.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nodule_diag.errors import OutputError

CACHE_VARIABLE = "NODULE_DIAG_CACHE"
FOLDER_MODE = 0o700
MAX_LINKS = 40
"""Links on the path to one folder; the limit is the one of Linux."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def user_cache() -> Path:
    """The folder of the cache, see the module's text; it need not exist.

    Raises:
        OutputError: ``cache-unusable`` for a user without a home folder.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    # The XDG specification: a relative path is invalid and must be ignored.
    variable = {"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME")
    base = Path(os.environ.get(variable, ""))
    if not base.is_absolute():
        below_home = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
        try:
            base = Path.home() / below_home
        except RuntimeError as error:
            raise _unusable("this user has no home folder for a cache") from error
    return base / "nodule-diag"


def why_unsafe(found: os.stat_result, *, is_kind: Callable[[int], bool], owners: tuple[int, ...] = ()) -> str:
    """Why a file or folder cannot be trusted, in words; empty when only this user and ``owners`` can change it.

    Windows keeps a user's folders private itself.
    """
    if not is_kind(found.st_mode):
        return "is a link, or not a plain file in a folder"
    if not hasattr(os, "geteuid"):
        return ""
    if found.st_uid not in {os.geteuid(), *owners}:
        return "belongs to another user"
    return "can be written by other users" if found.st_mode & _OTHERS_WRITE else ""


def why_unsafe_way(folder: Path) -> str:
    """Which folder or link on the path to a folder another user can replace, in words; empty where there is none.

    Root is trusted. A folder like ``/tmp``, in which other users can write, is accepted: its sticky bit lets each user
    remove only that user's own files.
    """
    if not hasattr(os, "geteuid"):
        return ""
    for step in _way_to(folder):
        try:
            found = step.lstat()
        except FileNotFoundError:
            return ""
        if found.st_uid not in {os.geteuid(), 0}:
            return f"is reached by {step}, which belongs to another user"
        if stat.S_ISDIR(found.st_mode) and found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
            return f"is reached by {step}, which can be written by other users"
    return ""


def _way_to(folder: Path) -> Iterator[Path]:
    """Every folder and link on the path to a folder, the folder included."""
    first, *rest = folder.absolute().parts
    at, names, links = Path(first), rest[::-1], 0
    yield at
    while names:
        step = at / names.pop()
        yield step
        if not step.is_symlink():
            at = at.parent if step.name == ".." else step
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
        target = step.readlink()
        names += target.parts[: 0 if target.is_absolute() else None : -1]
        at = Path(target.anchor) if target.is_absolute() else at


def read_private(path: Path, *, owners: tuple[int, ...] = (), limit: int = -1) -> bytes:
    """A file's first bytes, if only this user and ``owners`` can write the file; a link is not followed.

    Raises:
        OSError: When the file cannot be read; ``PermissionError`` when another user can write it.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        if why := why_unsafe(os.fstat(file.fileno()), is_kind=stat.S_ISREG, owners=owners):
            raise PermissionError(errno.EACCES, f"it {why}", str(path))
        return file.read(limit)


def warn_without_cache(error: OutputError) -> None:
    """Warn, once per reason, that the cache is not used, and why."""
    warnings.warn(
        f"{error.message}: nothing is kept there or taken from there; {error.hint}", RuntimeWarning, stacklevel=3
    )


def make_private(folder: Path) -> None:
    """Make a folder that only this user may enter, or check that only this user and root can write in an existing one.

    Raises:
        OutputError: ``cache-unusable``.
    """
    with cache_errors(folder):
        if why := why_unsafe_way(folder.parent):
            raise _unusable(f"the cache {folder} {why}")
        for missing in reversed([at for at in (folder, *folder.parents) if not at.exists()]):
            missing.mkdir(exist_ok=True, mode=FOLDER_MODE)
        if why := why_unsafe_way(folder) or why_unsafe(folder.stat(), is_kind=stat.S_ISDIR, owners=(0,)):
            raise _unusable(f"the cache {folder} {why}", f"chmod 700 {folder}, or ")


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turn the system's errors about the cache into typed errors.

    Raises:
        OutputError: ``cache-unusable``.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise _unusable(f"the cache {folder} cannot be written: {error.strerror or error}") from error


def _unusable(why: str, remedy: str = "") -> OutputError:
    hint = f"{remedy}set {CACHE_VARIABLE} to a folder of your own that can be written"
    return OutputError(why, hint=hint, code="cache-unusable")
