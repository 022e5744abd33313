"""A table of diagnosed nodules, from which a case base is made: a CSV, or JSON.

A table either has the model's answers for each case (``malignancy``, ``expert_score``), or the position of each nodule
(``path``, ``x``, ``y``, ``z`` in LPS mm). The model then judges the nodules (:mod:`nodule_diag.cases.judging`). All
faults are reported together, before any CT is opened.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from nodule_diag.bundle import require_plain_json
from nodule_diag.cases.case import Case
from nodule_diag.cases.identity import identity_faults, pseudonym
from nodule_diag.errors import UsageError
from nodule_diag.tables import Table, number, read_bytes, text_of

ALSO_CALLED = {"case": "case_id", "patient": "patient_id", "method": "label_source", "diameter": "diameter_mm"}
"""What ``train prepare sure`` calls these columns."""
LABELS = {"0": 0, "benign": 0, "1": 1, "malignant": 1}
SCORES = ("malignancy", "expert_score")
FAULTS_IN_MESSAGE = 20
_PLAIN = re.compile(r"-?(0|[1-9][0-9]*)([.,][0-9]+)?")
"""A number in a free column. All else stays text: 001 is a code, 1e10 may be one."""


class Place(BaseModel):
    """The position of a nodule that the model has to judge: LPS mm in a CT."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    path: str
    x: float
    y: float
    z: float


class Listed(NamedTuple):
    """A row of a table.

    Attributes:
        case: The case. Its P and score are placeholders where there is a ``path``.
        path: The CT that the model has to judge; None where the table has P and score.
        xyz_lps_mm: The position in the CT.
    """

    case: Case
    path: Path | None = None
    xyz_lps_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def with_case(self, **changed: object) -> Listed:
        """The row, with some of the case's fields changed."""
        return self._replace(case=self.case.model_copy(update=changed))


def read_case_table(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] = (),
    patient_key: bytes | None = None,
    identity: Collection[str] | None = (),
) -> list[Listed]:
    """Read a table of cases.

    Args:
        path: A CSV with a header, or JSON: ``{"cases": [{"case_id": ...}, ...]}`` or the list alone.
        columns: Other columns to keep as free columns of the cases; the rest is ignored.
        patient_key: A secret that turns each patient id into a pseudonym; None where the table has pseudonyms.
        identity: Columns that may identify a patient; None allows any column.

    Returns:
        The rows, in their order. Paths of CTs are relative to the table's folder.

    Raises:
        UsageError: ``case-table``, with every fault and its line or entry; ``case-identity`` when all faults are
            columns that identify patients.
    """
    file = Path(path)
    try:
        text = text_of(file, read_bytes(file))
    except UsageError as error:
        raise UsageError(error.message, hint=_NEEDS, code="case-table") from error
    faults: list[str] = []
    read: Callable[[Any], float] = number
    comma = False
    if file.suffix.lower() == ".json":
        rows = _json_rows(file, text)
    else:
        table = Table(file, text)
        rows, faults, read, comma = _csv_rows(table), table.faults, table.number, table.delimiter != ","
    listed: list[tuple[str, Listed]] = []
    seen: set[str] = set()
    for where, row in rows:
        try:
            entry = _listed(row, folder=file.parent, columns=columns, read=read, comma=comma)
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
            listed.append((where, entry))
    if not faults and not listed:
        faults = ["it has no rows"]
    told = [] if identity is None else _identity(listed, keyed=patient_key is not None, allowed=frozenset(identity))
    if told and not faults:
        hint = "leave the column out; --patient-key makes pseudonyms of patients; --allow-identity COLUMN insists"
        raise _fault(file, told, hint=hint, code="case-identity")
    if faults:
        raise _fault(file, faults + told)
    if patient_key is None:
        return [entry for _, entry in listed]
    return [entry.with_case(patient_id=pseudonym(entry.case.patient_id, patient_key)) for _, entry in listed]


def _identity(rows: Sequence[tuple[str, Listed]], *, keyed: bool, allowed: frozenset[str]) -> list[str]:
    """The fault of each column that would be taken over and identifies patients."""
    keys = ("case_id",) if keyed else ("case_id", "patient_id")
    columns: dict[str, list[tuple[str, object]]] = {}
    for where, (case, *_) in rows:
        cells = {**{name: getattr(case, name) for name in (*keys, "label_source")}, **case.columns}
        for name, value in cells.items():
            columns.setdefault(name, []).append((where, value))
    return [
        fault
        for name, cells in columns.items()
        if allowed.isdisjoint({name, *(other for other, called in ALSO_CALLED.items() if called == name)})
        for fault in identity_faults(name, cells, is_key=name in keys)
    ]


