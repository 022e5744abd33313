"""Results as text for people: tables with units that fit 80 columns, plain where the output is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from nodule_diag_cli.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LABEL_WIDTH, VALUE_WIDTH, MIN_MEANING, GAP = 18, 8, 26, 3  # three nodules side by side are 80 columns
SHOWN_CASES = 5


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """A table in the one style of this program: lines only under the head, ASCII where UTF-8 is not possible."""
    from rich import box
    from rich.table import Table

    utf8 = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    made = Table(
        box=box.SIMPLE_HEAD if utf8 else box.ASCII2,
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def columns(*widths: tuple[int | None, Literal["left", "right"]]) -> Table:
    """A table of columns alone, each with a width (None takes what is left) and a side."""
    from rich.table import Table

    made = Table.grid(padding=(0, 1), expand=True)
    for width, side in widths:
        made.add_column(width=width, justify=side, overflow="fold", ratio=1 if width is None else None)
    return made


def facts(rows: Iterable[tuple[str, object]], *, to: Console) -> None:
    """Print names and values in two columns."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, str(value))
    to.print(grid)


def prediction(document: dict[str, Any], *, to: Console) -> None:
    """Print a prediction document: the nodules side by side, their warnings, the similar cases, what computed it."""
    from nodule_diag.results import DISCLAIMER, Runtime

    ct, bundle, nodules = document["ct"], document["bundle"], document["nodules"]
    meaning = MIN_MEANING if len(nodules) > 1 else 0
    per_table = max(1, (to.width - LABEL_WIDTH - GAP - meaning) // (GAP + VALUE_WIDTH))
    for first in range(0, len(nodules), per_table):
        if first:
            to.print()
        to.print(_nodules(nodules[first : first + per_table], prevalence=document["prevalence"]))
    for warning in ct["warnings"]:
        to.print(f"warning: {warning}", style="yellow")
    for nodule in nodules:
        # Warnings about the scan stand in every nodule, so that each can be read alone; here they were said above.
        for warning in (text for text in nodule["warnings"] if text not in ct["warnings"]):
            to.print(f"warning: nodule {nodule['id']}: {warning}", style="yellow")
    for nodule in nodules:
        _cases(nodule, to=to)
    size = " x ".join(map(str, ct["size_xyz"]))
    spacing = " x ".join(f"{step:.3g}" for step in ct["spacing_xyz_mm"])
    to.print()
    cases = document["cases"]
    compared = [("Cases", f"{cases['count']} of {cases['name']} where {cases['where']}")] if cases["where"] else []
    facts(
        [
            ("CT", ct["path"]),
            ("", f"{size} voxels of {spacing} mm, stored as {ct['orientation']}"),
            *compared,
            ("Bundle", f"{bundle['name']} {bundle['version']} (sha256 {bundle['sha256'][:12]})"),
            ("Runtime", f"{Runtime(**document['runtime']).label}, {document['timing_ms']['total'] / 1000:.1f} s"),
        ],
        to=to,
    )
    to.print(DISCLAIMER)


def _nodules(nodules: Sequence[dict[str, Any]], *, prevalence: float | None) -> Table:
    """Figures down, nodules across, and what each figure means."""
    from rich.text import Text

    from nodule_diag.results import figures

    made = table("Nodule")
    made.columns[0].min_width = LABEL_WIDTH
    for nodule in nodules:
        made.add_column(_short(nodule["id"]), justify="right", overflow="fold", min_width=VALUE_WIDTH)
    made.add_column("", style="dim")
    for rows in zip(*(figures(nodule, prevalence=prevalence) for nodule in nodules), strict=True):
        label, _, meaning = rows[0]
        weight = "" if label.startswith(" ") else "bold"
        made.add_row(Text(label, weight), *(Text(printable(row.value), weight) for row in rows), meaning)
    return made


def _cases(nodule: dict[str, Any], *, to: Console) -> None:
    """Print the nearest cases by machine+expert."""
    cases = nodule["similar"]["machine+expert"]
    shown = cases[:SHOWN_CASES]
    title = f"Cases most like nodule {_short(nodule['id'])}"
    to.print()
    to.print(f"{title}, {len(shown)} of {len(cases)} (all: --json)", style="bold")
    made = table("case", "diagnosis", "P", "score", "diam mm", "known by", right={"P", "score", "diam mm"})
    made.columns[0].no_wrap = True
    for case in shown:
        made.add_row(
            case["case_id"],
            "malignant" if case["label"] else "benign",
            f"{case['malignancy']:.2f}",
            f"{case['expert_score']:.1f}",
            "-" if case["diameter_mm"] is None else f"{case['diameter_mm']:.1f}",
            case["label_source"] + (" (patient)" if case["label_certainty"] == "patient" else ""),
        )
    to.print(made)


def _short(text: str) -> str:
    return text if len(text) <= VALUE_WIDTH else f"{text[: VALUE_WIDTH - 2]}.."
