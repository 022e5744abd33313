"""``cases.sqlite``: its tables, and what is checked before a file from outside is trusted.

One row per case, written in the order of the ids. Every value has a CHECK constraint with ``typeof()``, because SQLite
accepts text in place of a number, and STRICT tables need a newer SQLite than some builds of Python 3.11 have.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nodule_diag.bundle import Bundle
from nodule_diag.errors import CaseBaseError, OutputError

CAN_DESERIALIZE = hasattr(sqlite3.Connection, "deserialize")
"""False where Python was built with an SQLite before 3.36."""
APPLICATION_ID: Final = 0x4E444342
"""``NDCB``: marks the file as a case base in its header."""
SCHEMA_VERSION: Final = 1
"""Stored in the file's ``user_version``."""
MAX_BYTES: Final = 1024 * 2**20
"""Largest file: it is held in memory. A million cases without pictures are 56 MiB."""
MAX_CASES: Final = 5_000_000
"""Each case takes some 300 bytes of memory once the base is opened; the largest base that was tried has a million."""
LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: 64 * 2**20,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 32,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 4,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 100_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 1,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 2000,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 10,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
"""Limits that SQLite enforces: this package's own statements need less (VACUUM INTO attaches one file)."""
BUSY_S: Final = 60.0
"""How long one writer waits for another."""

_TEXT = "CHECK (typeof({0}) = 'text' AND length({0}) BETWEEN 1 AND {1})"
_OF_A_CASE = "case_id TEXT NOT NULL REFERENCES cases ON DELETE CASCADE"
TABLES: Final = {
    "base": f"""CREATE TABLE base (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  name TEXT NOT NULL {_TEXT.format("name", 200)},
  model_sha256 TEXT NOT NULL
    CHECK (typeof(model_sha256) = 'text' AND length(model_sha256) = 64 AND model_sha256 NOT GLOB '*[^0-9a-f]*')
)""",
    "cases": f"""CREATE TABLE cases (
  case_id TEXT NOT NULL PRIMARY KEY {_TEXT.format("case_id", 200)},
  patient_id TEXT NOT NULL {_TEXT.format("patient_id", 200)},
  label INTEGER NOT NULL CHECK (typeof(label) = 'integer' AND label IN (0, 1)),
  label_source TEXT NOT NULL {_TEXT.format("label_source", 200)},
  label_certainty TEXT NOT NULL CHECK (typeof(label_certainty) = 'text' AND label_certainty IN ('nodule', 'patient')),
  malignancy REAL NOT NULL CHECK (typeof(malignancy) = 'real' AND malignancy BETWEEN 0.0 AND 1.0),
  expert_score REAL NOT NULL CHECK (typeof(expert_score) = 'real' AND expert_score BETWEEN 1.0 AND 5.0),
  diameter_mm REAL
    CHECK (diameter_mm IS NULL OR typeof(diameter_mm) = 'real' AND diameter_mm > 0.0 AND diameter_mm < 9e999)
) WITHOUT ROWID""",
    "reader_scores": f"""CREATE TABLE reader_scores (
  {_OF_A_CASE},
  reader INTEGER NOT NULL CHECK (typeof(reader) = 'integer' AND reader >= 0),
  score REAL NOT NULL CHECK (typeof(score) = 'real' AND score BETWEEN 1.0 AND 5.0),
  PRIMARY KEY (case_id, reader)
) WITHOUT ROWID""",
    "free_columns": f"""CREATE TABLE free_columns (
  {_OF_A_CASE},
  name TEXT NOT NULL {_TEXT.format("name", 200)},
  value NOT NULL CHECK (typeof(value) IN ('integer', 'real') OR typeof(value) = 'text' AND length(value) <= 2000),
  PRIMARY KEY (case_id, name)
) WITHOUT ROWID""",
    "pictures": f"""CREATE TABLE pictures (
  {_OF_A_CASE},
  name TEXT NOT NULL {_TEXT.format("name", 200)},
  png BLOB NOT NULL CHECK (typeof(png) = 'blob' AND substr(png, 1, 8) = X'89504E470D0A1A0A'),
  PRIMARY KEY (case_id, name)
) WITHOUT ROWID""",
}
"""What ``sqlite_master`` holds, word for word: a file with anything else in it (a trigger, a view) is refused."""
OF_A_CASE: Final = tuple(name for name in TABLES if name != "base")
"""Tables whose rows belong to a case."""


