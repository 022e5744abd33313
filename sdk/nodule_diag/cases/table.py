"""A table of diagnosed nodules, which a case base is made from: a CSV, or JSON.

Either it has what the model says of each case (``malignancy``, ``expert_score``), or where each nodule is (``path``,
``x``, ``y``, ``z`` in LPS mm), and the model is asked. All faults are told at once, before any CT is opened.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from nodule_diag.cases.case import Case
from nodule_diag.ct import CTVolume, read_ct
from nodule_diag.errors import NoduleDiagError, UsageError
from nodule_diag.results import Diagnosis

ALSO_CALLED = {"case": "case_id", "patient": "patient_id", "method": "label_source", "diameter": "diameter_mm"}
"""What ``train prepare sure`` calls these columns."""
LABELS = {"0": 0, "benign": 0, "1": 1, "malignant": 1}
SCORES = ("malignancy", "expert_score")
FAULTS_IN_MESSAGE = 20
MAX_BYTES = 512 * 2**20
"""Largest table."""


class Place(BaseModel):
    """Where a nodule is that the model has to look at: LPS mm in a CT."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    path: str
    x: float
    y: float
    z: float


class Listed(NamedTuple):
    """A row of a table.

    Attributes:
        case: What is said of it; P and score mean nothing where there is a ``path``.
        path: The CT that the model has to look at; None where the table has P and score.
        xyz_lps_mm: Where in it.
    """

    case: Case
    path: Path | None = None
    xyz_lps_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Predicts(Protocol):
    """What tells P and score: a ``Diagnoser``."""

    def predict(self, ct: CTVolume, points: Sequence[tuple[float, float, float]], /) -> Sequence[Diagnosis]:
        """One diagnosis a point, LPS mm."""


def read_case_table(path: str | os.PathLike[str], *, columns: Sequence[str] = ()) -> list[Listed]:
    """Read a table.

    Args:
        path: A CSV with a header, or JSON: ``{"cases": [{"case_id": ...}, ...]}`` or the list alone.
        columns: Which other columns become free columns of the cases; no other is taken.

    Returns:
        Its rows, in their order. CTs are meant relative to the table's folder.

    Raises:
        UsageError: ``case-table``, with every fault and the line or entry that it stands in.
    """
    file = Path(path)
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig") if len(data) <= MAX_BYTES else ""
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a path with a NUL character
        raise _fault(file, [f"it cannot be read: {getattr(error, 'strerror', None) or error}"]) from error
    if len(data) > MAX_BYTES:
        raise _fault(file, [f"it has more than {MAX_BYTES} bytes"])
    rows = _json_rows(file, text) if file.suffix.lower() == ".json" else _csv_rows(file, text)
    listed: list[Listed] = []
    faults: list[str] = []
    seen: set[str] = set()
    for where, row in rows:
        try:
            entry = _listed(row, folder=file.parent, columns=columns)
            if entry.case.case_id in seen:
                raise ValueError(f"case_id {entry.case.case_id!r} stands twice")
        except ValidationError as error:
            for one in error.errors():
                given = "" if one["type"] == "missing" else f", not {shortened(one['input'])}"
                faults.append(f"{where}, {'.'.join(map(str, one['loc']))}: {one['msg']}{given}")
        except ValueError as error:
            faults.append(f"{where}: {error}")
        else:
            seen.add(entry.case.case_id)
            listed.append(entry)
    if not faults and not listed:
        faults = ["it has no rows"]
    if faults:
        raise _fault(file, faults)
    return listed


