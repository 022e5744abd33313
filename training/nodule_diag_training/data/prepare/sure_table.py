"""The table of diagnosed nodules that ``prepare sure`` reads: every fault in it is found before any CT is opened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.prepare.table import LONGEST_TEXT, RowFault, TableError, TableRow, read_rows

REQUIRED = ("path", "x", "y", "z", "label", "patient")
SIZES = {"radius": 2.0, "diameter": 1.0}
"""Columns for the nodule's size in mm, one of which is required, and the factor from each to a diameter."""
OPTIONAL = ("method", "case")
LABELS = {"0": 0, "benign": 0, "1": 1, "malignant": 1}
DIAMETER_FROM_MM = 3.0
DIAMETER_BELOW_MM = 30.0
"""The limit of the paper's nodules (4.1); a larger nodule does not fit the network's cube."""


@dataclass(frozen=True, kw_only=True)
class SureRow:
    """One diagnosed nodule.

    Attributes:
        line: Line in the file; the header is line 1.
        path: The CT: anything that the SDK reads.
        center_xyz_mm: LPS mm.
        diameter_mm: Diameter as annotated.
        malignant: 1 malignant, 0 benign.
        patient: The patient; folds are split by patient.
        method: How the nodule was diagnosed, in words; empty where the table has no method.
        name: The table's name for the case; empty where it has no names.
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
        """The case's name, or else patient, CT and position, which stay the same when rows are added or sorted."""
        x, y, z = self.center_xyz_mm
        return self.name or f"{self.patient}/{self.path.name}@{x:g},{y:g},{z:g}"


class SureTableError(TableError):
    """Faults in a table of diagnosed nodules."""

    code = "sure-table"


def read_sure_table(path: Path) -> list[SureRow]:
    """Read and check a CSV of diagnosed nodules.

    Args:
        path: UTF-8, with the columns path, x, y, z (LPS mm), radius or diameter (mm), label (0/1 or benign/malignant),
            patient, and optionally method and case (its name). A CT's relative path is relative to the table's folder.

    Raises:
        SureTableError: With every fault of every row.
        TrainingDataError: If the file cannot be read, lacks a column or has no rows.
    """
    faults: list[RowFault] = []
    names, rows = read_rows(path, faults)
    size = _check_columns(path, names)
    parsed = [_parse(row, size, path.parent) for row in rows]
    _check_together(parsed, faults)
    if faults:
        raise SureTableError(path, faults)
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


def _parse(row: TableRow, size: str, folder: Path) -> SureRow:
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
        line=row.line,
        path=ct,
        center_xyz_mm=center,
        diameter_mm=diameter,
        malignant=LABELS.get(label.lower(), -1),
        patient=row.text("patient", longest=LONGEST_TEXT),
        method=row.text("method", required=False, longest=LONGEST_TEXT),
        name=row.text("case", required=False),
    )


def _check_together(rows: list[SureRow], faults: list[RowFault]) -> None:
    """Check rows together: a CT belongs to one patient, a nodule has one row, and no two cases have the same name."""
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
