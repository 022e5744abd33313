"""Options that several commands of ``nodule-diag train`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA = Path("..") / "shared" / "data"

DataOption = Annotated[
    Path, typer.Option("--data", envvar="NODULE_DIAG_DATA", help="Folder of the LIDC VOIs, cubes and tables.")
]
