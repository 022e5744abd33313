"""``nodule-diag export`` and ``nodule-diag index``."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import torch
import typer

from nodule_diag.atomic import write_bytes
from nodule_diag.bundle import Bundle
from nodule_diag.case_table import CaseTable
from nodule_diag.engine_build import MAX_BATCH, TENSORRT, TENSORRT_RTX, Flavour
from nodule_diag.errors import UsageError
from nodule_diag.parity import misses
from nodule_diag.retrieval import DEFAULT_K, EXACT_SEARCH_LIMIT, CaseIndex
from nodule_diag.threads import resolve_threads

from .backend_parity import cube_patches, record_parity
from .bundle import PARITY_NODULES, BundleOptions, export_bundle
from .case_base import read_cases, replace_case_base
from .engine import export_engine, network_of
from .fused_file import export_fused, open_source
from .fused_graph import HuType
from .index import CaseCounts, cases_of, diagnosed_patches
from .mixed_precision import Precision
from .onnx_file import DEFAULT_IDENTITY, Identity, export_model
from .parity import OnnxModel, Parity
from .reduced import ReducedExport, add_precision, parse_onnx, reduce_graph
from .reduced_parity import ReducedParity, compared_patches
from .winograd_file import add_winograd

app = typer.Typer(name="export", help="Export a trained model.", no_args_is_help=True, add_completion=False)
index_app = typer.Typer(name="index", help="Build and inspect case bases.", no_args_is_help=True, add_completion=False)

Checkpoint = Annotated[Path, typer.Argument(help="model.safetensors of a finished run.", show_default=False)]
Data = Annotated[
    Path | None, typer.Option("--data", envvar="NODULE_DIAG_DATA", help="The LIDC data folder.", show_default=False)
]
Name = Annotated[str, typer.Option(help="Name of the bundle.")]
Version = Annotated[str, typer.Option(help="Its version.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to the libraries.")]
Sm = Annotated[
    list[str] | None, typer.Option("--sm", help="Compute capability, as 8.9; may be given again.", show_default=False)
]
Batch = Annotated[int, typer.Option("--max-batch", min=1, help="Largest batch of the batched profile.")]
EngineOut = Annotated[Path, typer.Option("--out", help="The engine file to write.", show_default=False)]
Network = Annotated[Path, typer.Argument(help="A bundle or an .onnx file.", show_default=False)]
K = Annotated[int, typer.Option("--k", min=1, help="Cases that make a diagnosis.")]
ExactUpTo = Annotated[int, typer.Option(min=0, help="Cases up to which every one is compared; HNSW above.")]


class ExportPrecision(StrEnum):
    """What a graph's convolutions compute in."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


PrecisionOption = Annotated[ExportPrecision, typer.Option("--precision", help="Of the convolutions.")]


def _use_threads(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)


def _zip_path(out: Path, *, as_zip: bool) -> Path:
    return out if not as_zip or out.suffix == ".zip" else out.with_name(out.name + ".zip")


def _say_parity(parity: Parity) -> None:
    for name, value in parity.difference.items():
        typer.echo(f"  {name:<14}{value:.1e}", err=True)
    typer.echo(f"  {'S - mean CAM':<14}{parity.mean_cam:.1e}", err=True)


@app.command("onnx")
def onnx_command(
    source: Annotated[
        Path, typer.Argument(help="model.safetensors of a finished run, or a bundle.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The ONNX file to write.", show_default=False)],
    data: Data = None,
    precision: PrecisionOption = ExportPrecision.fp32,
    name: Name = DEFAULT_IDENTITY.name,
    version: Version = DEFAULT_IDENTITY.version,
    threads: Threads = 0,
) -> None:
    """Write the model as ONNX once it answers as it should.

    From a checkpoint: as torch does, on random patches, with --data on nodules too. In fp16 or bf16: as the fp32 graph
    does, on every cube of --data, else on synthetic patches; a bundle's case base is compared as well.
    """
    _use_threads(threads)
    bundle = Bundle.open(source) if source.is_dir() or source.suffix == ".zip" else None
    if bundle is None:
        nodules = [] if data is None else [entry.patch for entry in diagnosed_patches(data, limit=PARITY_NODULES)]
        exported = export_model(source, identity=Identity(name=name, version=version), nodules=nodules, threads=threads)
        patches = exported.parity.random_patches + exported.parity.nodule_patches
        typer.echo(f"largest difference from torch on {patches} patches:", err=True)
        _say_parity(exported.parity)
        network = exported.data
    else:
        network = bundle.read(bundle.manifest.model.file)
    if precision is not ExportPrecision.fp32:
        network = _reduced(network, _precision(precision), data=data, bundle=bundle, threads=threads).data
    write_bytes(out, network)
    typer.echo(f"wrote {out} ({len(network) / 1e6:.1f} MB, {precision.value})")


