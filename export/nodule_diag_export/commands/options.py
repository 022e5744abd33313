"""Options that several commands of ``nodule-diag export`` share; torch is imported by those that compute with it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nodule_diag.bundle import Bundle
from nodule_diag.errors import UsageError

if TYPE_CHECKING:
    from nodule_diag_training.data import TrainingData

Data = Annotated[
    Path | None, typer.Option("--data", envvar="NODULE_DIAG_DATA", help="LIDC data folder.", show_default=False)
]
Name = Annotated[str, typer.Option(help="Name of the bundle.")]
Version = Annotated[str, typer.Option(help="Version of the bundle.")]
License = Annotated[str, typer.Option("--license", help="Licence of the weights: an SPDX identifier or words.")]
BundleArgument = Annotated[
    Path | None,
    typer.Argument(metavar="BUNDLE", help="Bundle; the packaged one if omitted.", show_default=False),
]
BundleOut = Annotated[Path, typer.Option("--out", help="Bundle to write: a folder or a .zip.", show_default=False)]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves the number to the libraries.")]


class ExportPrecision(StrEnum):
    """The precision that a graph's convolutions compute in."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


PrecisionOption = Annotated[ExportPrecision, typer.Option("--precision", help="Precision of the convolutions.")]


def open_bundle(path: Path | None) -> Bundle:
    """The bundle that a command names, or the packaged one."""
    return Bundle.default() if path is None else Bundle.open(path)


def use_threads(threads: int) -> None:
    """Let torch use this many CPU threads; 0 changes nothing."""
    if threads:
        import torch

        torch.set_num_threads(threads)


def optional_data(data: Path | None, stores: Sequence[Path] | None) -> TrainingData | None:
    """The nodules of the stores, else of the LIDC data folder; None where neither is given.

    Raises:
        TrainingDataError: If the data are missing or damaged.
    """
    from nodule_diag_training.data import TrainingData

    if stores:
        return TrainingData.of(Path(), stores)
    return None if data is None else TrainingData.of(data)


def required_data(data: Path | None, stores: Sequence[Path] | None) -> TrainingData:
    """As :func:`optional_data`, but the stores or the folder must be given.

    Raises:
        UsageError: If neither is given; the error says how.
        TrainingDataError: If the data are missing or damaged.
    """
    found = optional_data(data, stores)
    if found is None:
        raise UsageError("no nodules are named", hint="give --data, set NODULE_DIAG_DATA, or give --store")
    return found
