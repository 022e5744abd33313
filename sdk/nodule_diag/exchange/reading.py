"""Reads positions from a file of any format, recognised by its content."""

from __future__ import annotations

import os
from pathlib import Path

from nodule_diag.ct import CTVolume, Space
from nodule_diag.exchange.position import Position, PositionFile
from nodule_diag.process import LOG
from nodule_diag.tables import read_bytes, text_of

TEXTS = (".csv", ".fcsv", ".json", ".jsonl", ".ndjson", ".tsv", ".txt")
"""Files with these endings are read as text; a DICOM object under such a name is refused."""


def open_positions(path: str | os.PathLike[str]) -> PositionFile:
    """Read positions as the file states them, before their CT is known.

    Args:
        path: A CSV, JSON, JSON Lines, 3D Slicer's ``.mrk.json`` or ``.fcsv``, a list with LUNA's columns, Grand
            Challenge points, or a DICOM SR, SEG or RTSTRUCT; the content decides which.

    Raises:
        UsageError: with all faults of the file at once, each with its line or entry.
    """
    source = Path(path)
    found = _read(source, read_bytes(source))
    for warning in found.warnings:
        LOG.warning("%s: %s", found.format, warning)
    return found


def _read(source: Path, data: bytes) -> PositionFile:
    # pydicom is loaded only for what is DICOM.
    if source.suffix.lower() not in TEXTS and (data[128:132] == b"DICM" or data[:1] in (b"\x02", b"\x08")):
        from nodule_diag.exchange.dicom.objects import is_dicom
        from nodule_diag.exchange.dicom.reading import read_dicom

        if is_dicom(data):
            return read_dicom(source, data)
    from nodule_diag.exchange.documents import LINES, read_document
    from nodule_diag.exchange.tables import is_fcsv, read_fcsv, read_table

    text = text_of(source, data)
    if source.suffix.lower() in (".json", *LINES) or text.lstrip("\ufeff \t\r\n")[:1] in ("[", "{"):
        return read_document(source, text)
    return read_fcsv(source, text) if is_fcsv(text) else read_table(source, text)


def read_positions(
    path: str | os.PathLike[str], *, ct: CTVolume | None = None, space: Space | None = None
) -> tuple[Position, ...]:
    """Read the positions of nodules.

    Args:
        path: As for :func:`open_positions`.
        ct: The CT of the nodules: rows of other series are skipped, and another frame of reference is refused.
        space: The frame of a file that states none; LPS when left out.

    Returns:
        One per nodule, in the order of the file.

    Raises:
        UsageError: As :func:`open_positions`; or the file states another frame than ``space``, or needs a CT.
        CoordinateError: When the positions belong to another CT.
    """
    return open_positions(path).on(ct, space=space)
