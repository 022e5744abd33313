"""LUNA25's table of annotations: every fault in it is found before any CT is opened.

One row is a nodule in one CT. The same nodule has rows for CTs of later years, and a patient can have several nodules.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.prepare.table import LONGEST_TEXT, RowFault, TableError, TableRow, read_rows

COLUMNS: Final = (
    "PatientID",
    "SeriesInstanceUID",
    "StudyDate",
    "CoordX",
    "CoordY",
    "CoordZ",
    "NoduleID",
    "AnnotationID",
    "label",
)
"""The required columns. Other columns are ignored, also LUNA25's LesionID, Age_at_StudyDate and Gender."""
LABELS: Final = {"0": 0, "1": 1}
UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
LONGEST_UID: Final = 64
FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Allowed names of an annotation. Files have this name, and no name may lead out of the folder of images."""


@dataclass(frozen=True, kw_only=True)
class Luna25Row:
    """A nodule in one CT.

    Attributes:
        line: Line in the file; the header is line 1.
        patient: The patient; folds are split by patient, so that all years of a nodule lie on one side.
        series_uid: The CT.
        study_date: Date of the CT, as YYYYMMDD.
        center_xyz_mm: LPS mm.
        nodule: Id of the nodule over the years.
        annotation: Id of the nodule in this CT; unique.
        malignant: 1 malignant, 0 benign.
    """

    line: int
    patient: str
    series_uid: str
    study_date: str
    center_xyz_mm: tuple[float, float, float]
    nodule: str
    annotation: str
    malignant: int


class Luna25TableError(TableError):
    """Faults in LUNA25's table."""

    code = "luna25-table"


def read_luna25_table(path: Path) -> list[Luna25Row]:
    """Read and check LUNA25's CSV.

    Args:
        path: UTF-8, with at least ``COLUMNS``.

    Raises:
        Luna25TableError: With every fault of every row.
        TrainingDataError: If the file cannot be read, lacks a column or has no rows.
    """
    faults: list[RowFault] = []
    names, rows = read_rows(path, faults)
    missing = [name for name in COLUMNS if name.lower() not in names]
    twice = [name for name in COLUMNS if names.count(name.lower()) > 1]
    if missing or twice:
        told = [f"needs {', '.join(missing)}"] if missing else []
        told += [f"names {', '.join(twice)} twice"] if twice else []
        raise TrainingDataError(
            f"{path} {' and '.join(told)}", hint="give LUNA25_Public_Training_Development_Data.csv, or a part of it"
        )
    parsed = [_parse(row) for row in rows]
    _check_together(parsed, faults)
    if faults:
        raise Luna25TableError(path, faults)
    return parsed


def _parse(row: TableRow) -> Luna25Row:
    series = row.text("SeriesInstanceUID")
    if series and (len(series) > LONGEST_UID or not UID.fullmatch(series)):
        row.fault("SeriesInstanceUID", f"{series!r} is not a DICOM UID")
    date = row.text("StudyDate")
    if date and not _is_date(date):
        row.fault("StudyDate", f"{date!r} is not a date as YYYYMMDD")
    annotation = row.text("AnnotationID", longest=LONGEST_TEXT)
    if annotation and not FILE_NAME.fullmatch(annotation):
        row.fault("AnnotationID", f"{annotation!r} has other characters than letters, digits, '_', '.' and '-'")
    label = row.text("label")
    if label and label not in LABELS:
        row.fault("label", f"{label!r} is neither 0 nor 1")
    return Luna25Row(
        line=row.line,
        patient=row.text("PatientID", longest=LONGEST_TEXT),
        series_uid=series,
        study_date=date,
        center_xyz_mm=(row.number("CoordX"), row.number("CoordY"), row.number("CoordZ")),
        nodule=row.text("NoduleID", longest=LONGEST_TEXT),
        annotation=annotation,
        malignant=LABELS.get(label, -1),
    )


def _is_date(text: str) -> bool:
    try:
        return len(text) == len("YYYYMMDD") and text.isdecimal() and bool(datetime.strptime(text, "%Y%m%d"))
    except ValueError:
        return False


def _check_together(rows: list[Luna25Row], faults: list[RowFault]) -> None:
    """Check rows together: a CT has one patient and day, a nodule one patient, an annotation one nodule in one CT."""
    annotated: dict[str, Luna25Row] = {}
    scanned: dict[str, Luna25Row] = {}
    known: dict[str, Luna25Row] = {}
    placed: dict[tuple[str, tuple[float, float, float]], Luna25Row] = {}
    in_ct: dict[tuple[str, str], Luna25Row] = {}

    def fault(row: Luna25Row, column: str, message: str) -> None:
        faults.append(RowFault(line=row.line, column=column, message=message))

    for row in rows:
        if row.annotation and (first := annotated.setdefault(row.annotation, row)) is not row:
            fault(row, "AnnotationID", f"{row.annotation!r} is that of line {first.line} too")
        if row.series_uid:
            first = scanned.setdefault(row.series_uid, row)
            if row.patient and first.patient and first.patient != row.patient:
                fault(
                    row, "PatientID", f"{row.patient!r}, but line {first.line} gives the same CT to {first.patient!r}"
                )
            if row.study_date and first.study_date and first.study_date != row.study_date:
                fault(row, "StudyDate", f"{row.study_date}, but {first.study_date} of the same CT in line {first.line}")
        if row.nodule:
            first = known.setdefault(row.nodule, row)
            if row.patient and first.patient and first.patient != row.patient:
                message = f"{row.nodule!r} of {row.patient!r}, but in line {first.line} of {first.patient!r}"
                fault(row, "NoduleID", message)
            if row.series_uid and (first := in_ct.setdefault((row.series_uid, row.nodule), row)) is not row:
                fault(row, "NoduleID", f"{row.nodule!r} is in the same CT in line {first.line} already")
        if row.series_uid and all(map(math.isfinite, row.center_xyz_mm)):
            first = placed.setdefault((row.series_uid, row.center_xyz_mm), row)
            if first is not row:
                fault(row, "CoordX, CoordY, CoordZ", f"the place of line {first.line} in the same CT")
