"""A record as one ``.npz``: a JSON header, and two tables of nodules with named columns.

The tables are numpy structured arrays: one row for each nodule, one field for each column. Unknown values are NaN, -1
or an empty text; docs/experiments.md has every column.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER = "header"
TABLES = ("nodules", "cases")
UNKNOWN = -1
"""Stands for a missing diagnosis."""
CAM = ("nodule", "background", "energy", "pointing", "iou", "deletion", "insertion")
CUED = {"as trained": "cued_as_trained", "independent": "cued_independent", "reversed": "cued_reversed"}
FACTS = ("diameter_mm", "malignancy", "expert_score", "dice")
COLUMNS: dict[str, type] = {
    "case_id": np.str_,
    "patient_id": np.str_,
    "form": np.str_,
    "in_paper_cohort": np.bool_,
    "reader_scores": np.str_,
    "label": np.int8,
    "certainty": np.str_,
    **dict.fromkeys((*FACTS, *(f"cam_{name}" for name in CAM), *CUED.values()), np.float32),
}
"""Names and kinds, in their order; a text column is as wide as its longest text."""


class ColumnsError(ValueError):
    """Bytes that are no record."""


def serialised(record: Mapping[str, Any]) -> bytes:
    """The file of a record that was dumped for JSON; equal records give equal bytes with the same version of zlib."""
    header = {name: value for name, value in record.items() if name not in TABLES}
    tables = {name: _table(record[name]) for name in TABLES}
    file = io.BytesIO()
    # numpy gives every member of the archive the same date.
    np.savez_compressed(file, allow_pickle=False, **{HEADER: np.array(json.dumps(header).encode())}, **tables)
    return file.getvalue()


def parse(data: bytes) -> dict[str, Any]:
    """The record in a file's bytes, not yet validated.

    Raises:
        ColumnsError: If the bytes are no such file.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            record: dict[str, Any] = json.loads(file[HEADER].item())
            return record | {name: [_nodule(row) for row in _rows(file[name])] for name in TABLES}
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        said = str(error.args[0]).splitlines() if error.args else []  # a KeyError's own text is quoted
        raise ColumnsError(said[0] if said else type(error).__name__) from error


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _row(nodule: Mapping[str, Any]) -> dict[str, Any]:
    cam = nodule["cam"] or {}
    return {
        "case_id": nodule["case_id"],
        "patient_id": nodule["patient_id"],
        "form": nodule["form"],
        "in_paper_cohort": nodule["in_paper_cohort"],
        "reader_scores": " ".join(map(str, nodule["reader_scores"])),
        "label": UNKNOWN if nodule["label"] is None else nodule["label"],
        "certainty": nodule["certainty"] or "",
        **{name: _number(nodule[name]) for name in FACTS},
        **{f"cam_{name}": _number(cam.get(name)) for name in CAM},
        **{column: _number(nodule["cued"].get(test)) for test, column in CUED.items()},
    }


def _table(nodules: Sequence[Mapping[str, Any]]) -> NDArray[np.void]:
    rows = [_row(nodule) for nodule in nodules]
    columns: dict[str, NDArray[Any]] = {
        name: np.array([row[name] for row in rows], dtype=kind) for name, kind in COLUMNS.items()
    }
    table = np.empty(len(rows), dtype=[(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        table[name] = column
    return table


def _rows(table: NDArray[np.void]) -> list[dict[str, Any]]:
    if table.dtype.names is None:
        raise ColumnsError("a table without columns")
    return [dict(zip(table.dtype.names, row, strict=True)) for row in table.tolist()]


def _nodule(row: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
    cam = {name: known[f"cam_{name}"] for name in CAM}
    return {
        **{name: known[name] for name in ("case_id", "patient_id", "form", "in_paper_cohort", *FACTS)},
        "reader_scores": [int(score) for score in row["reader_scores"].split()],
        "label": None if known["label"] == UNKNOWN else known["label"],
        "certainty": known["certainty"] or None,
        "cam": None if cam["nodule"] is None else cam,
        "cued": {test: known[column] for test, column in CUED.items() if known[column] is not None},
    }
