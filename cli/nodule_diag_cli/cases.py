"""``nodule-diag cases``: case bases of one's own, which ``predict --cases`` compares with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodule_diag.errors import UsageError
from nodule_diag_cli import render, terminal
from nodule_diag_cli.options import (
    BackendName,
    BackendOption,
    BundleOption,
    DeviceOption,
    JsonOption,
    PrecisionName,
    PrecisionOption,
)
from nodule_diag_cli.out import document_text

if TYPE_CHECKING:
    from nodule_diag.cases import CaseBase

SCHEMA = "nodule-diag/cases/1"

cases_app = typer.Typer(help="Make and describe case bases.", no_args_is_help=True, add_completion=False)


@cases_app.command()
def build(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE", help="CSV or JSON: case_id, patient, label; malignancy and expert_score, or path, x, y, z."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The case base to write, a new file.")],
    bundle: BundleOption = None,
    name: Annotated[
        str | None, typer.Option(help="What it is called; the table's file name if left out.", show_default=False)
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="NAME", help="A free column to take over; repeat for more.")
    ] = None,
    backend: BackendOption = BackendName.AUTO,
    device: DeviceOption = "auto",
    precision: PrecisionOption = PrecisionName.AUTO,
) -> None:
    """Make a case base from a table of diagnosed nodules.

    Cases without P and score are judged by the bundle's model, at their place (LPS mm) in their CT.
    """
    from nodule_diag.bundle import Bundle
    from nodule_diag.cases import CaseBase, read_case_table, scored
    from nodule_diag.diagnoser import Diagnoser

    if out.exists():
        raise UsageError(f"{out} is there already", hint="name a new file with --out")
    opened = Bundle.default() if bundle is None else Bundle.open(bundle)
    listed = read_case_table(table, columns=column or ())

    def load() -> Diagnoser:
        return Diagnoser.load(opened, backend=backend.value, device=device, precision=precision.value)

    with terminal.progress(f"judging {sum(row.path is not None for row in listed)} nodules") as say:
        cases = scored(listed, load, on_ct=lambda path: say(f"judging {path}"))
        base = CaseBase.of(cases, name=name or table.stem, model_sha256=opened.model_sha256)
    base.save(out)
    to = terminal.console()
    to.print(f"Wrote {out}: {len(base)} cases, {base.malignant} malignant.")


@cases_app.command()
def info(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A case base; the bundle's own if left out.", show_default=False),
    ] = None,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> None:
    """Describe a case base: how many cases of which kind, and of which model their scores are."""
    from nodule_diag.bundle import Bundle
    from nodule_diag.cases import CaseBase

    if file is not None and bundle is not None:
        raise UsageError(f"both {file} and --bundle are given", hint="give one of them")
    if file is None:
        base = CaseBase.of_bundle(Bundle.default() if bundle is None else Bundle.open(bundle))
    else:
        base = CaseBase.open(file)
    document = describe(base)
    if as_json:
        terminal.write(document_text(document))
        return
    count, malignant, sure = document["count"], document["malignant"], document["diagnosed_themselves"]
    rate = "" if document["base_rate"] is None else f" (base rate {document['base_rate']:.2f})"
    render.facts(
        [
            ("Case base", document["name"]),
            ("File", document["path"]),
            ("Cases", f"{count} of {document['patients']} patients"),
            ("Malignant", f"{malignant}{rate}"),
            ("Diagnosed themselves", f"{sure}; the others take over their patient's diagnosis"),
            ("Free columns", ", ".join(document["columns"]) or "none"),
            ("Model sha256", document["model_sha256"]),
            ("File sha256", document["sha256"]),
            ("Digest of the rows", document["digest"]),
        ],
        to=terminal.console(),
    )


def describe(base: CaseBase) -> dict[str, Any]:
    """The document of ``cases info --json``."""
    cases = list(base)
    count, malignant = len(cases), sum(case.label for case in cases)
    return {
        "schema": SCHEMA,
        "path": base.where,
        "name": base.name,
        "sha256": base.sha256,
        "digest": base.digest(),
        "model_sha256": base.model_sha256,
        "count": count,
        "malignant": malignant,
        "base_rate": malignant / count if count else None,
        "patients": len({case.patient_id for case in cases}),
        "diagnosed_themselves": sum(case.label_certainty == "nodule" for case in cases),
        "columns": sorted({name for case in cases for name in case.columns}),
    }