def _csv_rows(table: Table) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows by the line they end in; empty cells, and columns without a name, are left out."""
    if twice := sorted(name for name, times in Counter(filter(None, table.names)).items() if times > 1):
        raise _fault(table.path, [f"line 1: {', '.join(twice)} stands twice"])
    for where, cells in table:
        filled = ((name, cell.strip()) for name, cell in zip(table.names, cells, strict=True))
        yield where, {name: cell for name, cell in filled if name and cell}


def _json_rows(file: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        require_plain_json(text.encode())
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _fault(file, [f"it is not JSON: {error}"]) from error
    entries = document.get("cases") if isinstance(document, dict) else document
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _fault(file, ["it holds no list of cases"])
    yield from ((f"entry {number}", entry) for number, entry in enumerate(entries, 1))


def _listed(
    row: Mapping[str, Any], *, folder: Path, columns: Sequence[str], read: Callable[[Any], float], comma: bool
) -> Listed:
    cells: dict[str, Any] = {}
    for name, value in row.items():
        called = ALSO_CALLED.get(name, name)
        if called in cells:
            raise ValueError(f"{called} is given twice")
        cells[called] = value
    if missing := [name for name in columns if name not in row and name in Case.model_fields]:
        raise ValueError(f"{', '.join(missing)} cannot be a free column")
    scored = all(name in cells for name in SCORES)
    _read_figures(cells, read, names=(*(SCORES if scored else ("x", "y", "z")), "diameter_mm"))
    fields: dict[str, Any] = {"label_source": "unknown method", "label_certainty": "nodule"}
    fields |= {name: cells[name] for name in Case.model_fields if name in cells}
    fields["label"] = LABELS.get(str(fields.get("label", "")).lower(), fields.get("label"))
    if isinstance(free := fields.get("columns", {}), Mapping):
        fields["columns"] = {**free, **{name: _free(row[name], comma=comma) for name in columns if name in row}}
    if scored:
        return Listed(Case(**fields))
    if missing := [name for name in Place.model_fields if name not in cells]:
        raise ValueError(f"neither {' and '.join(SCORES)} nor {', '.join(missing)} is given")
    place = Place.model_validate(cells)
    case = Case(**{**fields, "malignancy": 0.5, "expert_score": 3.0})
    return Listed(case, folder / place.path, (place.x, place.y, place.z))


def _read_figures(cells: dict[str, Any], read: Callable[[Any], float], *, names: Sequence[str]) -> None:
    """Put numbers in the place of their texts, in the columns that are used."""
    if isinstance(readers := cells.get("reader_scores"), str):
        cells["reader_scores"] = readers = readers.split()
    faults: list[str] = []

    def figure(name: str, value: object) -> float | None:
        try:
            return read(value)
        except (ValueError, OverflowError):
            faults.append(f"{name} = {shortened(value)} is not a finite number")
            return None

    cells |= {name: figure(name, cells[name]) for name in names if cells.get(name) is not None}
    if isinstance(readers, list):
        cells["reader_scores"] = [figure("reader_scores", value) for value in readers]
    if faults:
        raise ValueError("; ".join(faults))


def _free(value: Any, *, comma: bool) -> Any:  # noqa: ANN401 - a cell
    """A number where a cell is a plain decimal."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        with suppress(ValueError, OverflowError):  # 1,5 between commas; thousands of digits
            found = int(value) if value.lstrip("-").isdigit() else number(value, comma=comma)
            return found if abs(found) < 2**63 else value
    return value


_NEEDS = "it needs case_id, patient, label, and malignancy and expert_score, or path, x, y, z: docs/case-base.md"


def _fault(file: Path, faults: Sequence[str], *, hint: str = _NEEDS, code: str = "case-table") -> UsageError:
    more = len(faults) - FAULTS_IN_MESSAGE
    told = "; ".join(faults[:FAULTS_IN_MESSAGE]) + (f"; and {more} more" if more > 0 else "")
    return UsageError(f"{file} cannot be used as a table of cases: {told}", hint=hint, code=code)
