"""Results as text for people: tables with units that fit 80 columns, plain where the output is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from nodule_diag.results import Diagnosis, SimilarCase

MIN_WIDTH, MAX_WIDTH = 60, 120
LABEL_WIDTH, UNIT_WIDTH, VALUE_WIDTH, GAP = 30, 5, 11, 3  # three nodules side by side are 80 columns
SHOWN_CASES = 5
DISCLAIMER = "For research. Not a medical device; not for diagnosis or treatment."
SPACES = ("machine", "expert", "machine+expert")


def console(*, stderr: bool = False) -> Console:
    """A console on the standard streams, without markup, emoji or automatic colours in text."""
    from rich.console import Console

    width = max(MIN_WIDTH, min(MAX_WIDTH, Console(stderr=stderr).width))
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def progress(message: str) -> Any:  # noqa: ANN401 - rich's Status is imported late
    """A spinner on stderr while something takes time; nothing where stderr is no terminal."""
    return console(stderr=True).status(message)


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


def prediction(document: dict[str, Any], diagnoses: Sequence[Diagnosis], *, to: Console) -> None:
    """Print a prediction: what was read, the nodules side by side, then the similar cases of each."""
    ct, bundle, runtime = document["ct"], document["bundle"], document["runtime"]
    size = " x ".join(map(str, ct["size_xyz"]))
    spacing = " x ".join(f"{step:.3g}" for step in ct["spacing_xyz_mm"])
    facts(
        [
            ("CT", f"{ct['path']}"),
            ("", f"{size} voxels of {spacing} mm, stored as {ct['orientation']}"),
            ("Bundle", f"{bundle['name']} {bundle['version']} (sha256 {bundle['sha256'][:12]})"),
            (
                "Runtime",
                f"{runtime['backend']} on {runtime['device']}, {runtime['precision']}, {runtime['threads']} threads",
            ),
        ],
        to=to,
    )
    for warning in ct.get("warnings", ()):
        to.print(f"warning: {warning}", style="yellow")
    per_table = max(1, (to.width - LABEL_WIDTH - GAP - UNIT_WIDTH) // (GAP + VALUE_WIDTH))
    for first in range(0, len(diagnoses), per_table):
        to.print()
        to.print(_nodules(diagnoses[first : first + per_table]))
    for diagnosis in diagnoses:
        # Warnings about the scan stand in every nodule, so that each can be read alone; here they were said above.
        for warning in (text for text in diagnosis.warnings if text not in ct.get("warnings", ())):
            to.print(f"warning: nodule {diagnosis.id}: {warning}", style="yellow")
    for diagnosis in diagnoses:
        _cases(diagnosis, to=to)
    total = document["timing_ms"]["total"] / 1000
    to.print(f"\n{total:.1f} s. {DISCLAIMER}")


def _nodules(diagnoses: Sequence[Diagnosis]) -> Table:
    """Quantities down, nodules across."""
    made = table("Nodule", "unit")
    made.columns[0].min_width = LABEL_WIDTH
    for diagnosis in diagnoses:
        made.add_column(_short(diagnosis.id), justify="right", overflow="fold", min_width=VALUE_WIDTH)
    first = diagnoses[0]
    rows: list[tuple[str, str, Callable[[Diagnosis], str]]] = [
        *(
            (f"Position {axis} (LPS)", "mm", lambda d, at=at: f"{d.xyz_lps_mm[at]:.2f}")
            for at, axis in enumerate("xyz")
        ),
        ("Voxel x,y,z of the file", "", lambda d: ",".join(map(str, d.voxel_xyz))),
        ("In lung", "", lambda d: "yes" if d.in_lung else "NO"),
        ("Malignancy probability", "0..1", lambda d: f"{d.malignancy:.2f}"),
        ("Expert score (5 = suspicious)", "1..5", lambda d: f"{d.expert_score:.1f}"),
        (f"Similar cases malignant, of {min(first.k, first.cases)}", "", lambda _: ""),
        *((f"  by {space}", "0..1", lambda d, space=space: f"{d.diagnosis[space]:.2f}") for space in SPACES),
        ("  base rate of all cases", "0..1", lambda d: f"{d.base_rate:.2f}"),
        ("Diameter", "mm", lambda d: f"{d.segmentation.diameter_mm:.1f}"),
        ("Volume", "mm3", lambda d: f"{d.segmentation.volume_mm3:.0f}"),
        ("CAM on nodule", "0..1", lambda d: f"{d.faithfulness.cam_nodule:.2f}"),
        ("CAM on background", "0..1", lambda d: f"{d.faithfulness.cam_background:.2f}"),
        ("CAM faithfulness (difference)", "-1..1", lambda d: f"{d.faithfulness.margin:+.2f}"),
        ("Warnings", "", lambda d: str(len(d.warnings)) if d.warnings else "none"),
    ]
    for label, unit, value in rows:
        made.add_row(label, unit, *(value(diagnosis) for diagnosis in diagnoses))
    return made


def _cases(diagnosis: Diagnosis, *, to: Console) -> None:
    """Print the nearest cases by machine+expert."""
    cases = diagnosis.similar["machine+expert"]
    shown = min(SHOWN_CASES, len(cases))
    to.print(
        f"\nCases similar to nodule {_short(diagnosis.id)} by machine+expert, {shown} of {len(cases)} (all: --json)",
        style="bold",
    )
    columns = ("case", "distance", "label", "proven by", "P", "score", "diam mm")
    made = table(*columns, right={"distance", "P", "score", "diam mm"})
    for case in cases[:SHOWN_CASES]:
        made.add_row(*_case(case))
    to.print(made)


def _case(case: SimilarCase) -> tuple[str, ...]:
    size = "-" if case.diameter_mm is None else f"{case.diameter_mm:.1f}"
    source = case.label_source if case.label_certainty == "nodule" else f"{case.label_source} (patient)"
    label = "malignant" if case.label else "benign"
    return (
        case.case_id,
        f"{case.distance:.3f}",
        label,
        source,
        f"{case.malignancy:.2f}",
        f"{case.expert_score:.1f}",
        size,
    )


def _short(text: str) -> str:
    return text if len(text) <= VALUE_WIDTH else f"{text[: VALUE_WIDTH - 2]}.."
