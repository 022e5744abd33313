"""Where this user's machine keeps what was made on it: engines and self-test figures. It may be deleted at any time.

``$NODULE_DIAG_CACHE`` where that is set, else ``nodule-diag`` below the user's cache folder: ``$XDG_CACHE_HOME`` or
``~/.cache``; ``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` on Windows.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nodule_diag.errors import OutputError

CACHE_VARIABLE = "NODULE_DIAG_CACHE"
FOLDER_MODE = 0o700
"""An engine is code, and figures decide what runs: nobody else may put one here."""


def user_cache() -> Path:
    """The folder of the module's text; it need not exist."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nodule-diag"
    variable, below_home = (
        ("LOCALAPPDATA", "AppData/Local") if sys.platform == "win32" else ("XDG_CACHE_HOME", ".cache")
    )
    base = os.environ.get(variable)
    # The XDG specification: a relative path is invalid and must be ignored.
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / below_home
    return root / "nodule-diag"


def make_private(folder: Path) -> None:
    """Make a folder that only this user may enter.

    Raises:
        OutputError: When it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    except OSError as error:
        raise OutputError(
            f"the folder {folder} cannot be made: {error.strerror or error}",
            hint=f"set {CACHE_VARIABLE} to a folder that can be written",
        ) from error
