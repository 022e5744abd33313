"""The tables of figures in a model card."""

from __future__ import annotations

from .card_history import table_cell
from .results import Row, Section

UNDEFINED = "not defined"


def section_table(section: Section, *, level: int = 3) -> str:
    """A section in Markdown: its heading, its note, its table."""
    lines = [f"{'#' * level} {section.title}", ""]
    if section.note:
        lines += [section.note, ""]
    table = _by_group(section.rows) if any(row.group for row in section.rows) else _by_row(section.rows)
    head, *rows = ["| " + " | ".join(table_cell(cell) for cell in line) + " |" for line in table]
    return "\n".join([*lines, head, f"|{'---|' * len(table[0])}", *rows])


def _by_row(rows: tuple[Row, ...]) -> list[list[str]]:
    """A line for each figure."""
    with_target = any(row.target is not None for row in rows)
    with_note = any(row.note for row in rows)
    table = [["", "value", "95 % interval", "nodules"] + ["target"] * with_target + ["note"] * with_note]
    for row in rows:
        cells = [row.metric, _number(row.value), _interval(row), "" if row.n is None else str(row.n)]
        target = "" if row.target is None else str(row.target)
        table.append(cells + [target] * with_target + [row.note or ""] * with_note)
    return table


def _by_group(rows: tuple[Row, ...]) -> list[list[str]]:
    """A line for each group, a column for each figure; a figure of other nodules than the first one says so."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    table = [["", "nodules", *metrics]]
    for group in dict.fromkeys(row.group for row in rows):
        own = {row.metric: row for row in rows if row.group == group}
        count = next(iter(own.values())).n
        table.append([group or "", "" if count is None else str(count)])
        for metric in metrics:
            cell = ""
            if (row := own.get(metric)) is not None:
                interval = f" [{row.low:.3f}, {row.high:.3f}]" if row.low is not None and row.high is not None else ""
                cell = f"{_number(row.value)}{interval}" + (f", of {row.n}" if row.n != count else "")
            table[-1].append(cell)
    return table


def _number(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.3f}"


def _interval(row: Row) -> str:
    return "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
