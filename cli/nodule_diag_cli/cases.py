"""``nodule-diag cases``: case bases of one's own, which ``predict --cases`` compares with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodule_diag.errors import UsageError
from nodule_diag.process import document_text
from nodule_diag_cli import case_views, terminal
from nodule_diag_cli.case_views import FileArgument
from nodule_diag_cli.options import (
    BackendName,
    BackendOption,
    BundleOption,
    DeviceOption,
    JsonOption,
    PrecisionName,
    PrecisionOption,
)

if TYPE_CHECKING:
    from nodule_diag.bundle import Bundle
    from nodule_diag.cases import CaseBase, Filled, Listed, Progress
    from nodule_diag.diagnoser import Diagnoser

SCHEMA, REMOVED_SCHEMA = "nodule-diag/cases-built/1", "nodule-diag/cases-removed/1"

TableArgument = Annotated[
    Path,
    typer.Argument(
        metavar="TABLE", help="CSV or JSON: case_id, patient, label; malignancy and expert_score, or path, x, y, z."
    ),
]
NewOption = Annotated[Path, typer.Option("--out", metavar="FILE", help="New file for the case base.")]
NameOption = Annotated[
    str | None, typer.Option(help="Name of the case base; the table's file name if omitted.", show_default=False)
]
ColumnOption = Annotated[
    list[str] | None, typer.Option("--column", metavar="NAME", help="Free column to keep. Can be repeated.")
]
PicturesOption = Annotated[
    bool,
    typer.Option("--pictures", help="Store a picture of each nodule with outline and CAM, 10 to 20 KB each."),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--patient-key",
        metavar="FILE",
        help="Make pseudonyms of patients with the secret in this file. The file is created if it is missing.",
    ),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-identity", metavar="COLUMN", help="Accept a column that may identify a patient. Can be repeated."
    ),
]

cases_app = typer.Typer(help="Build, describe and evaluate case bases.", no_args_is_help=True, add_completion=False)


@dataclass(frozen=True)
class _Model:
    """What judges the cases. P and score are to be those that ``predict --cases`` compares: fp32 unless asked."""

    bundle: Bundle
    backend: BackendName
    device: str
    precision: PrecisionName

    @classmethod
    def of(cls, bundle: Path | None, backend: BackendName, device: str, precision: PrecisionName) -> _Model:
        from nodule_diag.bundle import Bundle

        opened = Bundle.default() if bundle is None else Bundle.open(bundle)
        return cls(opened, backend, device, PrecisionName.FP32 if precision is PrecisionName.AUTO else precision)

    def load(self) -> Diagnoser:
        from nodule_diag.diagnoser import Diagnoser

        return Diagnoser.load(
            self.bundle, backend=self.backend.value, device=self.device, precision=self.precision.value
        )


@cases_app.command()
def build(
    table: TableArgument,
    out: NewOption,
    bundle: BundleOption = None,
    name: NameOption = None,
    column: ColumnOption = None,
    pictures: PicturesOption = False,
    patient_key: KeyOption = None,
    allow_identity: AllowOption = None,
    backend: BackendOption = BackendName.AUTO,
    device: DeviceOption = "auto",
    precision: PrecisionOption = PrecisionName.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Build a case base from a table of diagnosed nodules. After an interruption, repeat the command to resume.

    If a case has no P and score, the bundle's model computes them at the case's position (LPS mm) in its CT.
    """
    from nodule_diag.cases import read_case_table

    model = _Model.of(bundle, backend, device, precision)
    rows = read_case_table(table, columns=column or (), patient_key=_key(patient_key), identity=allow_identity or ())
    _build(out, rows, model, name=name or table.stem, pictures=pictures, as_json=as_json)


