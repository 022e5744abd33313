"""Options that several commands of ``nodule-diag train`` and ``export`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .config import Precision

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
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        "--precision",
        help="Precision of the convolutions, instead of the configuration's. fp32 on a CPU without AVX-512.",
        show_default=False,
    ),
]
