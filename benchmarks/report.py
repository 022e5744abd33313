"""One page of Markdown from results: bounds, tables, plots, machines and commands, all from the results alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.environment import Environment
from benchmarks.results import Cell, Check, Part, Table
from nodule_diag.errors import OutputError, UsageError
from nodule_diag.process import write_bytes

QUIET_LOAD = 0.5
"""Load average per core from which the page says that the machine was not quiet."""
LINES = 3
"""Significant digits of a number below 1000."""


def write_report(parts: Sequence[Part], *, out: Path, plots: Path) -> None:
    """Write the page and its plots.

    Args:
        parts: At most one of each name.
        out: The Markdown file.
        plots: A folder for the pictures.

    Raises:
        UsageError: Without parts, or with two of one name.
        OutputError: If a file cannot be written.
    """
    names = [part.part for part in parts]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            f"the results are of the parts {', '.join(names) or 'none'}; a page takes each once",
            hint="name one file a part",
        )
    try:
        plots.mkdir(parents=True, exist_ok=True)
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {error.filename}: {error.strerror}", hint="name another") from error
    from benchmarks.plots import draw

    for part in parts:
        for table in part.tables:
            if table.plot is not None:
                draw(table, plots / f"{table.name}.png")
    folder = Path(os.path.relpath(plots, out.parent)).as_posix()
    write_bytes(out, page(parts, plots=folder).encode())


def page(parts: Sequence[Part], *, plots: str) -> str:
    """The page.

    Args:
        parts: In the order of the page.
        plots: The folder of the pictures, relative to the page.
    """
    environments = list(dict.fromkeys(_machine(part.environment) for part in parts))
    lines = ["# Speed", ""]
    if any(part.quick for part in parts):
        lines += ["**Some parts ran with `--quick`: their numbers only show that they work.**", ""]
    lines += ["Written by `nodule-diag bench report` from the JSON of the parts below; each names its command.", ""]
    lines += [
        "p90 and p99 interpolate between the measured calls: with few calls, both are close to the slowest call."
        " *Settled*: the last windows of calls agreed within the part's bound before its time was spent.",
        "",
    ]
    lines += [f"- {environment}" for environment in environments]
    lines += [f"- {_versions(part.environment)}" for part in parts[:1]]
    lines += ["", *_check_lines(parts)]
    for part in parts:
        lines += _part_lines(part, plots)
    return "\n".join(lines) + "\n"


def _machine(environment: Environment) -> str:
    memory = "" if environment.memory_gib is None else f", {environment.memory_gib:.0f} GiB"
    flags = f" ({', '.join(environment.cpu_flags)})" if environment.cpu_flags else ""
    threads = f"{environment.threads} thread{'s' if environment.threads > 1 else ''}"
    return f"{environment.cpu}{flags}, {environment.cores} cores{memory}; {threads}; {environment.platform}"


def _versions(environment: Environment) -> str:
    named = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    return f"Python {environment.python}, {named}"


def _check_lines(parts: Iterable[Part]) -> list[str]:
    found = [(part, check) for part in parts for check in part.checks]
    if not found:
        return []
    rows = [
        (check.name, _measured(check.value, check), _bound(check), _verdict(check), part.part) for part, check in found
    ]
    return ["## What should hold", "", *_markdown(("what", "measured", "bound", "", "part"), rows), ""]


def _measured(value: float, check: Check) -> str:
    return f"{number(value)} {check.unit}".strip()


def _bound(check: Check) -> str:
    return f"{check.rule} {_measured(check.limit, check)}"


def _verdict(check: Check) -> str:
    return "holds" if check.holds else "**missed**"


def _part_lines(part: Part, plots: str) -> list[str]:
    environment = part.environment
    load = environment.load_average[0]
    busy = " The machine was not quiet." if load > QUIET_LOAD * environment.cores else ""
    commit = f" at {environment.commit}" if environment.commit else ""
    lines = [f"## {part.title}", "", f"`{part.command}`", ""]
    lines += [
        f"{part.subject}; {environment.date}{commit}; load average at the start {load:.2f};"
        f" took {part.wall_s:.0f} s.{busy}",
        "",
    ]
    for table in part.tables:
        lines += _table_lines(table, plots)
    lines += [f"- {note}" for note in part.notes]
    return lines + [""] * bool(part.notes)


def _table_lines(table: Table, plots: str) -> list[str]:
    rows = [tuple(cell_text(cell) for cell in row) for row in table.rows]
    lines = [f"### {table.title}", "", *_markdown([column.label for column in table.columns], rows), ""]
    if table.note:
        lines += [table.note, ""]
    if table.plot is not None:
        lines += [f"![{table.title}]({plots}/{table.name}.png)", ""]
    return lines


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; a bar in a cell would end the cell."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    return [line(heads), "|" + "---|" * len(heads), *map(line, rows)]


def cell_text(cell: Cell) -> str:
    """A cell as readable text."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return cell if isinstance(cell, str) else number(cell)


def number(value: float) -> str:
    """Three significant digits; whole from 100 on."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{LINES}g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}"
