"""Options that several commands of ``nodule-diag train`` and ``export`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA = Path("..") / "shared" / "data"

DataOption = Annotated[
    Path, typer.Option("--data", envvar="NODULE_DIAG_DATA", help="Folder with LIDC-IDRI's VOIs, cubes and tables.")
]
StoreOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--store",
        help="Store of `train prepare`, instead of --data. Can be repeated.",
        show_default=False,
    ),
]
