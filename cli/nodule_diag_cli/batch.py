"""``nodule-diag batch``: the nodules of many CTs, by many processes, resuming where an earlier run ended."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nodule_diag.process import document_text
from nodule_diag_cli import render, terminal
from nodule_diag_cli.options import (
    BackendName,
    BackendOption,
    BundleOption,
    CasesOption,
    DeviceOption,
    JsonOption,
    KOption,
    NoLungCheckOption,
    PrecisionName,
    PrecisionOption,
    PrevalenceOption,
    RedactOption,
    SymmetriesOption,
    WhereOption,
)

if TYPE_CHECKING:
    from nodule_diag.fleet import Standing, Summary

EXIT_SOME_FAILED = 3
"""The batch is finished, and some nodules have no diagnosis, mostly because their CT or position was rejected."""
SHOWN = 20
"""Failures that are printed; the table of results has all of them."""


class EngineName(StrEnum):
    """Where the processes run."""

    LOCAL = "local"
    RAY = "ray"


def batch(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST.csv", help="CSV: path, x, y, z; optional: id, series, acquisition, space."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Folder for one JSON per CT and results.csv.", show_default=False),
    ],
    engine: Annotated[
        EngineName, typer.Option(help="local: processes on this machine. ray: a cluster (RAY_ADDRESS).")
    ] = EngineName.LOCAL,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes; one per core if omitted.", show_default=False)
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads per process; 1 gives the most CTs an hour.")] = 1,
    bundle: BundleOption = None,
    cases: CasesOption = None,
    where: WhereOption = None,
    backend: BackendOption = BackendName.AUTO,
    device: DeviceOption = "auto",
    precision: PrecisionOption = PrecisionName.AUTO,
    k: KOption = None,
    symmetries: SymmetriesOption = 1,
    prevalence: PrevalenceOption = None,
    no_lung_check: NoLungCheckOption = False,
    time_limit: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, help="CPU time limit per CT; four times as much by the clock.")
    ] = 600,
    memory_limit: Annotated[
        float | None,
        typer.Option(metavar="GIB", min=0.1, help="Memory limit per CT, besides the network; Linux only."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also retry CTs that failed in an earlier run.")
    ] = False,
    redact: RedactOption = False,
    as_json: JsonOption = False,
) -> None:
    """Diagnose the nodules of many CTs. After an interruption, repeat the command to resume.

    A CT that fails does not stop the others. A CT that ends its process or takes too long is given up after two tries.
    The exit code is 0 if every nodule was diagnosed, and 3 if the batch is finished but some nodules were not.
    """
    from nodule_diag.fleet import BatchOptions, Limits, read_manifest, run_batch

    listed = read_manifest(manifest)
    limits = Limits(time_limit) if memory_limit is None else Limits(time_limit, round(memory_limit * 2**30))
    options = BatchOptions(
        bundle=None if bundle is None else str(bundle),
        cases=None if cases is None else str(cases),
        where=where,
        backend=backend.value,
        device=device,
        precision=precision.value,
        threads=threads,
        symmetries=symmetries,
        k=k,
        prevalence=prevalence,
        check_lung=not no_lung_check,
        redact=redact,
    )
    begun = False

    try:
        with terminal.bar("loading", remaining=False) as show:

            def progress(at: Standing) -> None:
                nonlocal begun
                begun = begun or at.done > 0
                show(_text(at), at.done, at.total)

            summary = run_batch(
                listed,
                out,
                options,
                engine=engine.value,
                workers=workers,
                limits=limits,
                retry_failed=retry_failed,
                progress=progress,
            )
    except BaseException:
        if begun:
            terminal.complain("what is done so far is kept: the same command goes on from there")
        raise
    if as_json:
        terminal.write(document_text(summary.to_dict()))
    else:
        _tell(summary, out, redact=redact)
    if summary.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _text(at: Standing) -> str:
    """What stands before the bar: failures, and how long the rest takes."""
    failed = f"{at.failed} failed, " if at.failed else ""
    if at.remaining_s is None:
        return f"CTs, {failed}time left is not known yet"
    return f"CTs, {failed}{duration(at.remaining_s)} left"


def duration(seconds: float) -> str:
    """No more exact than it can be known: ``40 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if minutes < 2:
        return f"{round(seconds)} s"
    if minutes < 120:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60 // 10 * 10} min"
    return f"{hours // 24} d {hours % 24} h"


def _tell(summary: Summary, out: Path, *, redact: bool) -> None:
    """Say what came of it: counts, failures by code, and the first of them."""
    to = terminal.console()
    for one in summary.failed[:SHOWN]:
        terminal.complain(f"warning: {one.path}, {', '.join(one.ids)}: {one.message}")
    if len(summary.failed) > SHOWN:
        terminal.complain(f"warning: and {len(summary.failed) - SHOWN} more: results.csv has them all")
    if summary.failed:
        table = render.table("Failure", "CTs", "Nodules", right=("CTs", "Nodules"))
        for code, (cts, nodules) in summary.codes.items():
            table.add_row(code, str(cts), str(nodules))
        to.print(table)
    failed = sum(len(one.ids) for one in summary.failed)
    there = f", {summary.there} of them in an earlier run" if summary.there else ""
    to.print(f"{summary.nodules - failed} of {summary.nodules} nodules in {summary.cts} CTs are diagnosed{there}.")
    if summary.cts_per_hour is not None:
        took = duration(summary.seconds)
        to.print(f"{summary.workers} workers took {took}: {summary.cts_per_hour:.0f} CTs an hour.")
    to.print("Wrote results.csv and a JSON per CT." if redact else f"Wrote {out / 'results.csv'} and a JSON per CT.")
