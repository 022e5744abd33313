"""``nodule-diag predict``."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodule_diag.ct import FORMAT_NAMES
from nodule_diag_cli import out as out_folder
from nodule_diag_cli import render
from nodule_diag_cli.options import (
    AcquisitionOption,
    BackendName,
    BackendOption,
    BundleOption,
    CasesOption,
    DeviceOption,
    JsonOption,
    KOption,
    NodulesOption,
    NoLungCheckOption,
    OutOption,
    PrecisionName,
    PrecisionOption,
    PrevalenceOption,
    SeriesOption,
    SpaceName,
    SpaceOption,
    SymmetriesOption,
    XyzOption,
)
from nodule_diag_cli.points import NamedPoint, gather

if TYPE_CHECKING:
    from nodule_diag.ct import CTVolume
    from nodule_diag.results import Diagnosis


@dataclass(frozen=True)
class Request:
    """One prediction, as the command line asks for it; every field but the first two has the contract's default."""

    ct: str
    points: list[NamedPoint]
    space: SpaceName = SpaceName.LPS
    bundle: Path | None = None
    cases: Path | None = None
    backend: BackendName = BackendName.AUTO
    device: str = "auto"
    precision: PrecisionName = PrecisionName.AUTO
    k: int | None = None
    series: str | None = None
    acquisition: int | None = None
    symmetries: int = 1
    prevalence: float | None = None
    check_lung: bool = True

    def run(self) -> Result:
        """Load, read, diagnose; says on stderr what is being done.

        The bundle comes first: when it or the backend cannot serve, nobody waits for the CT to be read.
        """
        from nodule_diag.ct import read_ct
        from nodule_diag.diagnoser import Diagnoser
        from nodule_diag.results import prediction_document, require_prevalence

        require_prevalence(self.prevalence)
        with render.progress("loading the bundle"):
            diagnoser = Diagnoser.load(
                self.bundle,
                cases=self.cases,
                backend=self.backend.value,
                device=self.device,
                precision=self.precision.value,
                symmetries=self.symmetries,
            )
        with render.progress(f"reading {self.ct}"):
            started = time.perf_counter()
            ct = read_ct(self.ct, series=self.series, acquisition=self.acquisition)
            read_ms = (time.perf_counter() - started) * 1000
        with render.progress(f"diagnosing {len(self.points)} nodules"):
            prediction = diagnoser.predict_timed(
                ct,
                [point.xyz for point in self.points],
                space=self.space.value,
                k=self.k,
                ids=[point.id for point in self.points],
                check_lung=self.check_lung,
                prevalence=self.prevalence,
            )
        document = prediction_document(ct, prediction, read_ms=read_ms)
        return Result(ct=ct, diagnoses=prediction.diagnoses, document=document)


@dataclass(frozen=True, eq=False)
class Result:
    """What came of a request."""

    ct: CTVolume
    diagnoses: tuple[Diagnosis, ...]
    document: dict[str, Any]


def predict(
    ct: Annotated[str, typer.Argument(metavar="CT", help=f"{FORMAT_NAMES}.")],
    xyz: XyzOption = None,
    nodules: NodulesOption = None,
    space: SpaceOption = SpaceName.LPS,
    bundle: BundleOption = None,
    cases: CasesOption = None,
    backend: BackendOption = BackendName.AUTO,
    device: DeviceOption = "auto",
    precision: PrecisionOption = PrecisionName.AUTO,
    k: KOption = None,
    series: SeriesOption = None,
    acquisition: AcquisitionOption = None,
    symmetries: SymmetriesOption = 1,
    prevalence: PrevalenceOption = None,
    no_lung_check: NoLungCheckOption = False,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Diagnose nodules of a chest CT whose places are known.

    Example: nodule-diag predict scan.nii.gz --xyz -56.94 131.27 -520.6
    """
    points = gather(xyz or [], nodules)
    stems = out_folder.prepare(out, [point.id for point in points]) if out is not None else None
    result = Request(
        ct=ct,
        points=points,
        space=space,
        bundle=bundle,
        cases=cases,
        backend=backend,
        device=device,
        precision=precision,
        k=k,
        series=series,
        acquisition=acquisition,
        symmetries=symmetries,
        prevalence=prevalence,
        check_lung=not no_lung_check,
    ).run()
    written: list[Path] = []
    if out is not None and stems is not None:
        with render.progress("writing"):
            written = out_folder.write(out, stems, ct=result.ct, diagnoses=result.diagnoses, document=result.document)
    if as_json:
        sys.stdout.write(out_folder.document_text(result.document))
        return
    to = render.console()
    render.prediction(result.document, to=to)
    if written:
        to.print(f"Wrote {len(written)} files to {out}.")
