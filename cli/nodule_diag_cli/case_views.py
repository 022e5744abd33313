"""``nodule-diag cases list|info|verify|evaluate``: what looks at a case base and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodule_diag.errors import UsageError
from nodule_diag.process import document_text
from nodule_diag_cli import render, terminal
from nodule_diag_cli.options import BundleOption, JsonOption, KOption, WhereOption

if TYPE_CHECKING:
    from nodule_diag.cases import CaseBase

SCHEMA, LIST_SCHEMA = "nodule-diag/cases/1", "nodule-diag/cases-list/1"
EVALUATION_SCHEMA, VERIFIED_SCHEMA = "nodule-diag/cases-evaluation/1", "nodule-diag/cases-verified/1"
SHOWN = 100
"""Cases that are listed on a screen if nobody says how many."""

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Case base.")]
OwnFileArgument = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="Case base; the bundle's if omitted.", show_default=False)
]


def add(app: typer.Typer) -> None:
    """Add the commands to ``nodule-diag cases``."""
    app.command("list")(list_cases)
    app.command()(info)
    app.command()(verify)
    app.command()(evaluate)


def list_cases(
    file: OwnFileArgument = None,
    bundle: BundleOption = None,
    where: WhereOption = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Show at most N cases; --json has all.")] = SHOWN,
    as_json: JsonOption = False,
) -> None:
    """List the cases, or only those that match: what is known of each case, and the model's P and score."""
    from nodule_diag.cases import matching, rows

    base = _opened(file, bundle)
    found = matching(base, where)
    shown = found if as_json or len(found) <= limit else found[:limit]
    cases = list(rows(base, [case_id for case_id, _ in shown] if len(shown) < len(base) else None))
    if as_json:
        terminal.write(document_text({"schema": LIST_SCHEMA, "path": base.where, "where": where, "cases": cases}))
        return
    made = render.table("case", "patient", "diagnosis", "P", "score", "diam mm", "known by", "", right=_NUMBERS)
    for case in cases:
        made.add_row(
            case["case_id"],
            case["patient_id"],
            "malignant" if case["label"] else "benign",
            f"{case['malignancy']:.2f}",
            f"{case['expert_score']:.1f}",
            "-" if case["diameter_mm"] is None else f"{case['diameter_mm']:.1f}",
            case["label_source"] + (" (patient)" if case["label_certainty"] == "patient" else ""),
            ", ".join(f"{name} {value}" for name, value in case["columns"].items()),
        )
    to = terminal.console()
    to.print(made)
    rest = f"; the first {limit} are shown" if len(cases) < len(found) else ""
    to.print(f"{len(found)} cases, {sum(label for _, label in found)} malignant{rest}.")


_NUMBERS = {"P", "score", "diam mm"}


def info(file: OwnFileArgument = None, bundle: BundleOption = None, as_json: JsonOption = False) -> None:
    """Describe a case base: its numbers of cases, and the model that gave their scores."""
    document = describe(_opened(file, bundle))
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
            ("Diagnosed themselves", f"{sure}; the others have their patient's diagnosis"),
            ("With pictures", document["pictures"]),
            ("Free columns", ", ".join(document["columns"]) or "none"),
            ("Model sha256", document["model_sha256"]),
            ("File sha256", document["sha256"]),
            ("Digest of the rows", document["digest"]),
        ],
        to=terminal.console(),
    )


def verify(file: FileArgument, bundle: BundleOption = None, as_json: JsonOption = False) -> None:
    """Check every page and value of a case base; with --bundle, also that its scores are from that model."""
    from nodule_diag.bundle import Bundle
    from nodule_diag.cases import CaseBase

    base = CaseBase.open(file)
    base.verify()
    of = ""
    if bundle is not None:
        opened = Bundle.open(bundle)
        base.of_model(opened)
        of = f", with scores from the model of {opened.manifest.name}"
    if as_json:
        terminal.write(document_text({"schema": VERIFIED_SCHEMA, "path": base.where, "count": len(base)}))
        return
    terminal.console().print(f"{file} is intact: {len(base)} cases{of}.")


def evaluate(
    file: OwnFileArgument = None,
    bundle: BundleOption = None,
    where: WhereOption = None,
    k: KOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate diagnosis by similar cases (Table 2 of the paper): each case against those of other patients."""
    from nodule_diag.cases import DEFAULT_K, evaluate_cases, selected

    base = _opened(file, bundle)
    if where is not None:
        base = selected(base, where)
    with terminal.progress(f"diagnosing {len(base)} cases"):
        found = evaluate_cases(base, k=DEFAULT_K if k is None else k)
    document = {"schema": EVALUATION_SCHEMA, "path": base.where, "name": base.name, "where": where} | found
    if as_json:
        terminal.write(document_text(document))
        return
    to = terminal.console()
    _show_evaluation(document)
    to.print()
    to.print(
        f"{found['count']} cases of {found['patients']} patients, {found['malignant']} malignant: calling all of them"
        f" malignant has accuracy {found['base_rate']:.2f}. Each case was compared with cases of other patients,"
        f" K = {found['k']}. In brackets: 95 % interval over patients. Balanced: as if half of the cases were benign."
        " All figures: --json."
    )


def _show_evaluation(document: dict[str, Any]) -> None:
    to = terminal.console()
    made = render.table("by", "AUC", "accuracy", "sens", "spec")
    for row in document["rows"]:
        balanced = ", balanced" if row["form"] == "balanced" else ""
        method = "P of the model" if row["method"] == "malignancy" else row["method"]
        wide = (_figure(row[name], interval=True) for name in ("auc", "accuracy"))
        made.add_row(f"{method}{balanced}", *wide, *(_figure(row[name]) for name in ("sensitivity", "specificity")))
    to.print(made)


def _figure(estimate: dict[str, float | None], *, interval: bool = False) -> str:
    if estimate["value"] is None:
        return "-"
    around = f" ({estimate['low']:.2f}-{estimate['high']:.2f})" if interval and estimate["low"] is not None else ""
    return f"{estimate['value']:.2f}{around}"


def _opened(file: Path | None, bundle: Path | None) -> CaseBase:
    from nodule_diag.bundle import Bundle
    from nodule_diag.cases import CaseBase

    if file is not None and bundle is not None:
        raise UsageError(f"both {file} and --bundle are given", hint="give one of them")
    if file is None:
        return CaseBase.of_bundle(Bundle.default() if bundle is None else Bundle.open(bundle))
    return CaseBase.open(file)


def describe(base: CaseBase) -> dict[str, Any]:
    """The document of ``cases info --json``."""
    from nodule_diag.cases import rows

    cases = list(rows(base))
    count, malignant = len(cases), sum(case["label"] for case in cases)
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
        "patients": len({case["patient_id"] for case in cases}),
        "diagnosed_themselves": sum(case["label_certainty"] == "nodule" for case in cases),
        "pictures": base.pictured,
        "columns": sorted({name for case in cases for name in case["columns"]}),
    }
