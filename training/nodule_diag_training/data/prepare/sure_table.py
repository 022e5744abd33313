"""The table of diagnosed nodules that ``prepare sure`` reads: every fault in it is found before any CT is opened."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nodule_diag_training.data.nodule import TrainingDataError

REQUIRED = ("path", "x", "y", "z", "label", "patient")
SIZES = {"radius": 2.0, "diameter": 1.0}
"""Columns for the nodule's size, mm, one of which is needed, and what makes a diameter of each."""
OPTIONAL = ("method", "case")
LABELS = {"0": 0, "benign": 0, "1": 1, "malignant": 1}
DIAMETER_FROM_MM = 3.0
DIAMETER_BELOW_MM = 30.0
"""The nodules that the paper takes (4.1); a larger one does not fit the network's cube."""
FAULTS_IN_MESSAGE = 20
TEXTS = ("patient", "method")
LONGEST_TEXT = 200
"""What a bundle's case base takes."""


@dataclass(frozen=True, kw_only=True)
class SureRow:
    """One diagnosed nodule.

    Attributes:
        line: In the file, where the header is 1.
        path: The CT: anything that the SDK reads.
        center_xyz_mm: LPS mm.
        diameter_mm: As annotated.
        malignant: 1 malignant, 0 benign.
        patient: What folds are split by.
        method: How it was diagnosed, in words; empty where the table has none.
        name: What the table calls the case; empty where it has no names.
    """

    line: int
    path: Path
    center_xyz_mm: tuple[float, float, float]
    diameter_mm: float
    malignant: int
    patient: str
    method: str
    name: str

    @property
    def case_id(self) -> str:
        """Its name, or else patient, CT and position, which stay when rows are added or sorted."""
        x, y, z = self.center_xyz_mm
        return self.name or f"{self.patient}/{self.path.name}@{x:g},{y:g},{z:g}"


@dataclass(frozen=True, kw_only=True, order=True)
class RowFault:
    """What is wrong in one place of the table.

    Attributes:
        line: In the file, where the header is 1.
        column: Its name.
        message: What is wrong, with the value.
    """

    line: int
    column: str
    message: str

    def __str__(self) -> str:
        """As a line of the error."""
        return f"line {self.line}, {self.column}: {self.message}"


class SureTableError(TrainingDataError):
    """A table of diagnosed nodules with faults, all of which are in ``faults``."""

    code = "sure-table"

    def __init__(self, path: Path, faults: tuple[RowFault, ...]) -> None:
        self.faults = faults
        shown = [str(fault) for fault in faults[:FAULTS_IN_MESSAGE]]
        if len(faults) > FAULTS_IN_MESSAGE:
            shown.append(f"and {len(faults) - FAULTS_IN_MESSAGE} more")
        super().__init__(
            f"{path} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:\n  " + "\n  ".join(shown),
            hint="correct these rows; nothing was prepared",
        )


class _Row:
    """The cells of a row, and the faults found in them."""

    def __init__(self, line: int, cells: Mapping[str, str | None], faults: list[RowFault]) -> None:
        self._line = line
        self._cells = cells
        self._faults = faults

    def fault(self, column: str, message: str) -> None:
        self._faults.append(RowFault(line=self._line, column=column, message=message))

    def text(self, column: str, *, required: bool = True) -> str:
        value = (self._cells.get(column) or "").strip()
        if required and not value:
            self.fault(column, "is empty")
        if column in TEXTS and len(value) > LONGEST_TEXT:
            self.fault(column, f"is longer than {LONGEST_TEXT} characters")
        return value

    def number(self, column: str) -> float:
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


