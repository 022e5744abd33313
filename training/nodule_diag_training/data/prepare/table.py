"""A table of nodules as CSV: its cells row by row, and all its faults at once."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nodule_diag_training.data.nodule import TrainingDataError

FAULTS_IN_MESSAGE = 20
LONGEST_TEXT = 200
"""Longest text that a bundle's case base takes for a patient's or case's name and for a method."""
Cells = Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True, order=True)
class RowFault:
    """A fault in one cell of the table.

    Attributes:
        line: Line in the file; the header is line 1.
        column: Name of the column.
        message: What is wrong, with the value.
    """

    line: int
    column: str
    message: str

    def __str__(self) -> str:
        """As a line of the error."""
        return f"line {self.line}, {self.column}: {self.message}"


class TableError(TrainingDataError):
    """A table of nodules with faults, all of which are in ``faults``, in the order of the lines."""

    def __init__(self, path: Path, faults: list[RowFault]) -> None:
        self.faults = tuple(sorted(faults))
        shown = [str(fault) for fault in self.faults[:FAULTS_IN_MESSAGE]]
        if len(faults) > FAULTS_IN_MESSAGE:
            shown.append(f"and {len(faults) - FAULTS_IN_MESSAGE} more")
        super().__init__(
            f"{path} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:\n  " + "\n  ".join(shown),
            hint="correct these rows; nothing was prepared",
        )


class TableRow:
    """The cells of a row, and the list that collects their faults.

    Args:
        line: Line in the file.
        cells: Cells by column, in small letters.
        faults: Faults of the whole table.
    """

    def __init__(self, line: int, cells: Cells, faults: list[RowFault]) -> None:
        self.line = line
        self._cells = cells
        self._faults = faults
        if None in cells.values() or None in cells:
            self.fault("row", "has another number of cells than the header")

    def fault(self, column: str, message: str) -> None:
        """Add a fault."""
        self._faults.append(RowFault(line=self.line, column=column, message=message))

    def text(self, column: str, *, required: bool = True, longest: int | None = None) -> str:
        """A cell without the space around it."""
        value = (self._cells.get(column.lower()) or "").strip()
        if required and not value:
            self.fault(column, "is empty")
        if longest is not None and len(value) > longest:
            self.fault(column, f"is longer than {longest} characters")
        return value

    def number(self, column: str) -> float:
        """A finite number; NaN, and a fault, where the cell has none."""
        text = self.text(column)
        if not text:
            return math.nan
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self.fault(column, f"{text!r} is not a finite number")
            return math.nan
        return value


def read_rows(path: Path, faults: list[RowFault]) -> tuple[list[str], list[TableRow]]:
    """The header and the rows of a CSV in UTF-8.

    Args:
        path: The file.
        faults: The list that collects the rows' faults.

    Returns:
        The names of the columns in small letters, and at least one row.

    Raises:
        TrainingDataError: If the file cannot be read or has no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            names = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows = [TableRow(reader.line_num, cells, faults) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingDataError(f"{path} cannot be read: {error}", hint="give a CSV file in UTF-8") from error
    if not rows:
        raise TrainingDataError(f"{path} has no rows", hint="give one row for each nodule")
    return names, rows