def connect(database: str, *, where: str, uri: bool = False) -> sqlite3.Connection:
    """Open a database without running anything that its schema may ask for.

    Raises:
        CaseBaseError: ``case-base-invalid`` or ``case-base-busy``.
    """
    with guard(where):
        connection = sqlite3.connect(
            database, uri=uri, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        try:
            for limit, value in LIMITS.items():
                connection.setlimit(limit, value)
            for pragma in (
                "trusted_schema = OFF",
                "cell_size_check = ON",
                "mmap_size = 0",
                "foreign_keys = ON",
                "temp_store = MEMORY",
            ):
                connection.execute(f"PRAGMA {pragma}")
            if sys.version_info >= (3, 12):
                connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        except sqlite3.Error:
            connection.close()
            raise
    return connection


def connect_file(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open an existing file.

    Args:
        path: The file.
        write: False to only read it. A writer that was killed leaves its journal behind. The journal is then played
            back, which needs permission to write.

    Raises:
        CaseBaseError: ``case-base-missing``, ``case-base-too-large``, ``case-base-invalid`` or ``case-base-busy``.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        raise CaseBaseError(
            f"there is no case base at {path}: {getattr(error, 'strerror', None) or error}",
            hint="check the path; nodule-diag cases build makes one",
            code="case-base-missing",
        ) from error
    if not path.is_file() or size == 0:
        raise invalid(str(path), "it is empty, or no file")
    if size > MAX_BYTES:
        raise _too_large(f"{path} has {size} bytes; the largest case base has {MAX_BYTES}")
    interrupted = path.with_name(path.name + "-journal").exists()
    connection = connect(
        f"{path.absolute().as_uri()}?mode={'rw' if write or interrupted else 'ro'}", where=str(path), uri=True
    )
    try:
        with guard(str(path)):
            if not write:
                connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")  # after its first read, no writer changes the file until it ends
            halves = [connection.execute(f"PRAGMA {half}").fetchone()[0] for half in ("page_count", "page_size")]
            size, promised = path.stat().st_size, math.prod(halves)
            connection.execute("ROLLBACK")
        if promised != size and not interrupted:
            raise invalid(str(path), f"it has {size:,} bytes, and its header promises {promised:,}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_bundle(bundle: Bundle, *, where: str) -> sqlite3.Connection:
    """Open the case base of a bundle: the bytes whose hash was checked when the bundle was opened.

    Raises:
        CaseBaseError: ``case-base-invalid``; ``case-base-needs-sqlite`` for a zipped bundle where Python's SQLite
            cannot read from memory.
    """
    name = bundle.manifest.retrieval.cases
    if CAN_DESERIALIZE:
        connection = connect(":memory:", where=where)
        with guard(where):
            connection.deserialize(bundle.read(name) or b"\0")  # for empty bytes, it says that memory is short
        return connection
    if not bundle.path.is_dir():
        raise CaseBaseError(
            f"Python's SQLite {sqlite3.sqlite_version} cannot read the case base of a zipped bundle",
            hint="unpack the bundle and give its folder, or use a Python that was built with SQLite 3.36 or later",
            code="case-base-needs-sqlite",
        )
    file = bundle.path / name
    connection = connect_file(file, write=False)
    if hashlib.sha256(file.read_bytes()).hexdigest() != bundle.manifest.files[name]:
        raise invalid(where, "it was changed after the bundle was opened")
    return connection


def _too_large(why: str) -> CaseBaseError:
    return CaseBaseError(why, hint="leave pictures out, or split it", code="case-base-too-large")


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database."""
    for pragma in ("page_size = 4096", "encoding = 'UTF-8'", f"application_id = {APPLICATION_ID}"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    for statement in TABLES.values():
        connection.execute(statement)


def check(connection: sqlite3.Connection, *, where: str) -> None:
    """Refuse a file that is not a case base of this schema. Reads only the header and the schema's text.

    Raises:
        CaseBaseError: ``case-base-invalid`` or ``case-base-version``.
    """
    with guard(where):
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise invalid(where, f"its application_id is {application:#x}, not {APPLICATION_ID:#x}")
        if version != SCHEMA_VERSION:
            raise CaseBaseError(
                f"{where} is a case base of schema version {version}; this nodule-diag reads {SCHEMA_VERSION}",
                hint="install the nodule-diag that made it" if version > SCHEMA_VERSION else "build it again",
                code="case-base-version",
            )
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            raise invalid(where, "its journal is in WAL mode")
        found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 20").fetchall()
        if Counter(found) != Counter(("table", name, name, sql) for name, sql in TABLES.items()):
            strange = sorted(str(entry[1]) for entry in found if TABLES.get(str(entry[1])) != entry[3])
            raise invalid(where, f"its schema is another: {', '.join(strange) or 'a table is missing'}")
        if [row[0] for row in connection.execute("SELECT id FROM base LIMIT 2")] != [1]:
            raise invalid(where, "it does not say which model its scores are of")


def check_rows(connection: sqlite3.Connection, *, where: str) -> None:
    """Read every page and check every value against its constraint: half a second for a million cases.

    Raises:
        CaseBaseError: ``case-base-invalid``, with the first fault, or ``case-base-too-large``.
    """
    with guard(where):
        (count,) = connection.execute("SELECT count(*) FROM cases").fetchone()
        if count > MAX_CASES:
            raise _too_large(f"{where} has {count} cases; the largest case base has {MAX_CASES}")
        (fault,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        endless = connection.execute("SELECT case_id FROM free_columns WHERE value IN (9e999, -9e999)").fetchone()
    if fault == "ok" and endless:
        fault = "a free column holds an infinite number"
    if fault != "ok":
        raise invalid(where, f"{fault}")


@contextmanager
def guard(where: str, *, writing: bool = False) -> Iterator[None]:
    """Turn SQLite's errors into this package's. A failed write has a different error than a failed read."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise CaseBaseError(
                f"{where} is being written by another process: {error}",
                hint="wait until that is done",
                code="case-base-busy",
            ) from error
        if writing and code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
            raise OutputError(
                f"{where} cannot be written: {error}", hint="check that file and folder are writable, with space left"
            ) from error
        raise invalid(where, str(error)) from error
    except (UnicodeDecodeError, OverflowError) as error:
        raise invalid(where, str(error)) from error


def invalid(where: str, why: str) -> CaseBaseError:
    """The error for a file that is not a case base, or a damaged one."""
    return CaseBaseError(
        f"{where} is not a case base, or a damaged one: {' '.join(why.split())}",
        hint="take a copy of it, or build it again: nodule-diag cases build",
        code="case-base-invalid",
    )
