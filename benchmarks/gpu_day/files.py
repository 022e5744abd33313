"""Files that are replaced whole, in a folder where no temporary file may be left, since only few files come back."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` elsewhere (beside the folder, if that is the same disk) and move it over ``path``."""
    parent = path.resolve().parent
    aside = parent.parent if os.access(parent.parent, os.W_OK) and _same_disk(parent) else parent
    with tempfile.NamedTemporaryFile(dir=aside, prefix=".gpu-day-", delete=False) as file:
        file.write(data)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def _same_disk(folder: Path) -> bool:
    return folder.stat().st_dev == folder.parent.stat().st_dev
