"""``nodule-diag info``: what a bundle is, what it is for and what it reaches; on request where it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from nodule_diag.process import document_text
from nodule_diag_cli import render, terminal
from nodule_diag_cli.options import BundleOption, JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from nodule_diag.bundle import Bundle

SCHEMA = "nodule-diag/info/1"
YARDSTICK = "Yardstick: "
"""Begins the card's rows of what a figure must be read beside."""
MEASURES = ("AUC", "Spearman", "MAE", "Brier", "Dice")
TARGETS, DIAGNOSED = "Targets", "diagnosed"
"""A card that says what was aimed at has all but the diagnosed nodules in that table, which stands first."""
OTHER_SPACES = ("Retrieval, machine, AUC", "Retrieval, expert, AUC")
"""Left to the card: `predict` shows the cases that are similar in machine+expert."""

FullOption = Annotated[bool, typer.Option("--full", help="Show all provenance: training, files and their hashes.")]


def info(bundle: BundleOption = None, full: FullOption = False, as_json: JsonOption = False) -> None:
    """Describe the bundle: its purpose, figures with their yardsticks, licence and case base."""
    from nodule_diag.bundle import MODEL_CARD_NAME, Bundle

    opened = Bundle.default() if bundle is None else Bundle.open(bundle)
    document = describe(opened)
    if as_json:
        terminal.write(document_text(document))
        return
    to = terminal.console()
    card = opened.read(MODEL_CARD_NAME).decode(errors="replace")
    _render(document, _section(card, "What it is").partition("\n\n")[0], to)
    if full:
        _render_provenance(document, to)
    else:
        _render_figures(card, to)
        to.print()
        to.print(f"More: nodule-diag info --full, and {opened.path / MODEL_CARD_NAME}", soft_wrap=True)


def describe(bundle: Bundle) -> dict[str, Any]:
    """The document of ``info --json``: the manifest, the hash that identifies it, and the size of the case base."""
    from nodule_diag.cases import CaseBase

    base = CaseBase.of_bundle(bundle)
    return {
        "schema": SCHEMA,
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "cases": len(base),
        "malignant": base.malignant,
        "manifest": bundle.manifest.model_dump(mode="json"),
    }


def _render(document: dict[str, Any], what_it_is: str, to: Console) -> None:
    manifest = document["manifest"]
    preprocessing, retrieval = manifest["preprocessing"], manifest["retrieval"]
    masked = ", multiplied by the lung mask" if preprocessing["masked_input"] else ""
    rows = [
        ("Bundle", f"{manifest['name']} {manifest['version']}, made {manifest['created'][:10]}"),
        ("sha256", document["sha256"]),
        ("Licence", manifest["license"]),
        ("For", manifest["intended_use"]),
        ("What it is", " ".join(what_it_is.split()) or "not said in its model card"),
        ("Input", f"a {preprocessing['patch_size'] * preprocessing['spacing_mm']:g} mm cube of the CT{masked}"),
        (
            "Case base",
            f"{document['cases']} diagnosed nodules, {document['malignant'] / document['cases']:.0%} malignant; "
            f"the {retrieval['k']} most similar are shown",
        ),
    ]
    render.facts(rows, to=to)


class Figure(NamedTuple):
    """A row of the model card as it is written there: what, the estimate, its 95 % interval, how many nodules."""

    name: str
    value: str
    interval: str
    nodules: str


def figures(card: str) -> Iterator[tuple[str, list[Figure]]]:
    """By table of a card's "What it reaches": the targets, and figures with a yardstick, each followed by that."""
    parts = [part.partition("\n") for part in f"\n{_section(card, 'What it reaches')}".split("\n### ")[1:]]
    aimed = any(title == TARGETS for title, _, _ in parts)
    for title, _, body in parts:
        lines = (re.split(r"(?<!\\)\|", line)[1:5] for line in body.splitlines())
        cells = [[cell.strip().replace("\\|", "|") for cell in line] for line in lines]
        rows = [Figure(*row) for row in cells if len(row) == 4 and row[0].strip("- ")]
        if aimed and title != TARGETS and DIAGNOSED not in title.lower():
            continue
        if shown := rows if title == TARGETS else list(_beside_yardsticks(rows)):
            yield title, shown


def _beside_yardsticks(rows: list[Figure]) -> Iterator[Figure]:
    """By measure, those that have a yardstick, and then that."""
    for measure in MEASURES:
        of_it = [row for row in rows if measure in row.name and row.name not in OTHER_SPACES]
        if any(row.name.startswith(YARDSTICK) for row in of_it):
            yield from sorted(of_it, key=lambda row: row.name.startswith(YARDSTICK))


def _section(card: str, title: str) -> str:
    """The text below a heading of the second level."""
    return f"\n{card}".partition(f"\n## {title}\n")[2].partition("\n## ")[0].strip()


def _render_figures(card: str, to: Console) -> None:
    found = list(figures(card))
    to.print()
    to.print("What it reaches (value, 95 % interval, nodules)", style="bold")
    if not found:
        to.print("not said in its model card")
    for title, rows in found:
        to.print()
        to.print(f"{title}", style="italic")
        made = render.columns((None, "left"), (6, "right"), (15, "right"), (4, "right"))
        for row in rows:
            name = row.name.replace(YARDSTICK, "  beside: ")
            made.add_row(f"  {name}", *row[1:], style="dim" if row.name.startswith(YARDSTICK) else "")
        to.print(made)


def _render_provenance(document: dict[str, Any], to: Console) -> None:
    manifest = document["manifest"]
    windows = ", ".join(f"{low:g}..{high:g}" for low, high in manifest["preprocessing"]["windows_hu"])
    to.print()
    render.facts(
        [
            ("Path", document["path"]),
            ("Made", manifest["created"]),
            ("Windows", f"{windows} HU"),
            ("Model", f"{manifest['model']['file']}, ONNX opset {manifest['model']['opset']}"),
        ],
        to=to,
    )
    if manifest["training"]:
        to.print()
        to.print("Training", style="bold")
        render.facts(((f"  {name}", _flat(value)) for name, value in manifest["training"].items()), to=to)
    to.print()
    files = render.table("file", "sha256")
    for name, digest in manifest["files"].items():
        files.add_row(name, digest)
    to.print(files)


def _flat(value: object) -> str:
    """A JSON value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return str(value)
