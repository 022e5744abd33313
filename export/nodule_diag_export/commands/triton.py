"""``nodule-diag export triton``: a model repository for Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nodule_diag_export.commands.options import BundleArgument, Threads
from nodule_diag_export.fused import HuType, open_source
from nodule_diag_export.triton import Serving, export_triton

DEFAULT = Serving()


def triton_command(
    out: Annotated[Path, typer.Option("--out", help="New folder for the repository.", show_default=False)],
    source: BundleArgument = None,
    device: Annotated[Literal["cpu", "gpu"], typer.Option("--device", help="Where the models run.")] = "cpu",
    instances: Annotated[
        int, typer.Option("--instances", min=1, max=64, help="Instances of each model, on the CPU or on each GPU.")
    ] = DEFAULT.instances,
    instance_threads: Annotated[
        int, typer.Option("--instance-threads", min=0, help="CPU threads per instance; 0 uses every core.")
    ] = DEFAULT.threads,
    max_batch: Annotated[
        int, typer.Option("--max-batch", min=1, max=1024, help="Largest batch of patches.")
    ] = DEFAULT.max_batch,
    hu_type: Annotated[
        HuType, typer.Option("--hu-type", help="Data type of the HU input of the fused graph.")
    ] = "float32",
    threads: Threads = 0,
) -> None:
    """Write a model repository for NVIDIA Triton: the network for patches, and the fused graph (docs/triton.md)."""
    serving = Serving(device=device, instances=instances, threads=instance_threads, max_batch=max_batch)
    names = export_triton(open_source(source), out, serving=serving, hu_type=hu_type, threads=threads)
    typer.echo(f"wrote {out}: {', '.join(names)}, for the {device.upper()}")
