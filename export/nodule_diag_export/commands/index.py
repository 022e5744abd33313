"""``nodule-diag index build`` and ``info``: case bases."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nodule_diag.bundle import Bundle
from nodule_diag.cases import CaseIndex, CaseTable
from nodule_diag.errors import UsageError
from nodule_diag_export.bundle import CaseCounts, cases_of, read_cases, replace_case_base
from nodule_diag_export.commands.options import Data, Threads, required_data
from nodule_diag_export.parity import OnnxModel, diagnosed_patches
from nodule_diag_training.options import StoreOption


def build_command(
    out: Annotated[Path, typer.Option("--out", help="The bundle to write: a directory or a .zip.", show_default=False)],
    bundle: Annotated[
        Path | None,
        typer.Argument(help="Whose network and card are taken; the packaged bundle when left out.", show_default=False),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option("--cases", help="Own cases, in the format of cases.json or cases.npz.", show_default=False),
    ] = None,
    data: Data = None,
    store: StoreOption = None,
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="Cases that make a diagnosis.", show_default=False)
    ] = None,
    exact_up_to: Annotated[
        int | None, typer.Option(min=0, help="Cases up to which every one is compared.", show_default=False)
    ] = None,
    threads: Threads = 0,
) -> None:
    """Write a copy of a bundle with another case base.

    Own cases, or without --cases the diagnosed nodules of --store or LIDC, judged by the bundle's network.
    """
    opened = Bundle.default() if bundle is None else Bundle.open(bundle)
    if cases is not None:
        if store:
            raise UsageError("--cases and --store both give the cases", hint="give one of them")
        found, source = read_cases(cases), cases.name
    else:
        if opened.manifest.preprocessing.masked_input:
            raise UsageError(
                f"{opened.manifest.name} takes CT x lung mask, and the nodules at hand are not masked",
                hint="predict them with --json, and give the answers by --cases",
            )
        model = OnnxModel(opened.read(opened.manifest.model.file), threads=threads)
        nodules = required_data(data, store)
        found = CaseTable.of(cases_of(model, diagnosed_patches(nodules)))
        source = nodules.name if nodules.stores else "LIDC-IDRI with TCIA's diagnoses"
    written = replace_case_base(opened, found, out=out, source=source, k=k, exact_up_to=exact_up_to)
    typer.echo(f"wrote {out}: {len(found)} cases, sha256 {written.sha256}")
    if opened.manifest.parity:
        typer.echo(
            "the parity figures of the old cases were left out, so --backend auto is onnxruntime until new ones are"
            f" measured: nodule-diag export parity {out} --out NEW",
            err=True,
        )


def info_command(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle; the packaged one when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Describe a bundle's case base."""
    opened = Bundle.default() if bundle is None else Bundle.open(bundle)
    index, retrieval = CaseIndex(opened), opened.manifest.retrieval
    counts = CaseCounts.of(index.cases)
    if as_json:
        document = {**asdict(counts), "base_rate": counts.base_rate, "k": retrieval.k, "exhaustive": index.exhaustive}
        typer.echo(json.dumps(document, indent=1))
        return
    search = "every case is compared" if index.exhaustive else "boxes in two dimensions, bisection in one"
    typer.echo(f"cases      {counts.cases} of {counts.patients} patients")
    typer.echo(f"malignant  {counts.malignant} (base rate {counts.base_rate:.2f})")
    typer.echo(f"certain    {counts.certain} diagnosed themselves, {counts.certain_malignant} of them malignant")
    typer.echo(f"search     K = {retrieval.k}, {search}")
