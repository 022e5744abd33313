"""What a seed is; `fuzz.seeds` makes them. Apart, so that a worker starts without the libraries that made them."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

ZIP_TIME = (1980, 1, 1, 0, 0, 0)

Files = dict[str, bytes]
LISTING, SERIES_FILE, OBJECT, STORED = "listing.http", "series.http", "object.http", "stored.http"
"""Answers of a DICOMweb server (`fuzz.http_answers`)."""


@dataclass(frozen=True)
class Seed:
    """A good file, or a folder of them.

    Attributes:
        name: Short, for ids.
        format: A row of the table in docs/reliability.md.
        reader: What reads it: a key of `fuzz.readers.READERS`.
        entry: What the reader is given: a file of ``files``, or a folder of them.
        files: Content by path.
        ways: Names of the ways to damage it (`fuzz.ways`), as often as they are to be taken.
        rule: What the format can know of its damage (`fuzz.oracle`).
        heads: Bytes before the voxels, by path: half of all damage goes there.
    """

    name: str
    format: str
    reader: str
    entry: str
    files: Files
    ways: tuple[str, ...]
    rule: str
    heads: dict[str, int]


def zipped(files: Files) -> bytes:
    """A zip whose bytes depend on its content alone."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return made.getvalue()
