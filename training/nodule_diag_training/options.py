"""Options that several commands of ``nodule-diag train`` and ``export`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA = Path("..") / "shared" / "data"

DataOption = Annotated[
    Path, typer.Option("--data", envvar="NODULE_DIAG_DATA", help="Folder of the LIDC VOIs, cubes and tables.")
]
StoreOption = Annotated[
    list[Path] | None,
    typer.Option("--store", help="Store of `train prepare`, instead of --data; repeatable.", show_default=False),
]