def read_sure_table(path: Path) -> list[SureRow]:
    """Read and check a CSV of diagnosed nodules.

    Args:
        path: UTF-8, with the columns path, x, y, z (LPS mm), radius or diameter (mm), label (0/1 or benign/malignant),
            patient, and optionally method and case (its name). A CT's relative path is relative to the table's folder.

    Raises:
        SureTableError: With every fault of every row.
        TrainingDataError: If the file cannot be read, lacks a column or has no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            names = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            size = _check_columns(path, names)
            rows = [(reader.line_num, cells) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingDataError(f"{path} cannot be read: {error}", hint="give a CSV file in UTF-8") from error
    if not rows:
        raise TrainingDataError(f"{path} has no rows", hint="give one row for each nodule")
    faults: list[RowFault] = []
    parsed = [_parse(line, cells, size, path.parent, faults) for line, cells in rows]
    _check_together(parsed, faults)
    if faults:
        raise SureTableError(path, tuple(sorted(faults)))
    return parsed


def _check_columns(path: Path, names: list[str]) -> str:
    """The column of the size."""
    missing = [name for name in REQUIRED if name not in names]
    sizes = [name for name in SIZES if name in names]
    if len(sizes) != 1:
        missing.append("one of radius and diameter")
    unknown = [name for name in names if name not in (*REQUIRED, *SIZES, *OPTIONAL)]
    if missing or unknown or len(set(names)) != len(names):
        told = [f"needs {', '.join(missing)}"] if missing else []
        told += [f"has unknown columns {', '.join(map(repr, unknown))}"] if unknown else []
        told += ["names a column twice"] if len(set(names)) != len(names) else []
        raise TrainingDataError(
            f"{path} {' and '.join(told)}",
            hint=f"columns: {', '.join(REQUIRED)}, radius or diameter[, {', '.join(OPTIONAL)}]",
        )
    return sizes[0]


def _parse(line: int, cells: Mapping[str, str | None], size: str, folder: Path, faults: list[RowFault]) -> SureRow:
    row = _Row(line, cells, faults)
    if None in cells.values() or None in cells:
        row.fault("row", "has another number of cells than the header")
    name = row.text("path")
    ct = (folder / name).resolve()
    if name and not ct.exists():
        row.fault("path", f"{ct} does not exist")
    center = (row.number("x"), row.number("y"), row.number("z"))
    diameter = SIZES[size] * row.number(size)
    if math.isfinite(diameter) and not DIAMETER_FROM_MM <= diameter < DIAMETER_BELOW_MM:
        row.fault(size, f"the diameter is {diameter:g} mm, not {DIAMETER_FROM_MM:g} to below {DIAMETER_BELOW_MM:g} mm")
    label = row.text("label")
    if label and label.lower() not in LABELS:
        row.fault("label", f"{label!r} is none of {', '.join(LABELS)}")
    return SureRow(
        line=line,
        path=ct,
        center_xyz_mm=center,
        diameter_mm=diameter,
        malignant=LABELS.get(label.lower(), -1),
        patient=row.text("patient"),
        method=row.text("method", required=False),
        name=row.text("case", required=False),
    )


def _check_together(rows: list[SureRow], faults: list[RowFault]) -> None:
    """A CT belongs to one patient, a nodule stands in one row, and no two cases have one name."""
    named: dict[str, SureRow] = {}
    owner: dict[Path, SureRow] = {}
    seen: dict[tuple[Path, tuple[float, float, float]], SureRow] = {}
    for row in rows:
        first = owner.setdefault(row.path, row)
        if first.patient != row.patient and first.patient and row.patient:
            message = f"{row.patient!r}, but line {first.line} gives the same CT to {first.patient!r}"
            faults.append(RowFault(line=row.line, column="patient", message=message))
        placed = all(map(math.isfinite, row.center_xyz_mm))
        if placed:
            same = seen.setdefault((row.path, row.center_xyz_mm), row)
            if same is not row:
                message = f"the same nodule as in line {same.line}"
                faults.append(RowFault(line=row.line, column="x, y, z", message=message))
                continue
        if (row.name or placed) and (other := named.setdefault(row.case_id, row)) is not row:
            message = f"{row.case_id!r} is what the nodule in line {other.line} is called too; give it a name in case"
            faults.append(RowFault(line=row.line, column="case", message=message))
        if len(row.case_id) > LONGEST_TEXT:
            message = f"{row.case_id!r} is longer than {LONGEST_TEXT} characters; give a short name in case"
            faults.append(RowFault(line=row.line, column="case", message=message))
