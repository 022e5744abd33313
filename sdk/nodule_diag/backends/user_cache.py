"""Where this user's machine keeps what was made on it: engines and self-test figures. It may be deleted at any time.

``$NODULE_DIAG_CACHE`` where that is set, else ``nodule-diag`` below the user's cache folder: ``$XDG_CACHE_HOME`` or
``~/.cache``; ``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` on Windows.

An engine is code, and figures decide what computes a diagnosis: nobody else may put one here.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nodule_diag.errors import OutputError

CACHE_VARIABLE = "NODULE_DIAG_CACHE"
FOLDER_MODE = 0o700


def user_cache() -> Path:
    """The folder of the module's text; it need not exist.

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
    """Why a file or folder cannot be trusted, in words; empty when nobody but this user and ``owners`` could alter it.

    Windows keeps a user's folders private itself.
    """
    if not is_kind(found.st_mode):
        return "is a link, or not a plain file in a folder"
    if not hasattr(os, "geteuid"):
        return ""
    if found.st_uid not in {os.geteuid(), *owners}:
        return "belongs to another user"
    return "can be written by other users" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


def make_private(folder: Path) -> None:
    """Make a folder that only this user may enter, or check that in an old one nobody but root may put files.

    Raises:
        OutputError: ``cache-unusable``.
    """
    with cache_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        if why := why_unsafe(folder.stat(), is_kind=stat.S_ISDIR, owners=(0,)):
            raise _unusable(f"the cache {folder} {why}", f"chmod 700 {folder}, or ")


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """What the system says against writing in the cache comes out typed.

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