def _precision(precision: ExportPrecision) -> Precision:
    return next(name for name in get_args(Precision) if name == precision.value)


def _reduced(
    network: bytes, precision: Precision, *, data: Path | None, bundle: Bundle | None, threads: int
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


@app.command("precision")
def precision_command(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle to copy.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write: a directory or a .zip.", show_default=False)],
    precision: PrecisionOption,
    data: Data = None,
    threads: Threads = 0,
) -> None:
    """Write a copy of a bundle that also holds its network in fp16 or bf16, once that has passed its gate."""
    if precision is ExportPrecision.fp32:
        raise UsageError("every bundle holds its network in fp32", hint="use --precision fp16 or bf16")
    bundle = Bundle.open(source)
    network = bundle.read(bundle.manifest.model.file)
    reduced = _reduced(network, _precision(precision), data=data, bundle=bundle, threads=threads)
    written = add_precision(bundle, reduced, out=out)
    typer.echo(f"wrote {out}: fp32, {', '.join(sorted(written.manifest.model.reduced))}, sha256 {written.sha256}")


@app.command("winograd")
def winograd_command(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle to copy.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write: a directory or a .zip.", show_default=False)],
    data: Data = None,
    threads: Threads = 0,
) -> None:
    """Write a copy of a bundle that also holds its network with fewer products, once that has passed the fp32 gate.

    It is compared on every cube of --data, else on synthetic patches. `export parity` then lets auto take it.
    """
    shown, patches = compared_patches(data)
    written, figures = add_winograd(
        Bundle.open(source), patches=np.stack(patches), out=out, threads=resolve_threads(threads or None)
    )
    typer.echo(f"largest difference of winograd from fp32 on {shown}:", err=True)
    for name in ("malignancy", "expert_score", "segmentation", "cam"):
        typer.echo(f"  {name:<14}{getattr(figures, name):.1e}", err=True)
    typer.echo(f"wrote {out}, sha256 {written.sha256}")


@app.command("tensorrt")
def tensorrt_command(
    source: Network,
    out: EngineOut,
    precision: Annotated[ExportPrecision | None, typer.Option("--precision", help="A bundle's graph.")] = None,
    max_batch: Batch = MAX_BATCH,
) -> None:
    """Compile a network for the NVIDIA GPU in this machine, with TensorRT 11."""
    _engine(TENSORRT, source, out, precision, (), max_batch)


@app.command("tensorrt-rtx")
def tensorrt_rtx_command(
    source: Network,
    out: EngineOut,
    precision: Annotated[ExportPrecision | None, typer.Option("--precision", help="A bundle's graph.")] = None,
    sm: Sm = None,
    max_batch: Batch = MAX_BATCH,
) -> None:
    """Compile a network for RTX GPUs by compute capability (8.0 and later, or --sm). Needs no GPU."""
    _engine(TENSORRT_RTX, source, out, precision, tuple(sm or ()), max_batch)


def _engine(
    flavour: Flavour,
    source: Path,
    out: Path,
    precision: ExportPrecision | None,
    capabilities: tuple[str, ...],
    max_batch: int,
) -> None:
    network, found = network_of(source, precision=None if precision is None else precision.value)
    key = export_engine(flavour, network, out=out, precision=found, capabilities=capabilities, max_batch=max_batch)
    typer.echo(f"wrote {out} ({key.runtime} {key.runtime_version}, {found}, compute {key.compute_capability})")


@app.command("bundle")
def bundle_command(
    checkpoint: Checkpoint,
    results: Annotated[Path, typer.Option("--results", help="What `train evaluate` wrote.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The directory to write.", show_default=False)],
    data: Data = None,
    as_zip: Annotated[bool, typer.Option("--zip", help="Write OUT.zip instead of a directory.")] = False,
    name: Name = DEFAULT_IDENTITY.name,
    version: Version = DEFAULT_IDENTITY.version,
    masked_input: Annotated[
        bool, typer.Option("--masked-input", help="The model was trained on CT x lung mask.")
    ] = False,
    k: K = DEFAULT_K,
    exact_up_to: ExactUpTo = EXACT_SEARCH_LIMIT,
    threads: Threads = 0,
) -> None:
    """Write a bundle: network, case base of the diagnosed LIDC nodules, indexes, model card, manifest."""
    _use_threads(threads)
    options = BundleOptions(
        identity=Identity(name=name, version=version),
        masked_input=masked_input,
        k=k,
        exact_up_to=exact_up_to,
        threads=threads,
    )
    target = _zip_path(out, as_zip=as_zip)
    bundle = export_bundle(checkpoint, results=results, out=target, data=_required(data), options=options)
    typer.echo(f"wrote {target}: {len(CaseIndex(bundle))} cases, sha256 {bundle.sha256}")


@app.command("parity")
def parity_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle whose network is compared.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write: a directory or a .zip.", show_default=False)],
    data: Data = None,
    threads: Threads = 0,
) -> None:
    """Compare the backends that work here with onnxruntime on LIDC's cubes; write the bundle with the figures.

    They decide what `predict --backend auto` may take.
    """
    opened = Bundle.open(bundle)
    count = resolve_threads(threads or None)
    written = record_parity(opened, cube_patches(_required(data)), out=out, threads=count)
    for record in written.manifest.parity:
        verdict = "; ".join(misses(record, precision=record.precision)) or "passed"
        typer.echo(
            f"{record.backend} {record.runtime_version}, {record.device}, {record.precision}, {record.patches} patches:"
            f" P {record.malignancy:.1e}, score {record.expert_score:.1e}, segmentation {record.segmentation:.1e},"
            f" CAM {record.cam:.1e} ({record.cam_patches}), similar cases {record.overlap:.3f}: {verdict}",
            err=True,
        )
    typer.echo(f"wrote {out}, sha256 {written.sha256}")


