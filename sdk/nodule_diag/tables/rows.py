"""The rows of a CSV, whatever stands between its cells."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nodule_diag.tables.content import MAX_POSITIONS
from nodule_diag.tables.numbers import number

XYZ = tuple[float, float, float]


class _Row(NamedTuple):
    """Cells, and the line that they end in."""

    line: int
    cells: Sequence[str]


class Table:
    """A CSV with comma, semicolon or tab between cells; decimal commas where the cells have another delimiter.

    Iterating yields the rows below the header that have as many cells as the header, each with its last line.

    Attributes:
        path: The file.
        names: The columns' names, as they are written; none in an empty file.
        faults: What is wrong, each with its line; grows while rows and numbers are read.
        delimiter: The character between cells.
    """

    def __init__(self, path: Path, text: str) -> None:
        head = next((line for line in text.splitlines() if line.strip()), "")
        said = re.fullmatch(r"sep=(.)", head.strip())  # Excel's own first line
        self.path, self.delimiter, self.faults = path, said[1] if said else max(",;\t", key=head.count), list[str]()
        self._rows = _rows(text, self.delimiter, self.faults)
        self._separators: set[str] = set()
        if said:
            next(self._rows, None)
        names = next(self._rows, None)
        self.names = [cell.strip() for cell in names.cells] if names else []

    def __iter__(self) -> Iterator[tuple[str, Sequence[str]]]:
        """The place of each row, and its cells."""
        for line, cells in self._rows:
            if len(cells) == len(self.names):
                yield f"line {line}", cells
            else:
                self.faults.append(f"line {line}: {len(cells)} cells instead of {len(self.names)}")
        if len(self._separators) > 1 and not self.faults:
            self.faults.append("decimal points and decimal commas stand in it")

    def number(self, cell: str) -> float:
        """A cell as a number.

        Raises:
            ValueError: when it is none.
        """
        self._separators.update(sign for sign in ".," if sign in cell)
        return number(cell, comma=self.delimiter != ",")

    def point(self, cells: Sequence[str], at: Sequence[int], place: str) -> XYZ | None:
        """Three cells as numbers; None where a fault was added."""
        return point(cells, at, place, self.faults, read=self.number)


def _rows(text: str, delimiter: str, faults: list[str]) -> Iterator[_Row]:
    """The rows that are not empty; reading stops at a fault of the quoting."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=delimiter, strict=True)
    filled = (cells for cells in reader if any(cell.strip() for cell in cells))
    try:
        for count, cells in enumerate(filled):
            if count > MAX_POSITIONS:
                faults.append(f"more than {MAX_POSITIONS} rows")
                return
            yield _Row(reader.line_num, cells)
    except csv.Error as error:
        faults.append(f"line {reader.line_num}: {error}")


def point(
    cells: Sequence[str], at: Sequence[int], place: str, faults: list[str], *, read: Callable[[str], float] = number
) -> XYZ | None:
    """Three cells as numbers; None where they are invalid, with an entry in ``faults``."""
    found = []
    for axis, column in zip("xyz", at, strict=True):
        try:
            found.append(read(cells[column]))
        except ValueError:
            faults.append(f"{place}: {axis} = {cells[column][:40]!r} is not a finite number")
    return (found[0], found[1], found[2]) if len(found) == 3 else None
