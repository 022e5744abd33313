"""``nodule-diag export tensorrt`` and ``tensorrt-rtx``: compiled engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nodule_diag.backends import MAX_BATCH, TENSORRT, TENSORRT_RTX, Flavour
from nodule_diag_export.commands.options import ExportPrecision
from nodule_diag_export.engines import export_engine, network_of

Sm = Annotated[
    list[str] | None, typer.Option("--sm", help="Compute capability, such as 8.9. Can be repeated.", show_default=False)
]
Batch = Annotated[int, typer.Option("--max-batch", min=1, help="Largest batch of the batched profile.")]
EngineOut = Annotated[Path, typer.Option("--out", help="Engine file to write.", show_default=False)]
Network = Annotated[
    Path | None,
    typer.Argument(
        metavar="BUNDLE_OR_MODEL",
        help="Bundle or .onnx file; the packaged bundle if omitted.",
        show_default=False,
    ),
]


def tensorrt_command(
    out: EngineOut,
    source: Network = None,
    precision: Annotated[ExportPrecision | None, typer.Option("--precision", help="Bundle graph to compile.")] = None,
    max_batch: Batch = MAX_BATCH,
) -> None:
    """Compile a network for the NVIDIA GPU in this machine, with TensorRT 11."""
    _engine(TENSORRT, source, out, precision, (), max_batch)


def tensorrt_rtx_command(
    out: EngineOut,
    source: Network = None,
    precision: Annotated[ExportPrecision | None, typer.Option("--precision", help="Bundle graph to compile.")] = None,
    sm: Sm = None,
    max_batch: Batch = MAX_BATCH,
) -> None:
    """Compile a network for RTX GPUs of compute capability 8.0 and later, or of --sm. Needs no GPU."""
    _engine(TENSORRT_RTX, source, out, precision, tuple(sm or ()), max_batch)


def _engine(
    flavour: Flavour,
    source: Path | None,
    out: Path,
    precision: ExportPrecision | None,
    capabilities: tuple[str, ...],
    max_batch: int,
) -> None:
    network = network_of(source, precision=None if precision is None else precision.value)
    key = export_engine(flavour, network, out=out, capabilities=capabilities, max_batch=max_batch)
    typer.echo(f"wrote {out} ({key.runtime} {key.runtime_version}, {key.precision}, compute {key.compute_capability})")
