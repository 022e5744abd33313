"""``nodule-diag export bundle``, ``cases`` and ``parity``: a bundle, its case base, the figures of its backends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nodule_diag.backends import has_passed, misses
from nodule_diag.cases import DEFAULT_K, CaseBase
from nodule_diag.process import resolve_threads
from nodule_diag_export.bundle import (
    DEFAULT_IDENTITY,
    BundleOptions,
    Identity,
    NumberFiles,
    export_bundle,
    open_any,
    read_cases,
    replace_case_base,
)
from nodule_diag_export.commands.options import (
    BundleArgument,
    BundleOut,
    Data,
    License,
    Name,
    Threads,
    Version,
    open_bundle,
    required_data,
    use_threads,
)
from nodule_diag_export.parity import cube_patches, record_parity
from nodule_diag_training.options import StoreOption

Checkpoint = Annotated[Path, typer.Argument(help="model.safetensors of a finished run.", show_default=False)]
K = Annotated[int, typer.Option("--k", min=1, help="Number of similar cases per diagnosis.")]


def bundle_command(
    checkpoint: Checkpoint,
    results: Annotated[Path, typer.Option("--results", help="Report of `train evaluate`.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.", show_default=False)],
    lung: Annotated[
        Path | None,
        typer.Option("--lung", help="Report of `train lung`, for presence.", show_default=False),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", help="Report of `train calibrate`, to calibrate P.", show_default=False),
    ] = None,
    distance: Annotated[
        Path | None,
        typer.Option(
            "--distance", help="Report of `train distance`, to warn of patches unlike the training.", show_default=False
        ),
    ] = None,
    spread: Annotated[
        Path | None,
        typer.Option("--spread", help="Report of `train spread`, to warn of too large a spread.", show_default=False),
    ] = None,
    data: Data = None,
    store: StoreOption = None,
    as_zip: Annotated[bool, typer.Option("--zip", help="Write OUT.zip instead of a folder.")] = False,
    name: Name = DEFAULT_IDENTITY.name,
    version: Version = DEFAULT_IDENTITY.version,
    license_: License = DEFAULT_IDENTITY.license,
    masked_input: Annotated[
        bool, typer.Option("--masked-input", help="The model was trained on CT x lung mask.")
    ] = False,
    k: K = DEFAULT_K,
    threads: Threads = 0,
) -> None:
    """Write a bundle: network, case base of the diagnosed nodules, model card, manifest."""
    use_threads(threads)
    options = BundleOptions(
        identity=Identity(name=name, version=version, license=license_),
        masked_input=masked_input,
        k=k,
        threads=threads,
    )
    target = _zip_path(out, as_zip=as_zip)
    nodules = required_data(data, store)
    numbers = NumberFiles(lung=lung, calibration=calibration, distance=distance, spread=spread)
    bundle = export_bundle(checkpoint, results=results, out=target, data=nodules, numbers=numbers, options=options)
    typer.echo(f"wrote {target}: {len(CaseBase.of_bundle(bundle))} cases, sha256 {bundle.sha256}")


def cases_command(
    cases: Annotated[
        Path,
        typer.Option("--cases", help="Case base, or CSV or JSON of cases with P and score.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", help="Bundle to write: a folder or a .zip.", show_default=False)],
    bundle: Annotated[
        Path | None,
        typer.Argument(help="Bundle whose network and card are used; the packaged one if omitted.", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of a new case base.", show_default=False)] = None,
    same: Annotated[bool, typer.Option("--same", help="The cases are the bundle's: keep card and figures.")] = False,
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="Number of similar cases per diagnosis.", show_default=False)
    ] = None,
) -> None:
    """Write a copy of a bundle with another case base. BUNDLE may have the first schema, nodule-diag/bundle/1."""
    opened = open_bundle(None) if bundle is None else open_any(bundle)
    base = read_cases(cases, bundle=opened, name=name)
    written = replace_case_base(opened, base, out=out, source="" if same else base.name, k=k)
    typer.echo(f"wrote {out}: {len(base)} cases, sha256 {written.sha256}")
    if opened.manifest.parity and not written.manifest.parity:
        typer.echo(
            "the parity figures of the old cases were left out, so --backend auto is onnxruntime until new ones are"
            f" measured: nodule-diag export parity {out} --out NEW",
            err=True,
        )


def parity_command(
    out: BundleOut,
    bundle: BundleArgument = None,
    data: Data = None,
    store: StoreOption = None,
    threads: Threads = 0,
) -> None:
    """Compare the backends that work here with onnxruntime and write the bundle with the figures.

    The figures are of nodules in their own surroundings. They decide what `predict --backend auto` may use.
    """
    opened = open_bundle(bundle)
    count = resolve_threads(threads or None)
    written = record_parity(opened, cube_patches(required_data(data, store)), out=out, threads=count)
    for record in written.manifest.parity:
        missed = "; ".join(misses(record, precision=record.precision))
        verdict = missed or ("passed" if has_passed(written.manifest.parity, record) else "wrong in fp32")
        typer.echo(
            f"{record.backend} {record.runtime_version}, {record.device}, {record.precision}, {record.patches} patches:"
            f" P {record.malignancy:.1e}, score {record.expert_score:.1e}, segmentation {record.segmentation:.1e},"
            f" CAM {record.cam:.1e} ({record.cam_patches}), similar cases {record.overlap:.3f}: {verdict}",
            err=True,
        )
    typer.echo(f"wrote {out}, sha256 {written.sha256}")


def _zip_path(out: Path, *, as_zip: bool) -> Path:
    return out if not as_zip or out.suffix == ".zip" else out.with_name(out.name + ".zip")
