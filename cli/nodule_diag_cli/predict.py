"""``nodule-diag predict``."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodule_diag.ct import FORMAT_NAMES
from nodule_diag.errors import PacsError, UsageError
from nodule_diag.process import document_text
from nodule_diag_cli import out as out_folder
from nodule_diag_cli import render, terminal
from nodule_diag_cli.evidence import Evidence, Pacs
from nodule_diag_cli.options import (
    AcquisitionOption,
    BackendName,
    BackendOption,
    BundleOption,
    CasesOption,
    DeviceOption,
    DicomOutOption,
    DicomwebOption,
    IdentityOption,
    JsonOption,
    KOption,
    NodulesOption,
    NoLungCheckOption,
    OutOption,
    PositionsOutOption,
    PrecisionName,
    PrecisionOption,
    PrevalenceOption,
    RedactOption,
    ReportOption,
    SeriesOption,
    SpaceName,
    SpaceOption,
    StoreOption,
    StudyOption,
    SymmetriesOption,
    WhereOption,
    XyzOption,
)
from nodule_diag_cli.points import Points, gather

if TYPE_CHECKING:
    from nodule_diag.ct import CTVolume, MemoryFile
    from nodule_diag.diagnoser import Diagnoser
    from nodule_diag.results import Diagnosis, Prediction


@dataclass(frozen=True)
class Request:
    """One prediction, as the command line asks for it; every field but the first two has the contract's default.

    ``ct`` is a file, a folder, a series in a PACS, or a volume that is in memory.
    """

    ct: str | Pacs | CTVolume
    points: Points
    bundle: Path | None = None
    cases: Path | None = None
    where: str | None = None
    backend: BackendName = BackendName.AUTO
    device: str = "auto"
    precision: PrecisionName = PrecisionName.AUTO
    k: int | None = None
    series: str | None = None
    acquisition: int | None = None
    symmetries: int = 1
    prevalence: float | None = None
    check_lung: bool = True
    redact: bool = False

    def run(self) -> Result:
        """Load, read, diagnose; says on stderr what is being done.

        The bundle comes first: when it or the backend cannot serve, nobody waits for the CT to be read.
        """
        from nodule_diag.bundle import Bundle
        from nodule_diag.cases import cases_where
        from nodule_diag.ct import read_ct
        from nodule_diag.diagnoser import Diagnoser
        from nodule_diag.results import prediction_document, redacted, require_prevalence

        require_prevalence(self.prevalence)
        with terminal.progress("loading the bundle"):
            bundle = Bundle.default() if self.bundle is None else Bundle.open(self.bundle)
            diagnoser = Diagnoser.load(
                bundle,
                cases=self.cases if self.where is None else cases_where(self.where, self.cases, bundle=bundle),
                backend=self.backend.value,
                device=self.device,
                precision=self.precision.value,
                symmetries=self.symmetries,
            )
        ct, read_ms, fetched = self.ct, 0.0, None
        if isinstance(ct, Pacs):
            started = time.perf_counter()
            fetched = ct.fetch()
            ct = fetched.read(acquisition=self.acquisition)
            read_ms = (time.perf_counter() - started) * 1000
        elif isinstance(ct, str):
            with terminal.progress("reading the CT" if self.redact else f"reading {ct}"):
                started = time.perf_counter()
                ct = read_ct(ct, series=self.series, acquisition=self.acquisition)
                read_ms = (time.perf_counter() - started) * 1000
        positions = self.points.on(ct)
        with terminal.progress(f"diagnosing {len(positions)} nodules"):
            prediction = diagnoser.predict_timed(
                ct,
                [position.xyz_lps_mm for position in positions],
                k=self.k,
                ids=[position.id for position in positions],
                check_lung=self.check_lung,
                prevalence=self.prevalence,
            )
        if self.redact:
            ct, prediction = redacted(ct, prediction)
        document = prediction_document(ct, prediction, read_ms=read_ms)
        files = fetched.files if fetched else None
        return Result(ct=ct, prediction=prediction, document=document, diagnoser=diagnoser, files=files)


@dataclass(frozen=True, eq=False)
class Result:
    """What came of a request."""

    ct: CTVolume
    prediction: Prediction
    document: dict[str, Any]
    diagnoser: Diagnoser
    files: tuple[MemoryFile, ...] | None = None

    @property
    def diagnoses(self) -> tuple[Diagnosis, ...]:
        """One a nodule."""
        return self.prediction.diagnoses


def predict(
    ct: Annotated[
        str | None,
        typer.Argument(metavar="[CT]", help=f"{FORMAT_NAMES}. Omit with --dicomweb.", show_default=False),
    ] = None,
    xyz: XyzOption = None,
    nodules: NodulesOption = None,
    space: SpaceOption = SpaceName.LPS,
    bundle: BundleOption = None,
    cases: CasesOption = None,
    where: WhereOption = None,
    backend: BackendOption = BackendName.AUTO,
    device: DeviceOption = "auto",
    precision: PrecisionOption = PrecisionName.AUTO,
    k: KOption = None,
    series: SeriesOption = None,
    acquisition: AcquisitionOption = None,
    symmetries: SymmetriesOption = 1,
    prevalence: PrevalenceOption = None,
    no_lung_check: NoLungCheckOption = False,
    redact: RedactOption = False,
    as_json: JsonOption = False,
    out: OutOption = None,
    positions_out: PositionsOutOption = None,
    report: ReportOption = None,
    identity: IdentityOption = False,
    dicom_out: DicomOutOption = None,
    dicomweb: DicomwebOption = None,
    study: StudyOption = None,
    store: StoreOption = False,
) -> None:
    """Diagnose nodules at known positions in a chest CT.

    Example: nodule-diag predict scan.nii.gz --xyz -56.94 131.27 -520.6
    """
    points = gather(xyz or [], nodules, space=space.value, redact=redact)
    source = _source(ct, dicomweb=dicomweb, study=study, series=series, store=store)
    server = source if isinstance(source, Pacs) else None
    evidence = Evidence(report, identity, dicom_out, store=server if store else None)
    evidence.check()
    if redact and (identity or dicom_out is not None or store):
        raise UsageError(
            "--redact leaves out whose CT it is, and --identity, --dicom-out and --store name the patient",
            hint="leave --redact out, or the other options",
        )
    if redact:
        from nodule_diag.results import Redaction

        said = Redaction(ct or "", nodules or "", words=(dicomweb or "", study or "", series or "")).text
        if (at := next((at for at, name in enumerate(points.ids, start=1) if said(name) != name), None)) is not None:
            raise UsageError(
                f"the id of nodule {at} holds a name that is to be left out",
                hint="give an id that names no file, folder or UID",
            )
    if positions_out is not None:
        from nodule_diag.exchange import require_positions_format, write_positions

        require_positions_format(positions_out)
    request = Request(
        ct=source,
        points=points,
        bundle=bundle,
        cases=cases,
        where=where,
        backend=backend,
        device=device,
        precision=precision,
        k=k,
        series=series,
        acquisition=acquisition,
        symmetries=symmetries,
        prevalence=prevalence,
        check_lung=not no_lung_check,
        redact=redact,
    )
    with ExitStack() as stack:
        folder = stack.enter_context(out_folder.opened(out, points.ids)) if out else None
        result = request.run()
        written: list[Path] = []
        if folder is not None:
            with terminal.progress("writing"):
                written = folder.write(ct=result.ct, diagnoses=result.diagnoses, document=result.document)
    if positions_out is not None:
        write_positions(positions_out, result.diagnoses)
    try:
        written_too = evidence.write(result)
    except PacsError as error:  # the answer is not lost with it
        if as_json:
            trouble = error.to_dict()
            if redact:
                from nodule_diag.results import Redaction

                redacted = Redaction(result.ct.path, dicomweb or "", study or "", series or "").text
                trouble |= {"message": redacted(error.whole[0]), "hint": redacted(error.whole[1])}
            terminal.write(document_text({"error": trouble, "prediction": result.document}))
            raise typer.Exit(error.exit_code) from error
        render.prediction(result.document, to=terminal.console())
        raise
    if as_json:
        terminal.write(document_text(result.document))
        return
    to = terminal.console()
    render.prediction(result.document, to=to)
    for line in [] if redact else written_too:
        to.print(line)
    if written:
        to.print(f"Wrote {len(written)} files{'' if redact else f' to {out}'}.")
    if positions_out is not None:
        to.print("Wrote the positions." if redact else f"Wrote {positions_out}.")


def _source(ct: str | None, *, dicomweb: str | None, study: str | None, series: str | None, store: bool) -> str | Pacs:
    """Where the CT comes from.

    Raises:
        UsageError: When that is not said, or said twice.
    """
    if dicomweb is None:
        if study is not None or store:
            raise UsageError("--study and --store are for a PACS", hint="give --dicomweb URL, or leave them out")
        if ct is None:
            raise UsageError("no CT is named", hint="give its path, or --dicomweb URL --study UID --series UID")
        return ct
    if ct is not None:
        raise UsageError(f"both {ct} and --dicomweb are given", hint="give the path or --dicomweb, not both")
    if study is None or series is None:
        raise UsageError("--dicomweb needs --study UID and --series UID", hint="add the option that is missing")
    return Pacs(dicomweb, study, series)
