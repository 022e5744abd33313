"""The case base as a file: one SQLite database that is read whole, and that grows by transactions."""

# ruff: noqa: S608 - what is pasted into a statement are names of this file and placeholders; values are bound

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from nodule_diag.bundle import Bundle
from nodule_diag.cases.case import Case
from nodule_diag.cases.schema import check, check_rows, connect, connect_file, create, guard, invalid
from nodule_diag.errors import CaseBaseError, UsageError
from nodule_diag.process import writing

CAN_DESERIALIZE = hasattr(sqlite3.Connection, "deserialize")
"""Python leaves it out where it was built with SQLite before 3.36."""
COLUMNS = "case_id, patient_id, label, label_source, label_certainty, malignancy, expert_score, diameter_mm"
CHUNK = 1000
"""Cases that are fetched at a time; SQLite takes 32,766 values in a statement."""


class CaseBase:
    """Diagnosed nodules, and the model that their scores are of. Iterating gives each :class:`Case`, ordered by id.

    .. code-block:: python

        base = CaseBase.open("hospital.sqlite")             # a snapshot in memory: who writes it waits for nobody
        diagnoser = nd.Diagnoser.load(cases=base)
        with CaseBase.edit("hospital.sqlite") as base:      # the file itself
            base.add(new_cases)                             # all of them or, if the process is killed, none

    Attributes:
        where: The file, for messages.
        sha256: Of the file as it was opened; empty for one that is being edited.
        is_snapshot: Whether it is a copy that nothing changes any more.
    """

    def __init__(
        self, connection: sqlite3.Connection, *, where: str, sha256: str = "", is_snapshot: bool = False
    ) -> None:
        self.where = where
        self.sha256 = sha256
        self.is_snapshot = is_snapshot
        self._connection = connection
        self.close = weakref.finalize(self, connection.close)
        """Give the file or the memory back; a base that nobody holds any more does so itself."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file into memory, and check every page and value of it.

        Raises:
            CaseBaseError: With a code of its own for each fault: ``case-base-missing``, ``case-base-too-large``,
                ``case-base-invalid``, ``case-base-version``, ``case-base-busy``.
        """
        file, where = Path(path), str(path)
        # Without serialize the file is read beside SQLite, and first: closing a file drops SQLite's locks on it.
        data = b"" if CAN_DESERIALIZE or not file.is_file() else file.read_bytes()
        source = connect_file(file, write=False)
        try:
            check(source, where=where)
            with guard(where):
                if CAN_DESERIALIZE:
                    data = source.serialize()
                return cls._snapshot(source, where=where, sha256=hashlib.sha256(data).hexdigest())
        finally:
            source.close()

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Self:
        """The case base of a bundle, whose hash was checked when it was opened; as :meth:`open`.

        Raises:
            CaseBaseError: Also ``case-base-other-model``; ``case-base-needs-sqlite`` for a zipped bundle where Python's
                SQLite cannot read from memory.
        """
        name = bundle.manifest.retrieval.cases
        data, where = bundle.read(name), f"{name} of the bundle"
        if CAN_DESERIALIZE:
            source = connect(":memory:", where=where)
            if data[18:20] != b"\1\1":  # the header's two versions; a database in WAL mode cannot be read from memory
                raise invalid(where, "it is no database with a rollback journal")
            with guard(where):
                source.deserialize(data)
        elif bundle.path.is_dir():
            source = connect_file(bundle.path / name, write=False)
        else:
            raise CaseBaseError(
                f"Python's SQLite {sqlite3.sqlite_version} cannot read the case base of a zipped bundle",
                hint="unpack the bundle and give its folder, or use a Python that was built with SQLite 3.36 or later",
                code="case-base-needs-sqlite",
            )
        try:
            check(source, where=where)
            base = cls._snapshot(source, where=where, sha256=bundle.manifest.files[name])
        finally:
            source.close()
        return base.of_model(bundle)

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, name: str, model_sha256: str) -> Self:
        """Make an empty case base, whole or not at all, and open it to :meth:`add` to it.

        Args:
            path: A file that is not there yet.
            name: What the base is called.
            model_sha256: :attr:`Bundle.model_sha256` of the model whose scores it will hold.

        Raises:
            UsageError: When the file is there already.
            OutputError: When it cannot be written.
        """
        if Path(path).exists():
            raise UsageError(f"{path} is there already", hint="name a new file, or add to that one")
        cls.of((), name=name, model_sha256=model_sha256).save(path)
        return cls.edit(path)

    @classmethod
    def edit(cls, path: str | os.PathLike[str]) -> Self:
        """Open a file to change it. One writer waits for another, up to a minute.

        Raises:
            CaseBaseError: As :meth:`open`.
        """
        connection = connect_file(Path(path), write=True)
        base = cls(connection, where=str(path))
        check(connection, where=base.where)
        with guard(base.where):
            connection.execute("PRAGMA synchronous = EXTRA")  # a commit is on disk, and so is the folder's entry
        return base

    @classmethod
    def of(cls, cases: Iterable[Case], *, name: str, model_sha256: str) -> Self:
        """Make a case base in memory.

        Raises:
            CaseBaseError: ``case-base-invalid`` for two cases of one id.
        """
        connection = connect(":memory:", where=name)
        base = cls(connection, where=f"the case base {name}")
        with guard(base.where):
            create(connection)
            connection.execute("INSERT INTO base VALUES (1, ?, ?)", (name, model_sha256))
        base.add(cases)
        return base

    @classmethod
    def _snapshot(cls, source: sqlite3.Connection, *, where: str, sha256: str = "") -> Self:
        """A copy in memory, page by page, that nothing changes any more."""
        with guard(where):
            copy = connect(":memory:", where=where)
            source.backup(copy)
            copy.execute("PRAGMA schema_version = 1")  # it counts how the schema came about; equal rows are equal bytes
            check_rows(copy, where=where)
        return cls(copy, where=where, sha256=sha256, is_snapshot=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM cases"))

    def __iter__(self) -> Iterator[Case]:
        for row in self.rows():
            fields = dict(zip(Case.model_fields, (*row[:7], row[8], row[7], row[9]), strict=True))
            try:
                yield Case(**fields)
            except ValidationError as error:
                raise invalid(self.where, str(error)) from error

    @cached_property
    def name(self) -> str:
        """What it is called."""
        return str(self._one("SELECT name FROM base"))

    @cached_property
    def model_sha256(self) -> str:
        """Of the model that its scores are of: :attr:`Bundle.model_sha256`."""
        return str(self._one("SELECT model_sha256 FROM base"))

    @property
    def malignant(self) -> int:
        """How many cases are malignant."""
        return int(self._one("SELECT coalesce(sum(label), 0) FROM cases"))

    @property
    def patients(self) -> int:
        """How many patients they are of."""
        return int(self._one("SELECT count(DISTINCT patient_id) FROM cases"))

    @property
    def diagnosed_themselves(self) -> int:
        """How many have a diagnosis of the nodule itself, and not of its patient."""
        return int(self._one("SELECT count(*) FROM cases WHERE label_certainty = 'nodule'"))

    @property
    def column_names(self) -> list[str]:
        """Names of the free columns."""
        return self._column("SELECT DISTINCT name FROM free_columns ORDER BY name")

    def of_model(self, bundle: Bundle) -> Self:
        """Return the base when its scores are of the bundle's model.

        Raises:
            CaseBaseError: ``case-base-other-model``.
        """
        if self.model_sha256 != bundle.model_sha256:
            raise CaseBaseError(
                f"the scores of {self.where} are of the model with sha256 {self.model_sha256[:12]}..., and the bundle"
                f" {bundle.manifest.name} has {bundle.model_sha256[:12]}...",
                hint="give the bundle that the case base was made with, or build it again with this one",
                code="case-base-other-model",
            )
        return self

    def snapshot(self) -> CaseBase:
        """A copy in memory that nothing changes any more; itself, where it is one."""
        return self if self.is_snapshot else self._snapshot(self._connection, where=self.where)

    def add(self, cases: Iterable[Case], *, pictures: Mapping[str, Mapping[str, bytes]] | None = None) -> int:
        """Add cases in one transaction: when this returns they are on disk, and when it does not, none of them is.

        Args:
            cases: Their ids must be new.
            pictures: PNG files by case id and name.

        Returns:
            How many.

        Raises:
            CaseBaseError: ``case-base-invalid`` for an id that is there already; ``case-base-busy``.
            OutputError: When the file cannot be written.
        """
        added, shown = 0, pictures or {}
        with self._transaction() as connection:
            for case in cases:
                try:
                    connection.execute(f"INSERT INTO cases ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (
                        case.case_id, case.patient_id, case.label, case.label_source, case.label_certainty,
                        case.malignancy, case.expert_score, case.diameter_mm,
                    ))  # fmt: skip
                except sqlite3.IntegrityError as error:
                    raise CaseBaseError(
                        f"case {case.case_id!r} is in {self.where} already, or stands twice among the new ones",
                        hint="give each case an id of its own, or remove the old one first",
                        code="case-base-invalid",
                    ) from error
                for table, entries in (
                    ("reader_scores", enumerate(case.reader_scores)),
                    ("free_columns", case.columns.items()),
                    ("pictures", shown.get(case.case_id, {}).items()),
                ):
                    rows: list[tuple[object, ...]] = [(case.case_id, *entry) for entry in entries]
                    if rows:
                        connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)
                added += 1
        return added

    def remove(self, case_ids: Collection[str]) -> None:
        """Remove cases, with all that is known of them, in one transaction.

        Raises:
            UsageError: For an id that is not there; nothing is removed then.
        """
        with self._transaction() as connection:
            for case_id in case_ids:
                if not connection.execute("DELETE FROM cases WHERE case_id = ?", (case_id,)).rowcount:
                    raise UsageError(f"{self.where} has no case {case_id!r}", hint="check the id")

    def known(self, case_ids: Sequence[str]) -> dict[str, tuple[Any, ...]]:
        """The columns of some cases, and their readers' scores as a tuple, by case id."""
        known: dict[str, tuple[Any, ...]] = {}
        for start in range(0, len(case_ids), CHUNK):
            some = case_ids[start : start + CHUNK]
            scores = self._entries("reader_scores", "reader, score", some)
            for row in self._all(f"SELECT {COLUMNS} FROM cases WHERE case_id IN ({_marks(some)})", some):
                known[row[0]] = (*row, tuple(scores.get(row[0], {}).values()))
        return known

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """As :meth:`known` and the free columns as a dict, of every case, in the order of their ids."""
        last = ""
        while ids := self._column(
            f"SELECT case_id FROM cases WHERE case_id > ? ORDER BY case_id LIMIT {CHUNK}", (last,)
        ):
            known = self.known(ids)
            free = self._entries("free_columns", "name, value", ids)
            for case_id in ids:
                yield (*known[case_id], free.get(case_id, {}))
            last = ids[-1]

    def ids(self) -> list[str]:
        """All case ids, ascending."""
        return self._column("SELECT case_id FROM cases ORDER BY case_id")

    def ids_named(self, names: Collection[str]) -> set[str]:
        """Ids of the cases that have, or whose patients have, one of these names; unknown ones match nothing."""
        found: set[str] = set()
        rest = iter(names)
        while some := list(islice(rest, CHUNK)):
            for column in ("case_id", "patient_id"):
                found.update(self._column(f"SELECT case_id FROM cases WHERE {column} IN ({_marks(some)})", some))
        return found

    def scores(self) -> NDArray[np.float64]:
        """(N, 2) P and expert score of every case, in the order of their ids."""
        with guard(self.where):
            rows = self._connection.execute("SELECT malignancy, expert_score FROM cases ORDER BY case_id")
            return np.fromiter(chain.from_iterable(rows), dtype=np.float64).reshape(-1, 2)

    def pictures(self, case_id: str) -> dict[str, bytes]:
        """PNG files of a case by name."""
        return dict(self._all("SELECT name, png FROM pictures WHERE case_id = ? ORDER BY name", (case_id,)))

    def verify(self) -> None:
        """Check every page, every value, and that all that is said of a case is said of one that is there.

        Raises:
            CaseBaseError: ``case-base-invalid``, with the first fault.
        """
        check(self._connection, where=self.where)
        check_rows(self._connection, where=self.where)
        if fault := self._all("PRAGMA foreign_key_check"):
            raise invalid(self.where, f"{fault[0][0]} speaks of a case that is not there")
        for _ in self:
            pass

    def digest(self) -> str:
        """The sha256 of what the base says, whichever SQLite wrote it and in whatever order it grew.

        It is taken over lines of JSON, UTF-8, each ended by a newline: the model's sha256; then a list a case, in the
        order of the ids: case_id, patient_id, label, label_source, label_certainty, malignancy, expert_score,
        diameter_mm, the list of readers' scores, the object of free columns by name. The base's name and pictures are
        left out.
        """
        lines = hashlib.sha256()
        for line in chain((self.model_sha256,), self.rows()):
            lines.update(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        return lines.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as one compact file, whole or not at all: equal rows and one version of SQLite give equal bytes.

        Raises:
            OutputError: When it cannot be written.
        """
        copy = self.snapshot()
        with writing(path) as temporary, guard(str(path), writing=True):
            copy._connection.execute("VACUUM INTO ?", (str(temporary),))

    def to_bytes(self) -> bytes:
        """What :meth:`save` writes."""
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder, "cases.sqlite"))
            return Path(folder, "cases.sqlite").read_bytes()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self.is_snapshot:
            raise UsageError(f"{self.where} was opened to be read", hint="change the file with CaseBase.edit(path)")
        with guard(self.where, writing=True):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise

    def _all(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        with guard(self.where):
            return self._connection.execute(statement, values).fetchall()

    def _column(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        return list(chain.from_iterable(self._all(statement, values)))

    def _entries(self, table: str, columns: str, case_ids: Sequence[str]) -> dict[str, dict[Any, Any]]:
        """The entries of some cases in another table, by case id, in the order of their keys."""
        entries: dict[str, dict[Any, Any]] = {}
        for case_id, key, value in self._all(
            f"SELECT case_id, {columns} FROM {table} WHERE case_id IN ({_marks(case_ids)}) ORDER BY 1, 2", case_ids
        ):
            entries.setdefault(case_id, {})[key] = value
        return entries

    def _one(self, statement: str) -> Any:  # noqa: ANN401 - a value of the database
        return self._all(statement)[0][0]


def _marks(values: Sequence[object]) -> str:
    """A placeholder for each value."""
    return ", ".join("?" * len(values))