def scored(
    listed: Iterable[Listed], load: Callable[[], Predicts], *, on_ct: Callable[[Path], None] = lambda _: None
) -> Iterator[Case]:
    """The cases of a table, those without P and score judged by the model; a CT at a time.

    Args:
        listed: Rows of :func:`read_case_table`; those of one CT in a row open it once.
        load: Gives the model; called when it is needed.
        on_ct: Told of each CT before it is read.

    Yields:
        Cases with the model's raw P and score.

    Raises:
        CTError: When a CT cannot be read; likewise CoordinateError, BackendError.
    """
    model: Predicts | None = None
    for path, rows in groupby(listed, key=lambda entry: entry.path):
        if path is None:
            yield from (entry.case for entry in rows)
            continue
        model = load() if model is None else model
        entries = list(rows)
        on_ct(path)
        try:
            found = model.predict(read_ct(path), [entry.xyz_lps_mm for entry in entries])
        except NoduleDiagError as error:
            error.message = f"{path}, case {entries[0].case.case_id!r}: {error.message}"
            raise
        for entry, diagnosis in zip(entries, found, strict=True):
            # The raw P is the sigmoid of the logit (eq. 4); what a diagnosis says may be recalibrated.
            malignancy = 0.5 + 0.5 * math.tanh(0.5 * diagnosis.logit)
            score = min(max(diagnosis.expert_score, 1.0), 5.0)
            yield entry.case.model_copy(update={"malignancy": malignancy, "expert_score": score})


def _csv_rows(file: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows by the line they end in; empty cells are left out."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise _fault(file, [f"line 1: {', '.join(twice)} stands twice"])
        for row in reader:
            if None in row or None in row.values():
                raise _fault(file, [f"line {reader.line_num}: it has not as many cells as the header"])
            cells = {name.strip(): value.strip() for name, value in row.items()}
            yield f"line {reader.line_num}", {name: value for name, value in cells.items() if value}
    except csv.Error as error:
        raise _fault(file, [f"line {reader.line_num}: {error}"]) from error


def _json_rows(file: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _fault(file, [f"it is not JSON: {error}"]) from error
    entries = document.get("cases") if isinstance(document, dict) else document
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _fault(file, ["it holds no list of cases"])
    yield from ((f"entry {number}", entry) for number, entry in enumerate(entries, 1))


def _listed(row: Mapping[str, Any], *, folder: Path, columns: Sequence[str]) -> Listed:
    cells: dict[str, Any] = {}
    for name, value in row.items():
        called = ALSO_CALLED.get(name, name)
        if called in cells:
            raise ValueError(f"{called} is given twice")
        cells[called] = value
    if missing := [name for name in columns if name not in row and name in Case.model_fields]:
        raise ValueError(f"{', '.join(missing)} cannot be a free column")
    fields: dict[str, Any] = {"label_source": "unknown method", "label_certainty": "nodule"}
    fields |= {name: cells[name] for name in Case.model_fields if name in cells}
    fields["label"] = LABELS.get(str(fields.get("label", "")).lower(), fields.get("label"))
    if isinstance(readers := fields.get("reader_scores"), str):
        fields["reader_scores"] = readers.split()
    if isinstance(free := fields.get("columns", {}), Mapping):
        fields["columns"] = {**free, **{name: _free(row[name]) for name in columns if name in row}}
    if all(name in cells for name in SCORES):
        return Listed(Case(**fields))
    if missing := [name for name in Place.model_fields if name not in cells]:
        raise ValueError(f"neither {' and '.join(SCORES)} nor {', '.join(missing)} is given")
    place = Place.model_validate(cells)
    case = Case(**{**fields, "malignancy": 0.5, "expert_score": 3.0})
    return Listed(case, folder / place.path, (place.x, place.y, place.z))


def _free(value: Any) -> Any:  # noqa: ANN401 - a cell
    """A finite number where a cell is one."""
    if isinstance(value, str):
        for number in (int, float):
            with suppress(ValueError, OverflowError):
                if math.isfinite(found := number(value)):
                    return found
    return value


def _fault(file: Path, faults: Sequence[str]) -> UsageError:
    more = len(faults) - FAULTS_IN_MESSAGE
    told = "; ".join(faults[:FAULTS_IN_MESSAGE]) + (f"; and {more} more" if more > 0 else "")
    return UsageError(
        f"{file} cannot be used as a table of cases: {told}",
        hint="it needs case_id, patient, label, and malignancy and expert_score, or path, x, y, z: docs/case-base.md",
        code="case-table",
    )
