"""``nodule-diag bench``: one command a part, ``all`` of them, and the report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.everything import run_all
from benchmarks.report import write_report
from benchmarks.results import Part, read_part
from benchmarks.session import run_part
from benchmarks.subject import Settings
from nodule_diag.errors import OutputError, UsageError
from nodule_diag.process import resolve_threads
from nodule_diag_cli.points import XyzCommand, parse_xyz

app = typer.Typer(
    name="bench", help="Measure speed and memory, compared with peers.", no_args_is_help=True, add_completion=False
)

Ct = Annotated[
    Path | None, typer.Option("--ct", help="CT; if omitted, LIDC-IDRI-0314 in NODULE_DIAG_DATA, or else the phantom.")
]
Xyz = Annotated[str | None, typer.Option("--xyz", metavar="X Y Z", help="Position of a nodule in the CT, LPS mm.")]
BundlePath = Annotated[Path | None, typer.Option("--bundle", help="Bundle instead of the packaged one.")]
Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint", help="model.safetensors for the torch peers, instead of the bundle's.")
]
Networks = Annotated[
    list[Path] | None,
    typer.Option("--network", help="Further ONNX file of the model, besides the bundle's. Can be repeated."),
]
MostCases = Annotated[
    int, typer.Option("--most-cases", min=100, help="Size of the largest case base; only for the part retrieval.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of every runtime; all cores if omitted.")]
Quick = Annotated[bool, typer.Option("--quick", help="Tiny sizes, two calls: shows that it works, measures nothing.")]
Out = Annotated[Path | None, typer.Option("--out", help="Write the JSON here instead of to stdout.")]


def settled(
    *,
    ct: Path | None,
    xyz: str | None,
    bundle: Path | None,
    checkpoint: Path | None,
    network: list[Path] | None,
    most_cases: int,
    threads: int | None,
    quick: bool,
) -> Settings:
    """Convert the options to settings."""
    return Settings(
        ct=ct,
        xyz_mm=parse_xyz(xyz) if xyz is not None else None,
        bundle=bundle,
        checkpoint=checkpoint,
        networks=tuple(network or ()),
        most_cases=most_cases,
        threads=resolve_threads(threads),
        quick=quick,
    )


def as_words(settings: Settings) -> list[str]:
    """Settings as command-line words, for a part in a process of its own."""
    words = ["--threads", str(settings.threads), "--most-cases", str(settings.most_cases)]
    if settings.ct is not None and settings.xyz_mm is not None:
        words += ["--ct", str(settings.ct), "--xyz", *map(str, settings.xyz_mm)]
    for name in ("bundle", "checkpoint"):
        given: Path | None = getattr(settings, name)
        words += [f"--{name}", str(given)] if given is not None else []
    for network in settings.networks:
        words += ["--network", str(network)]
    return words + ["--quick"] * settings.quick


def emit(part: Part, out: Path | None) -> None:
    """Write a part, and report its checks on stderr."""
    if out is None:
        sys.stdout.write(part.to_json())
    else:
        part.write(out)
    for check in part.checks:
        says = "holds" if check.holds else "MISSED"
        typer.echo(f"{says:>7}  {check.name}: {check.value:.4g} {check.rule} {check.limit:g} {check.unit}", err=True)
    for note in part.notes:
        typer.echo(f"   note  {note}", err=True)


def _add(name: str, help_text: str) -> None:
    """Add the command of a part whose code is ``benchmarks.part_NAME:run``; the code is imported when it is called."""

    def command(
        ct: Ct = None,
        xyz: Xyz = None,
        bundle: BundlePath = None,
        checkpoint: Checkpoint = None,
        network: Networks = None,
        most_cases: MostCases = Settings.most_cases,
        threads: Threads = None,
        quick: Quick = False,
        out: Out = None,
    ) -> None:
        settings = settled(
            ct=ct,
            xyz=xyz,
            bundle=bundle,
            checkpoint=checkpoint,
            network=network,
            most_cases=most_cases,
            threads=threads,
            quick=quick,
        )
        if out is not None and (out.is_dir() or not out.parent.is_dir()):  # before minutes are spent
            raise OutputError(
                f"--out {out} is not a file that can be written", hint="give a file in a folder that exists"
            )
        run: Callable[..., object] = import_module(f"benchmarks.part_{name}").run
        emit(run_part(name, run, settings), out)  # type: ignore[arg-type]

    app.command(name, cls=XyzCommand, help=help_text)(command)


PARTS = {
    "predict": "Each stage of a diagnosis, after warm-up.",
    "cold": "The command in a fresh process: time and peak memory, compared with the least possible.",
    "evidence": "Time and peak memory that a report adds to a command.",
    "peers": "File to answer, compared with the paper to the letter and with MONAI. Takes minutes.",
    "backends": "The network alone: every backend, torch, torch.compile, plain runtimes, and their answers.",
    "roofline": "The network's rate, compared with a measured matrix-product ceiling.",
    "growth": "Growth with slices, nodules, batch and threads.",
    "dicom": "DICOM folders and zips, compared with SimpleITK's reader.",
    "cases": "A case base of 10,000 cases with free columns: list, filter, retrieval.",
    "retrieval": "Case bases of 10^2 to 10^6, compared with numpy and faiss.",
    "serve": "The service: waiting time of 1 to 32 clients, compared with the same call in process.",
}
"""The parts, in the order of ``all`` and of the report."""
ALONE = {
    "batch": "CTs an hour by processes, threads and engine. Takes ten minutes.",
    "soak": "10,000 predictions in one process: memory, open files and answers. Takes twenty minutes.",
    "load": "16 clients of the service for five minutes, good, bad and gone: answers, memory and leftovers.",
}
"""Parts that ``all`` does not run: docs/what-to-buy.md, reliability.md and service.md show them."""
for _name, _help in (PARTS | ALONE).items():
    _add(_name, _help)


@app.command("all", cls=XyzCommand)
def all_command(
    out: Annotated[Path, typer.Option("--out", help="Folder for the results, one JSON per part.", show_default=False)],
    ct: Ct = None,
    xyz: Xyz = None,
    bundle: BundlePath = None,
    checkpoint: Checkpoint = None,
    network: Networks = None,
    most_cases: MostCases = Settings.most_cases,
    threads: Threads = None,
    quick: Quick = False,
    part: Annotated[
        list[str] | None, typer.Option("--part", help="Only this part; all if omitted. Can be repeated.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also measure parts that the folder already has.")] = False,
) -> None:
    """Run every part that the folder does not have yet, each in its own process. Takes twenty minutes on two cores."""
    unknown = sorted(set(part or ()) - set(PARTS))
    if unknown:
        raise UsageError(f"there is no part {', '.join(unknown)}", hint=f"parts are {', '.join(PARTS)}")
    settings = settled(
        ct=ct,
        xyz=xyz,
        bundle=bundle,
        checkpoint=checkpoint,
        network=network,
        most_cases=most_cases,
        threads=threads,
        quick=quick,
    )
    names = [name for name in PARTS if not part or name in part]
    run_all(
        names,
        settings=settings,
        options=as_words(settings),
        folder=out,
        again=again,
        say=lambda text: typer.echo(text, err=True),
    )


@app.command("cpp", cls=XyzCommand)
def cpp_command(
    program: Annotated[Path, typer.Argument(help="nodule-diag-cpp, built as in docs/cpp.md.", show_default=False)],
    ct: Ct = None,
    xyz: Xyz = None,
    bundle: BundlePath = None,
    threads: Threads = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Compare C++ and Python from HU to the answer, in processes that take turns."""
    settings = settled(
        ct=ct,
        xyz=xyz,
        bundle=bundle,
        checkpoint=None,
        network=None,
        most_cases=Settings.most_cases,
        threads=threads,
        quick=quick,
    )
    run = import_module("benchmarks.part_cpp").run
    emit(run_part("cpp", partial(run, program=program), settings), out)


@app.command("report")
def report_command(
    results: Annotated[list[Path], typer.Argument(help="JSON files of the parts.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Markdown file to write.", show_default=False)],
    plots: Annotated[Path, typer.Option("--plots", help="Folder for the plots.", show_default=False)],
) -> None:
    """Write one page with plots, from the results alone."""
    order = [*PARTS, *ALONE]
    found = [read_part(path) for path in results]
    parts = sorted(found, key=lambda part: order.index(part.part) if part.part in order else len(order))
    write_report(parts, out=out, plots=plots)
    typer.echo(f"wrote {out}", err=True)
