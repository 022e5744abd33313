"""The manifest of a batch: a CSV with one row per nodule; the rows of one CT are diagnosed together.

The columns are ``path, x, y, z``, and optionally ``id``, ``series``, ``acquisition`` and ``space``. Any other column is
copied to the table of results. All faults are reported at once, before any CT is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, get_args

from nodule_diag.ct import Space
from nodule_diag.exchange import refused
from nodule_diag.fleet.columns import RESULT_COLUMNS
from nodule_diag.process import LOG
from nodule_diag.results import Redaction
from nodule_diag.tables import Table, read_bytes, text_of

NEEDED, OPTIONAL = ("path", "x", "y", "z"), ("id", "series", "acquisition", "space")
HINT = "it needs the columns path, x, y, z; id, series, acquisition and space may stand there too: docs/batch.md"
SPACES: tuple[Space, ...] = get_args(Space)
MAX_STEM, DIGEST = 60, 16
"""Characters of a CT's file name, and hexadecimal digits of its hash, in the name of its result."""
MAX_DIGITS = 9
"""Digits of an acquisition's number."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_ENDING = re.compile(r"(\.(nii|mh[ad]|nrrd|nhdr|zip|gz))+$", re.IGNORECASE)


@dataclass(frozen=True)
class ListedCT:
    """A CT of a manifest, and its nodules.

    Attributes:
        path: Its absolute path.
        told: Its path as written in the manifest.
        series: Which series of a DICOM folder.
        acquisition: Which volume of a DICOM series.
        space: The frame of the points.
        ids: A name for each nodule, unique in this CT.
        points: Its nodules, x, y, z.
        rows: The nodules' rows in the manifest, from 0.
    """

    path: str
    told: str
    series: str | None = None
    acquisition: int | None = None
    space: Space = "lps"
    ids: tuple[str, ...] = ()
    points: tuple[tuple[float, float, float], ...] = ()
    rows: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The name of its result: the same for equal cells of a manifest, and different for all others."""
        stem = _UNSAFE.sub("_", _ENDING.sub("", Path(self.told).name)).strip("_")[:MAX_STEM] or "ct"
        return f"{stem}-{_digest([self.told, self.series, self.acquisition])[:DIGEST]}"

    @property
    def redaction(self) -> Redaction:
        """Removes its names from texts, including the folders of its path."""
        return Redaction(self.path, self.told, words=(*Path(self.told).parts, self.series or ""))

    @property
    def asked(self) -> str:
        """A hash of the CT and all its questions."""
        return _digest([self.told, self.series, self.acquisition, self.space, self.ids, self.points])


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.

    Attributes:
        path: The file.
        columns: Its columns, in order.
        rows: Its cells, one row per nodule.
        cts: Its CTs, in the order of their first rows.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    cts: tuple[ListedCT, ...]


class _Place(NamedTuple):
    """The cells that identify a CT."""

    told: str
    series: str | None
    acquisition: int | None


@dataclass
class _Gathered:
    """The rows of a CT so far."""

    space: Space
    where: str
    ids: list[str] = field(default_factory=list)
    points: list[tuple[float, float, float]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest.

    Args:
        path: A CSV. The paths of CTs are relative to its folder.

    Raises:
        UsageError: With all faults, each with its line.
    """
    source = Path(path)
    table = Table(source, text_of(source, read_bytes(source)))
    if not table.names:
        raise refused(source, table.faults or ["no nodule in it"], hint=HINT)
    at = _columns(table)
    rows: list[tuple[str, ...]] = []
    cts: dict[_Place, _Gathered] = {}
    for where, cells in table:
        point = table.point(cells, [at[axis] for axis in "xyz"], where)
        place, space = _place(table, at, cells, where)
        gathered = cts.setdefault(place, _Gathered(space, where))
        if gathered.space != space:
            table.faults.append(f"{where}: space {space} where {gathered.where} has {gathered.space} for the same CT")
        gathered.ids.append(cells[at["id"]].strip() if "id" in at else "")
        gathered.points.append(point or (0.0, 0.0, 0.0))
        gathered.rows.append(len(rows))
        rows.append(tuple(cell.strip() for cell in cells))
    for place, gathered in cts.items():
        given = Counter(filter(None, gathered.ids))
        twice = [name for name, times in given.items() if times > 1]
        table.faults += [f"the id {name!r} stands more than once for {place.told}" for name in twice]
        for number, name in enumerate(gathered.ids):  # its number, where free
            called = name or next(free for n in count(number + 1) if (free := str(n)) not in given)
            gathered.ids[number] = called
            given[called] = 1
    if table.faults or not rows:
        raise refused(source, table.faults or ["no nodule in it"], hint=HINT)
    LOG.info("a manifest of %d nodules in %d CTs", len(rows), len(cts))
    return Manifest(source, tuple(table.names), tuple(rows), tuple(_listed(source, *one) for one in cts.items()))


def _columns(table: Table) -> dict[str, int]:
    """The index of each known column."""
    names = [name.lower() for name in table.names]
    twice = [name for name, count in Counter(names).items() if count > 1]
    faults = [f"no column {name}" for name in NEEDED if name not in names]
    faults += [f"a column {name!r} stands more than once" for name in twice]
    faults += [f"a column {name!r} is what a result is called: rename it" for name in names if name in RESULT_COLUMNS]
    if faults:
        raise refused(table.path, [f"the first line: {fault}" for fault in faults], hint=HINT)
    return {name: names.index(name) for name in (*NEEDED, *OPTIONAL) if name in names}


def _place(table: Table, at: dict[str, int], cells: Any, where: str) -> tuple[_Place, Space]:  # noqa: ANN401 - cells
    """The CT of a row, and the frame of its point."""
    cell = {name: cells[at[name]].strip() if name in at else "" for name in ("path", "series", "acquisition", "space")}
    if not cell["path"] or "\0" in cell["path"]:
        table.faults.append(f"{where}: it names no CT")
    number = cell["acquisition"]
    if number and not (number.isascii() and number.isdecimal() and len(number) <= MAX_DIGITS):
        table.faults.append(f"{where}: acquisition = {number[:40]!r} is not a whole number")
        number = ""
    space = next((one for one in SPACES if one == (cell["space"].lower() or "lps")), None)
    if space is None:
        table.faults.append(f"{where}: space = {cell['space'][:40]!r} is none of {', '.join(SPACES)}")
    return _Place(cell["path"], cell["series"] or None, int(number) if number else None), space or "lps"


def _listed(source: Path, place: _Place, gathered: _Gathered) -> ListedCT:
    return ListedCT(
        path=str((source.parent / place.told).absolute()),  # ".." stays: behind a link it means another folder
        told=place.told,
        series=place.series,
        acquisition=place.acquisition,
        space=gathered.space,
        ids=tuple(gathered.ids),
        points=tuple(gathered.points),
        rows=tuple(gathered.rows),
    )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