@app.command("fused")
def fused_command(
    out: Annotated[Path, typer.Option("--out", help="The ONNX file to write.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE_OR_MODEL",
            help="A bundle or a .onnx file of `export onnx`; the packaged bundle when left out.",
        ),
    ] = None,
    hu_type: Annotated[HuType, typer.Option("--hu-type", help="Type of the HU that the file takes.")] = "float32",
    masked_input: Annotated[
        bool | None,
        typer.Option(
            "--masked-input/--no-masked-input",
            help="For a .onnx file: the model was trained on CT x lung mask. A bundle says so itself.",
            show_default=False,
        ),
    ] = None,
    threads: Threads = 0,
) -> None:
    """Write one graph from HU to the model's answers, once it answers as the SDK does (docs/fused-graph.md)."""
    fused = export_fused(open_source(source, masked_input=masked_input), out, hu_type=hu_type, threads=threads)
    typer.echo(
        f"largest difference from the SDK on {fused.parity.nodules} nodules and places of phantom CTs:", err=True
    )
    for name, value in fused.parity.difference.items():
        typer.echo(f"  {name:<14}{value:.1e}", err=True)
    typer.echo(f"wrote {out} ({len(fused.data) / 1e6:.1f} MB), inputs {', '.join(fused.inputs)}")


def _required(data: Path | None) -> Path:
    if data is None:
        raise UsageError("the LIDC data folder is not named", hint="give --data, or set NODULE_DIAG_DATA")
    return data


@index_app.command("build")
def build_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle whose network and card are taken.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write: a directory or a .zip.", show_default=False)],
    cases: Annotated[
        Path | None,
        typer.Option("--cases", help="Own cases, in the format of cases.json or cases.npz.", show_default=False),
    ] = None,
    data: Data = None,
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="Cases that make a diagnosis.", show_default=False)
    ] = None,
    exact_up_to: Annotated[
        int | None, typer.Option(min=0, help="Cases up to which every one is compared.", show_default=False)
    ] = None,
    threads: Threads = 0,
) -> None:
    """Write a copy of a bundle with another case base: own cases, or without --cases LIDC's, judged by its network."""
    opened = Bundle.open(bundle)
    if cases is not None:
        found, source = read_cases(cases), cases.name
    else:
        model = OnnxModel(opened.read(opened.manifest.model.file), threads=threads)
        found = CaseTable.of(cases_of(model, diagnosed_patches(_required(data))))
        source = "LIDC-IDRI with TCIA's diagnoses"
    written = replace_case_base(opened, found, out=out, source=source, k=k, exact_up_to=exact_up_to)
    typer.echo(f"wrote {out}: {len(found)} cases, sha256 {written.sha256}")


@index_app.command("info")
def info_command(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle; the packaged one when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Describe a bundle's case base."""
    opened = Bundle.default() if bundle is None else Bundle.open(bundle)
    index, retrieval = CaseIndex(opened), opened.manifest.retrieval
    counts = CaseCounts.of(index.cases)
    if as_json:
        document = {**asdict(counts), "base_rate": counts.base_rate, "k": retrieval.k, "exact": index.exact}
        typer.echo(json.dumps(document, indent=1))
        return
    search = "every case is compared" if index.exact else "HNSW in two dimensions, bisection in one"
    typer.echo(f"cases      {counts.cases} of {counts.patients} patients")
    typer.echo(f"malignant  {counts.malignant} (base rate {counts.base_rate:.2f})")
    typer.echo(f"certain    {counts.certain} diagnosed themselves, {counts.certain_malignant} of them malignant")
    typer.echo(f"search     K = {retrieval.k}, {search}")