@cases_app.command()
def add(
    file: FileArgument,
    table: TableArgument,
    bundle: BundleOption = None,
    column: ColumnOption = None,
    pictures: PicturesOption = False,
    patient_key: KeyOption = None,
    allow_identity: AllowOption = None,
    backend: BackendOption = BackendName.AUTO,
    device: DeviceOption = "auto",
    precision: PrecisionOption = PrecisionName.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Add the cases of a table to a case base. Cases that it already has are skipped."""
    from nodule_diag.cases import CaseBase, add_to, read_case_table

    model = _Model.of(bundle, backend, device, precision)
    with CaseBase.edit(file) as base, terminal.bar("starting") as show:
        base.of_model(model.bundle)
        key = _key(patient_key)
        rows = read_case_table(table, columns=column or (), patient_key=key, identity=allow_identity or ())
        filled = add_to(base, rows, model.load, pictures=pictures, progress=lambda at: _show(at, show))
    _tell(filled, CaseBase.open(file), as_json=as_json)


@cases_app.command()
def remove(
    file: FileArgument,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[CASE]...", help="Ids of the cases to remove.")] = None,
    patient: Annotated[
        list[str] | None, typer.Option("--patient", metavar="KEY", help="All cases of this patient. Can be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the named cases, or none if one of them is missing. Nothing of a removed case stays in the file."""
    from nodule_diag.cases import CaseBase

    with CaseBase.edit(file) as base:
        of_patients = base.ids_of_patients(patient or ())
        chosen = sorted({*(ids or ()), *of_patients})
        if not chosen:
            raise UsageError("no case was named", hint="give ids of cases, or --patient KEY")
        base.remove(chosen)
        left = len(base)
    if as_json:
        document = {"schema": REMOVED_SCHEMA, "path": str(file), "removed": chosen, "count": left}
        terminal.write(document_text(document))
        return
    terminal.console().print(f"Removed {len(chosen)} cases from {file}; {left} remain.")


@cases_app.command()
def rebuild(
    file: FileArgument,
    table: TableArgument,
    out: NewOption,
    bundle: BundleOption = None,
    pictures: PicturesOption = False,
    backend: BackendOption = BackendName.AUTO,
    device: DeviceOption = "auto",
    precision: PrecisionOption = PrecisionName.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Rebuild a case base for another bundle's model: the same cases, judged again at the positions in the table.

    Give the table that the case base was built from. A case base does not store where its CTs are.
    """
    from nodule_diag.cases import CaseBase, read_case_table, replaced

    model = _Model.of(bundle, backend, device, precision)
    base = CaseBase.open(file)
    rows = replaced(base, read_case_table(table, identity=None))
    _build(out, rows, model, name=base.name, pictures=pictures, as_json=as_json)


def _build(out: Path, rows: list[Listed], model: _Model, *, name: str, pictures: bool, as_json: bool) -> None:
    from nodule_diag.cases import CaseBase, build_case_base, unfinished

    try:
        with terminal.bar("starting") as show:
            filled = build_case_base(
                out,
                rows,
                model.load,
                name=name,
                model_sha256=model.bundle.model_sha256,
                pictures=pictures,
                progress=lambda at: _show(at, show),
            )
    except BaseException:
        if unfinished(out):
            terminal.complain("what is done so far is kept: the same command goes on from there")
        raise
    _tell(filled, CaseBase.open(out), as_json=as_json)


def _key(path: Path | None) -> bytes | None:
    from nodule_diag.cases import read_patient_key

    return None if path is None else read_patient_key(path)


def _show(at: Progress, show: Any) -> None:  # noqa: ANN401 - what terminal.bar yields
    show("done" if at.path is None else f"CT {at.path.name}", at.done, at.total)


def _tell(filled: Filled, base: CaseBase, *, as_json: bool) -> None:
    """Say what became of a table: each case that was left out, and what is to be checked of others."""
    if as_json:
        failed = [
            {"case_id": one.case_id, "path": str(one.path), "code": one.error.code, "message": str(one.error)}
            for one in filled.failed
        ]
        counts = {"count": len(base), "malignant": base.malignant, "added": filled.added, "there": filled.there}
        document = {"schema": SCHEMA, "path": base.where} | counts
        terminal.write(document_text(document | {"failed": failed, "warnings": filled.warnings}))
        return
    for name, warnings in filled.warnings.items():
        terminal.complain(*(f"warning: case {name!r}: {warning}" for warning in warnings))
    for one in filled.failed:
        terminal.complain(f"warning: case {one.case_id!r} was left out: {one.path}: {one.error}")
    to = terminal.console()
    to.print(f"Wrote {base.where}: {len(base)} cases, {base.malignant} malignant.")
    if filled.there:
        to.print(f"{filled.there} cases of the table were already there.")
    if filled.failed:
        to.print(f"{len(filled.failed)} were left out. Fix the table, then: nodule-diag cases add {base.where} TABLE")


case_views.add(cases_app)
