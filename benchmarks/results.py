"""The results of a part of the benchmarks, as JSON: tables of numbers, bounds that must hold, and the measurement.

A table keeps the numbers as they were measured; the report rounds them. :data:`SCHEMA` changes when the form does.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from benchmarks.environment import Environment
from benchmarks.measure import Timing
from nodule_diag.errors import UsageError
from nodule_diag.process import write_bytes

SCHEMA: Final = "nodule-diag/benchmark/1"
Cell = str | float | int | bool | None
"""None means that there is no such number; the table's note or the row says why."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        key: The column's name for programs.
        label: The column's head, with the unit.
    """

    key: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """How a table is drawn.

    Attributes:
        kind: ``bars`` of one column, or ``lines``.
        x: Key of the column along x (lines) or of the bars' names.
        y: Keys of the columns that are drawn.
        y_label: Label of the y axis.
        series: Key of a column that splits the rows into lines of their own.
        log_x: Whether x is logarithmic.
        log_y: Whether y (for bars: their length) is.
    """

    kind: Literal["bars", "lines"]
    x: str
    y: tuple[str, ...]
    y_label: str
    series: str | None = None
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers that belong together.

    Attributes:
        name: The name for file names and programs, as in ``growth-slices``.
        title: The title for readers.
        columns: The columns, in order.
        rows: The rows, with one cell for each column.
        note: What a reader must know.
        plot: How to draw it; None draws nothing.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    plot: Plot | None = None

    def values(self, key: str) -> list[Cell]:
        """A column by its key."""
        at = [column.key for column in self.columns].index(key)
        return [row[at] for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class Check:
    """A bound that the project set itself, and what was measured.

    Attributes:
        name: What must hold.
        value: What was measured.
        rule: Which side of the limit it must lie on.
        limit: The limit.
        unit: Unit of both; empty for ratios and shares.
    """

    name: str
    value: float
    rule: Literal["at least", "at most"]
    limit: float
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the bound holds."""
        return self.value >= self.limit if self.rule == "at least" else self.value <= self.limit


@dataclass(frozen=True, kw_only=True)
class Part:
    """One run of one part.

    Attributes:
        schema: :data:`SCHEMA`.
        part: Name of the part, as in ``nodule-diag bench PART``.
        title: The title for readers.
        command: The command that repeats the measurement.
        settings: The settings, so that ``bench all`` knows which results it has: JSON values by name.
        subject: The CT it ran on.
        quick: Whether the run only shows that the part works: its numbers mean nothing.
        environment: The machine.
        tables: The numbers.
        checks: The bounds.
        timings: Every timing behind the tables.
        notes: Further notes.
        wall_s: Time of the part.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    schema: Literal["nodule-diag/benchmark/1"] = SCHEMA
    part: str
    title: str
    command: str
    settings: dict[str, Cell]
    subject: str
    quick: bool
    environment: Environment
    tables: tuple[Table, ...]
    checks: tuple[Check, ...] = ()
    timings: tuple[Timing, ...] = ()
    notes: tuple[str, ...] = ()
    wall_s: float

    def to_json(self) -> str:
        """The document as JSON."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write the document, whole or not at all.

        Raises:
            OutputError: If it cannot be written.
        """
        write_bytes(path, self.to_json().encode())


PART = TypeAdapter(Part)


def read_part(path: Path) -> Part:
    """Read what :meth:`Part.write` wrote.

    Raises:
        UsageError: If the file cannot be read or is something else.
    """
    try:
        return PART.validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", hint="name files that bench has written"
        ) from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, fault["loc"])) or "its top"
        raise UsageError(
            f"{path} is not a result of nodule-diag bench: {fault['msg']} at {where}", hint="run that part again"
        ) from error
