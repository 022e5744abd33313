"""Tables: CSV with ``x,y,z``, LUNA16's and LUNA25's columns, and 3D Slicer's ``.fcsv``."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nodule_diag.ct import Space
from nodule_diag.exchange.position import Mark, PositionFile
from nodule_diag.exchange.refusals import refused
from nodule_diag.tables import MAX_POSITIONS, Table, point

PLAIN, LUNA = ("x", "y", "z"), ("coordx", "coordy", "coordz")
IDS = ("id", "annotationid")
"""LUNA25's NoduleID is repeated in later years, its AnnotationID is not."""
SERIES = ("seriesuid", "seriesinstanceuid", "series_uid")
FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
FCSV_SPACES: dict[str, Space] = {"LPS": "lps", "1": "lps", "RAS": "ras", "0": "ras"}
FCSV_STATUS_COLUMN = 14
"""The unnamed column in which Slicer 4.13 and later write whether a point was placed."""
_FCSV_DEFINED = "2"
_SETTING = re.compile(r"#\s*(CoordinateSystem|columns)\s*=\s*(.+)")


def is_fcsv(text: str) -> bool:
    """Whether a text begins like a fiducial list of 3D Slicer."""
    return bool(re.match(r"# (Markups fiducial file version|CoordinateSystem)\b", text.lstrip("\ufeff \r\n")))


def read_table(path: Path, text: str) -> PositionFile:
    """Read a CSV.

    Raises:
        UsageError: with all faults at once, each with its line.
    """
    table = Table(path, text)
    if not table.names:
        raise refused(path, table.faults or ["no nodule in it"])
    columns = _columns(path, table.names, table.delimiter)
    xyz = [columns[name] for name in (LUNA if LUNA[0] in columns else PLAIN)]
    called = next((columns[name] for name in IDS if name in columns), None)
    series = next((columns[name] for name in SERIES if name in columns), None)
    marks: list[Mark] = []
    for place, cells in table:
        name = None if called is None else cells[called].strip() or None
        marks.append(Mark(place, table.point(cells, xyz, place), name, "" if series is None else cells[series].strip()))
    if table.faults or not marks:
        raise refused(path, table.faults or ["no nodule in it"])
    luna = LUNA[0] in columns
    text_format = "a list with LUNA's columns" if luna else "a CSV"
    return PositionFile(path, text_format, "lps" if luna else None, tuple(marks), names_are_ids=True)


def _columns(path: Path, cells: Sequence[str], delimiter: str) -> dict[str, int]:
    """The index of each column, by its name in lower case."""
    names = [cell.strip().lower() for cell in cells]
    columns = {name: at for at, name in enumerate(names)}
    wanted = PLAIN if any(name in columns for name in PLAIN) or LUNA[0] not in columns else LUNA
    missing = [name for name in wanted if name not in columns]
    twice = any(count > 1 for name, count in Counter(names).items() if name)
    if missing:
        raise refused(path, [f"no column {', '.join(missing)} in the first line ({delimiter.join(cells)[:200]})"])
    if twice or (wanted is PLAIN and LUNA[0] in columns):
        raise refused(path, [f"a column stands twice in the first line ({delimiter.join(cells)[:200]})"])
    return columns


def read_fcsv(path: Path, text: str) -> PositionFile:
    """Read 3D Slicer's fiducial list in the frame that its second line states.

    Raises:
        UsageError: with all faults at once, each with its line; or when the file states no frame, or voxels (IJK).
    """
    lines = text.removeprefix("\ufeff").splitlines()
    said = [found for line in lines if line.startswith("#") and (found := _SETTING.match(line))]
    settings: dict[str, str] = {found[1]: found[2] for found in said}
    stated = settings.get("CoordinateSystem", "").strip()
    if stated not in FCSV_SPACES:
        what = f"its frame is {stated!r}, not LPS or RAS" if stated else "it has no line '# CoordinateSystem = ...'"
        raise refused(path, [what], hint="save it again in 3D Slicer, as .mrk.json or .fcsv")
    names = [name.strip().lower() for name in settings.get("columns", FCSV_COLUMNS).split(",")]
    if missing := [name for name in (*PLAIN, "label") if name not in names]:
        raise refused(path, [f"no column {', '.join(missing)} in the line '# columns = ...'"])
    axes, label = [names.index(name) for name in PLAIN], names.index("label")
    marks: list[Mark] = []
    faults: list[str] = []
    unplaced: list[str] = []
    for line, whole in enumerate(lines, start=1):
        if whole.startswith("#") or not whole.strip():
            continue
        try:
            (cells,) = csv.reader([whole], strict=True)
        except csv.Error as error:
            faults.append(f"line {line}: {error}")
            continue
        if len(cells) <= max(*axes, label):
            faults.append(f"line {line}: {len(cells)} cells are too few")
        elif len(cells) > FCSV_STATUS_COLUMN and cells[FCSV_STATUS_COLUMN].strip() not in ("", _FCSV_DEFINED):
            unplaced.append(cells[label].strip() or f"line {line}")
        else:
            xyz = point(cells, axes, f"line {line}", faults)
            marks.append(Mark(f"line {line}", xyz, cells[label].strip() or None))
    if len(marks) > MAX_POSITIONS:
        faults.append(f"more than {MAX_POSITIONS} rows")
    if faults or not marks:
        raise refused(path, faults or ["no placed point in it"])
    return PositionFile(path, "a 3D Slicer list", FCSV_SPACES[stated], tuple(marks), warnings=not_placed(unplaced))


def not_placed(labels: Sequence[str]) -> tuple[str, ...]:
    """The warning about points without a position."""
    if not labels:
        return ()
    shown = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
    what = "a point" if len(labels) == 1 else f"{len(labels)} points"
    return (f"{what} without a position {'was' if len(labels) == 1 else 'were'} passed over: {shown}",)
