"""Options that several commands of ``nodule-diag export`` and ``nodule-diag index`` share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from nodule_diag.errors import UsageError

Data = Annotated[
    Path | None, typer.Option("--data", envvar="NODULE_DIAG_DATA", help="The LIDC data folder.", show_default=False)
]
Name = Annotated[str, typer.Option(help="Name of the bundle.")]
Version = Annotated[str, typer.Option(help="Its version.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to the libraries.")]


class ExportPrecision(StrEnum):
    """What a graph's convolutions compute in."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


PrecisionOption = Annotated[ExportPrecision, typer.Option("--precision", help="Of the convolutions.")]


def use_threads(threads: int) -> None:
    """Have torch use so many CPU threads; 0 leaves it alone."""
    if threads:
        torch.set_num_threads(threads)


def required_data(data: Path | None) -> Path:
    """The LIDC data folder, or a :class:`UsageError` that says how to name it."""
    if data is None:
        raise UsageError("the LIDC data folder is not named", hint="give --data, or set NODULE_DIAG_DATA")
    return data
