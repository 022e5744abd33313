"""The case base as a file: ``cases.json``, which people can read and write, or ``cases.npz`` for up to millions.

``cases.npz`` is what ``numpy.load`` reads: the columns of :class:`CaseTable`, one ``.npy`` each, in an uncompressed
zip. It is read here without unpickling anything or trusting any size it states.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import fields
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import ValidationError

from nodule_diag.cases.case import INDEX_FAULT, CaseBase
from nodule_diag.cases.table import CaseTable
from nodule_diag.errors import BundleError

COLUMNAR_SUFFIX: Final = ".npz"
_COLUMNS: Final = {
    "case_ids": "S",
    "patient_names": "S",
    "patients": "<i4",
    "source_names": "S",
    "sources": "<i4",
    "certain": "|b1",
    "labels": "|u1",
    "malignancy": "<f8",
    "expert_score": "<f8",
    "diameter_mm": "<f8",
    "reader_starts": "<i8",
    "reader_scores": "<f8",
}
"""The dtype of each column; ``S`` of any width."""
_OWN_LENGTH: Final = {"patient_names", "source_names", "reader_starts", "reader_scores"}
"""Columns that do not have a row for each case."""
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The one time stamp of every entry, so that equal case bases are equal files."""


def parse_cases(data: bytes, *, name: str) -> CaseTable:
    """Read a case base.

    Args:
        data: Its bytes, whose hash was checked.
        name: Its path, which ends in ``.npz`` or holds JSON; also for messages.

    Raises:
        BundleError: ``bundle-no-cases`` or ``bundle-index-invalid``.
    """
    if PurePosixPath(name).suffix == COLUMNAR_SUFFIX:
        return _parse_columns(data, name=name)
    try:
        document = CaseBase.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "its top"
        raise _invalid(name, f"at {where}: {fault['msg']}") from error
    return CaseTable.of(document.cases)


def to_json(table: CaseTable) -> bytes:
    """The bytes of ``cases.json``."""
    return (CaseBase(cases=table[:]).model_dump_json(indent=1) + "\n").encode()


def to_columns(table: CaseTable) -> bytes:
    """The bytes of ``cases.npz``; equal tables give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for field in fields(table):
            with archive.open(zipfile.ZipInfo(f"{field.name}.npy", _ZIP_TIME), "w") as entry:
                npy.write_array(entry, np.ascontiguousarray(getattr(table, field.name)), allow_pickle=False)
    return buffer.getvalue()


def _parse_columns(data: bytes, *, name: str) -> CaseTable:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if set(entries) != {f"{column}.npy" for column in _COLUMNS} or len(archive.infolist()) != len(_COLUMNS):
                raise _invalid(name, f"it holds {', '.join(sorted(entries)) or 'nothing'}")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
                raise _invalid(name, "its columns are compressed")
            columns = {
                column: _parse_column(archive.read(f"{column}.npy"), dtype, where=f"{name}, {column}")
                for column, dtype in _COLUMNS.items()
            }
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise _invalid(name, str(error)) from error
    count = len(columns["case_ids"])
    wanted = {column: count for column in _COLUMNS if column not in _OWN_LENGTH} | {"reader_starts": count + 1}
    for column, length in wanted.items():
        if len(columns[column]) != length:
            raise _invalid(name, f"{column} has {len(columns[column])} rows for {count} cases")
    return CaseTable(**columns).checked(name)


def _parse_column(data: bytes, dtype: str, *, where: str) -> NDArray[Any]:
    """One ``.npy``, seen in place: its header must describe exactly the bytes that follow it."""
    buffer = io.BytesIO(data)
    try:
        version = npy.read_magic(buffer)
        shape, _, found = npy.read_array_header_1_0(buffer)
    except ValueError as error:
        raise _invalid(where, str(error)) from error
    right = found.kind == "S" and found.itemsize > 0 if dtype == "S" else found == np.dtype(dtype)
    size = len(data) - buffer.tell()
    if version != (1, 0) or not right or len(shape) != 1 or shape[0] * found.itemsize != size:
        raise _invalid(where, f"it is {found} of shape {shape} in {size} bytes, format {version}")
    return np.frombuffer(data, dtype=found, offset=buffer.tell())


def _invalid(name: str, why: str) -> BundleError:
    return BundleError(f"{name} is invalid: {why}", hint="build the index of the bundle again", code=INDEX_FAULT)
