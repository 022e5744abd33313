"""``nodule-diag export onnx``, ``precision``, ``winograd`` and ``fused``: graphs of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer

from nodule_diag.bundle import Bundle
from nodule_diag.errors import UsageError
from nodule_diag.process import resolve_threads, write_bytes
from nodule_diag_export.bundle import (
    DEFAULT_IDENTITY,
    Identity,
    ReducedExport,
    add_precision,
    export_model,
    reduce_graph,
)
from nodule_diag_export.commands.options import (
    BundleArgument,
    BundleOut,
    Data,
    ExportPrecision,
    License,
    Name,
    PrecisionOption,
    Threads,
    Version,
    open_bundle,
    optional_data,
    use_threads,
)
from nodule_diag_export.fused import HuType, export_fused, open_source
from nodule_diag_export.graph import Precision, parse_onnx
from nodule_diag_export.parity import Parity, ReducedParity, compared_patches, cube_patches
from nodule_diag_export.winograd import add_winograd
from nodule_diag_training.data import TrainingData
from nodule_diag_training.options import StoreOption


def onnx_command(
    out: Annotated[Path, typer.Option("--out", help="The ONNX file to write.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE_OR_CHECKPOINT",
            help="Bundle, or model.safetensors of a finished run; the packaged bundle if omitted.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    store: StoreOption = None,
    precision: PrecisionOption = ExportPrecision.fp32,
    name: Name = DEFAULT_IDENTITY.name,
    version: Version = DEFAULT_IDENTITY.version,
    license_: License = DEFAULT_IDENTITY.license,
    threads: Threads = 0,
) -> None:
    """Write the model as ONNX if its answers are right.

    A checkpoint's graph is compared with torch on random patches, and on nodules if --data or --store is given. An fp16
    or bf16 graph is compared with the fp32 graph on nodules in their surroundings, or else on synthetic patches. For a
    bundle, the similar cases are compared too.
    """
    use_threads(threads)
    bundle: Bundle | None = None
    if source is None or source.is_dir() or source.suffix == ".zip":
        bundle = open_bundle(source)
        network = bundle.read(bundle.manifest.model.file)
    else:
        nodules = optional_data(data, store)
        shown = [] if nodules is None else list(cube_patches(nodules))
        identity = Identity(name=name, version=version, license=license_)
        exported = export_model(source, identity=identity, nodules=shown, threads=threads)
        patches = exported.parity.random_patches + exported.parity.nodule_patches
        typer.echo(f"largest difference from torch on {patches} patches:", err=True)
        _say_parity(exported.parity)
        network = exported.data
    if precision is not ExportPrecision.fp32:
        network = _reduced(
            network, _precision(precision), data=optional_data(data, store), bundle=bundle, threads=threads
        ).data
    write_bytes(out, network)
    typer.echo(f"wrote {out} ({len(network) / 1e6:.1f} MB, {precision.value})")


def precision_command(
    out: BundleOut,
    precision: PrecisionOption,
    source: BundleArgument = None,
    data: Data = None,
    store: StoreOption = None,
    threads: Threads = 0,
) -> None:
    """Write a copy of a bundle that also holds its network in fp16 or bf16, if that network passes its gate."""
    if precision is ExportPrecision.fp32:
        raise UsageError("every bundle holds its network in fp32", hint="use --precision fp16 or bf16")
    bundle = open_bundle(source)
    network = bundle.read(bundle.manifest.model.file)
    nodules = optional_data(data, store)
    reduced = _reduced(network, _precision(precision), data=nodules, bundle=bundle, threads=threads)
    written = add_precision(bundle, reduced, out=out)
    typer.echo(f"wrote {out}: fp32, {', '.join(sorted(written.manifest.model.reduced))}, sha256 {written.sha256}")


def winograd_command(
    out: BundleOut,
    source: BundleArgument = None,
    data: Data = None,
    store: StoreOption = None,
    threads: Threads = 0,
) -> None:
    """Write a copy of a bundle that also holds a network with fewer products, if that network passes the fp32 gate.

    The network is compared on nodules of --data or --store in their surroundings, or else on synthetic patches. After
    `export parity`, --backend auto may use it.
    """
    shown, patches = compared_patches(optional_data(data, store))
    written, figures = add_winograd(
        open_bundle(source), patches=np.stack(patches), out=out, threads=resolve_threads(threads or None)
    )
    typer.echo(f"largest difference of winograd from fp32 on {shown}:", err=True)
    for name in ("malignancy", "expert_score", "segmentation", "cam"):
        typer.echo(f"  {name:<14}{getattr(figures, name):.1e}", err=True)
    typer.echo(f"wrote {out}, sha256 {written.sha256}")


def fused_command(
    out: Annotated[Path, typer.Option("--out", help="The ONNX file to write.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE_OR_MODEL",
            help="Bundle or .onnx file of `export onnx`; the packaged bundle if omitted.",
        ),
    ] = None,
    hu_type: Annotated[HuType, typer.Option("--hu-type", help="Data type of the HU input.")] = "float32",
    masked_input: Annotated[
        bool | None,
        typer.Option(
            "--masked-input/--no-masked-input",
            help="For a .onnx file: the model was trained on CT x lung mask. A bundle states this itself.",
            show_default=False,
        ),
    ] = None,
    winograd: Annotated[
        bool, typer.Option("--winograd", help="Use fewer products: faster on a CPU, equal up to rounding.")
    ] = False,
    threads: Threads = 0,
) -> None:
    """Write one graph from HU to the model's answers, if it answers as the SDK does (docs/fused-graph.md)."""
    network = open_source(source, masked_input=masked_input)
    fused = export_fused(network, out, hu_type=hu_type, winograd=winograd, threads=threads)
    typer.echo(
        f"largest difference from the SDK on {fused.parity.nodules} nodules and places of phantom CTs:", err=True
    )
    for name, value in fused.parity.difference.items():
        typer.echo(f"  {name:<14}{value:.1e}", err=True)
    typer.echo(f"wrote {out} ({len(fused.data) / 1e6:.1f} MB), inputs {', '.join(fused.inputs)}")


def _say_parity(parity: Parity) -> None:
    for name, value in parity.difference.items():
        typer.echo(f"  {name:<14}{value:.1e}", err=True)
    typer.echo(f"  {'S - mean CAM':<14}{parity.mean_cam:.1e}", err=True)
    typer.echo(f"  {'any map cell':<14}{parity.largest_cell:.1e}", err=True)


def _precision(precision: ExportPrecision) -> Precision:
    return next(name for name in get_args(Precision) if name == precision.value)


def _reduced(
    network: bytes, precision: Precision, *, data: TrainingData | None, bundle: Bundle | None, threads: int
) -> ReducedExport:
    source, patches = compared_patches(data)
    proto = parse_onnx(network, name="the network")
    reduced = reduce_graph(proto, precision, patches=patches, source=source, bundle=bundle, threads=threads)
    _say_reduced(reduced.parity)
    return reduced


def _say_reduced(parity: ReducedParity) -> None:
    typer.echo(f"largest difference of {parity.precision} from fp32 on {parity.source}:", err=True)
    for name in ("malignancy", "expert_score", "segmentation", "cam"):
        typer.echo(f"  {name:<14}{getattr(parity, name):.1e}", err=True)
    if parity.overlap is not None:
        typer.echo(f"  {'common cases':<14}{parity.overlap:.3f} (least {parity.overlap_min:.2f})", err=True)
    typer.echo(f"  measured by {parity.evaluator}", err=True)
