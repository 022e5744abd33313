"""The case base as a file: one SQLite database that is read as a whole, and that grows by transactions.

The file has over 300 lines, a third of them for callers: reading and writing use the same columns in the same order.
"""

# ruff: noqa: S608 - what is pasted into a statement are names of this file and placeholders; values are bound

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from nodule_diag.bundle import Bundle
from nodule_diag.cases import schema
from nodule_diag.cases.case import Case
from nodule_diag.cases.schema import check_rows, connect, connect_file, guard, invalid
from nodule_diag.errors import CaseBaseError, UsageError
from nodule_diag.process import writing

COLUMNS = tuple(name for name in Case.model_fields if name not in {"reader_scores", "columns"})
"""The columns of the table ``cases``, in its order; the other two fields have a table each."""
CHUNK = 1000
"""Cases that are fetched at a time; SQLite accepts 32,766 values in a statement."""


class CaseBase:
    """Diagnosed nodules, and the model that gave their scores. Iterating yields each :class:`Case`, ordered by id.

    .. code-block:: python

        base = CaseBase.open("hospital.sqlite")             # a copy in memory, which nothing changes
        diagnoser = nd.Diagnoser.load(cases=base)
        with CaseBase.edit("hospital.sqlite") as base:      # the file itself
            base.add(new_cases)                             # all of them or, if the process is killed, none

    Attributes:
        where: The file, for messages.
        name: The base's name.
        model_sha256: :attr:`Bundle.model_sha256` of the model that gave the scores.
        sha256: The hash of the file as it was opened; empty for a base without a file, or one that is being edited.
        is_copy: Whether it is a read-only copy in memory.
        condition: The filter that selected its cases; empty for a whole base.
    """

    def __init__(self, connection: sqlite3.Connection, *, where: str, sha256: str = "", is_copy: bool = False) -> None:
        self.where, self.sha256, self.is_copy = where, sha256, is_copy
        self.condition = ""
        self._connection = connection
        self._lock = threading.RLock()  # not every build of SQLite lets threads share a connection
        self.close = weakref.finalize(self, connection.close)
        """Release the file or the memory; this also happens when the base is no longer referenced."""
        schema.check(connection, where=where)
        self.name, self.model_sha256 = self.fetch("SELECT name, model_sha256 FROM base")[0]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file into memory, and check every page and value.

        Raises:
            CaseBaseError: With its own code for each fault: ``case-base-missing``, ``case-base-too-large``,
                ``case-base-invalid``, ``case-base-version``, ``case-base-busy``.
        """
        with cls(connect_file(Path(path), write=False), where=str(path)) as file:
            return file.copy(is_file=True)

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Self:
        """Read the case base of a bundle, as :meth:`open`. Its hash was checked when the bundle was opened.

        Raises:
            CaseBaseError: Also ``case-base-other-model``; ``case-base-needs-sqlite`` for a zipped bundle where Python's
                SQLite cannot read from memory.
        """
        where = f"{bundle.manifest.retrieval.cases} of the bundle"
        with cls(schema.connect_bundle(bundle, where=where), where=where) as file:
            base = file.copy().of_model(bundle)
        base.sha256 = bundle.manifest.files[bundle.manifest.retrieval.cases]
        return base

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, name: str, model_sha256: str) -> Self:
        """Make an empty file, whole or not at all, and open it as :meth:`edit` does.

        Raises:
            UsageError: When the file exists already.
            OutputError: When it cannot be written.
        """
        if Path(path).exists():
            raise UsageError(f"{path} is there already", hint="name a new file, or add to that one")
        cls.of((), name=name, model_sha256=model_sha256).save(path)
        return cls.edit(path)

    @classmethod
    def edit(cls, path: str | os.PathLike[str]) -> Self:
        """Open a file to change it, after every page is checked. One writer waits for another, up to a minute.

        Raises:
            CaseBaseError: As :meth:`open`.
        """
        base = cls(connect_file(Path(path), write=True), where=str(path))
        check_rows(base._connection, where=base.where)
        base.fetch("PRAGMA synchronous = EXTRA")  # a commit is on disk, and so is the entry in its folder
        base.fetch("PRAGMA secure_delete = ON")  # removed data is overwritten in the file
        return base

    @classmethod
    def of(cls, cases: Iterable[Case], *, name: str, model_sha256: str) -> Self:
        """Make a case base in memory.

        Raises:
            CaseBaseError: ``case-base-invalid`` for two cases with the same id.
            UsageError: For a name that is empty, or longer than 200 characters.
        """
        where = f"the case base {name}"
        connection = connect(":memory:", where=where)
        with guard(where):
            schema.create(connection)
            try:
                connection.execute("INSERT INTO base VALUES (1, ?, ?)", (name, model_sha256))
            except sqlite3.IntegrityError as error:
                raise UsageError(
                    f"the name of the case base has {len(name)} characters",
                    hint="give it a name of 1 to 200 characters",
                ) from error
        base = cls(connection, where=where)
        base.add(cases)
        return base

    def copy(self, *, is_file: bool = False) -> Self:
        """A checked, read-only copy in memory, made page by page; the base itself, where it is such a copy."""
        if self.is_copy:
            return self
        memory = connect(":memory:", where=self.where)
        with self._transaction("BEGIN") as file:  # both reads see one state
            data = file.serialize() if is_file and schema.CAN_DESERIALIZE else b""
            file.backup(memory)
        check_rows(memory, where=self.where)
        sha256 = hashlib.sha256(data).hexdigest() if data else ""
        return type(self)(memory, where=self.where, sha256=sha256, is_copy=True)

    def keeping(self, condition: str, values: Sequence[object] = ()) -> Self:
        """A copy in memory of only the cases that meet an SQL condition, with the whole base's name and hash."""
        memory = connect(":memory:", where=self.where)
        with self._lock, guard(self.where):
            self._connection.backup(memory)
            memory.execute("PRAGMA foreign_keys = OFF")  # scan each table once, not once per case
            memory.execute(f"CREATE TEMP TABLE kept AS SELECT case_id FROM cases WHERE {condition}", values)
            for table in schema.OF_A_CASE:
                memory.execute(f"DELETE FROM {table} WHERE case_id NOT IN (SELECT case_id FROM kept)")
            memory.execute("DROP TABLE kept")
        return type(self)(memory, where=self.where, sha256=self.sha256 or self.digest(), is_copy=True)

    def of_model(self, bundle: Bundle) -> Self:
        """Return the base if the bundle's model gave its scores.

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self.fetch("SELECT count(*) FROM cases")[0][0])

    def __iter__(self) -> Iterator[Case]:
        last = ""
        while ids := self.fetch(f"SELECT case_id FROM cases WHERE case_id > ? ORDER BY 1 LIMIT {CHUNK}", (last,)):
            yield from self.cases([case_id for (case_id,) in ids])
            last = ids[-1][0]

    @property
    def malignant(self) -> int:
        """How many cases are malignant."""
        return int(self.fetch("SELECT count(*) FROM cases WHERE label = 1")[0][0])

    @property
    def pictured(self) -> int:
        """How many cases have a picture."""
        return int(self.fetch("SELECT count(DISTINCT case_id) FROM pictures")[0][0])

    def cases(self, case_ids: Sequence[str]) -> list[Case]:
        """The cases with the given ids, in the order of the ids."""
        scores = self._entries("reader_scores", case_ids)
        free = self._entries("free_columns", case_ids)
        found: dict[str, Case] = {}
        for row in self._having("SELECT * FROM cases", "case_id", case_ids):
            more = {"reader_scores": tuple(scores.get(row[0], {}).values()), "columns": free.get(row[0], {})}
            try:
                found[row[0]] = Case(**dict(zip(COLUMNS, row, strict=True)), **more)
            except ValidationError as error:
                raise invalid(self.where, str(error)) from error
        return [found[case_id] for case_id in case_ids]

    def ids_named(self, names: Collection[str]) -> set[str]:
        """Ids of the cases whose case id or patient id is one of these names; unknown names match nothing."""
        select = "SELECT case_id, patient_id FROM cases"
        return {row[0] for column in ("case_id", "patient_id") for row in self._having(select, column, names)}

    def ids_of_patients(self, patients: Collection[str]) -> list[str]:
        """Ids of all cases of some patients.

        Raises:
            UsageError: For a patient without a case.
        """
        found = list(self._having("SELECT case_id, patient_id FROM cases", "patient_id", patients))
        if missing := sorted(set(patients).difference(patient for _, patient in found)):
            raise UsageError(
                f"{self.where} has no case of patient {missing[0]!r}",
                hint="check the patient's key; nodule-diag cases list shows the cases",
            )
        return [case_id for case_id, _ in found]

    def numbers(self) -> tuple[list[str], NDArray[np.float64]]:
        """All case ids, ascending, and (N, 3) the label, P and expert score of each."""
        with self._lock, guard(self.where):
            select, order = self._connection.execute, "FROM cases ORDER BY case_id"
            ids = [case_id for (case_id,) in select(f"SELECT case_id {order}")]
            rows = select(f"SELECT label, malignancy, expert_score {order}")
            return ids, np.fromiter(chain.from_iterable(rows), dtype=np.float64).reshape(-1, 3)

    def pictures(self, case_id: str) -> dict[str, bytes]:
        """PNG files of a case by name."""
        return self._entries("pictures", [case_id]).get(case_id, {})

    def add(self, cases: Iterable[Case], *, pictures: Mapping[str, Mapping[str, bytes]] | None = None) -> None:
        """Add cases in one transaction: when this returns, all of them are on disk. Otherwise none of them is.

        Args:
            cases: The cases, with new ids.
            pictures: PNG files by case id and name.

        Raises:
            CaseBaseError: ``case-base-invalid`` for an id that exists already; ``case-base-busy``.
            OutputError: When the file cannot be written.
        """
        with self._transaction() as connection:
            for case in cases:
                tables: dict[str, Iterable[tuple[object, ...]]] = {
                    "cases": [tuple(getattr(case, column) for column in COLUMNS[1:])],
                    "reader_scores": enumerate(case.reader_scores),
                    "free_columns": case.columns.items(),
                    "pictures": (pictures or {}).get(case.case_id, {}).items(),
                }
                try:
                    for table, rows in tables.items():
                        for row in rows:
                            values = (case.case_id, *row)
                            connection.execute(f"INSERT INTO {table} VALUES ({_marks(values)})", values)
                except sqlite3.IntegrityError as error:
                    why = "its id is there already, or stands twice among the new ones"
                    raise CaseBaseError(
                        f"case {case.case_id!r} cannot be added to {self.where}:"
                        f" {why if 'UNIQUE' in str(error) else error}",
                        hint="give each case an id of its own, and values that a case may have",
                        code="case-base-invalid",
                    ) from error

    def remove(self, case_ids: Iterable[str]) -> None:
        """Remove cases, with everything that is stored about them, in one transaction.

        Raises:
            UsageError: For an unknown id. Nothing is removed then.
        """
        with self._transaction() as connection:
            for case_id in case_ids:
                if not connection.execute("DELETE FROM cases WHERE case_id = ?", (case_id,)).rowcount:
                    raise UsageError(f"{self.where} has no case {case_id!r}", hint="check the id")

    def verify(self) -> None:
        """Check every page and every value, and that every row about a case belongs to a case that exists.

        Raises:
            CaseBaseError: ``case-base-invalid``, with the first fault.
        """
        check_rows(self._connection, where=self.where)
        if fault := self.fetch("PRAGMA foreign_key_check"):
            raise invalid(self.where, f"{fault[0][0]} speaks of a case that is not there")
        for _ in self:
            pass

    def digest(self) -> str:
        """The sha256 of the base's content, whichever SQLite wrote the file and in whatever order cases were added.

        The hash is over lines, each ended by a newline: the model's sha256, then one line per case in the order of the
        ids. A case is the JSON object of :class:`Case`: its fields in their order, free columns by name, no spaces,
        ASCII. The base's name and pictures are left out.
        """
        lines = (json.dumps(case.model_dump(), separators=(",", ":")) for case in self)
        digest = hashlib.sha256()
        for line in chain((self.model_sha256,), lines):
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one compact file, whole or not at all. Equal rows and the same SQLite version give equal bytes.

        Raises:
            OutputError: When it cannot be written.
        """
        copy = self.copy()
        with writing(path) as temporary, guard(str(path), writing=True):
            copy._connection.execute("VACUUM INTO ?", (str(temporary),))

    def to_bytes(self) -> bytes:
        """The bytes that :meth:`save` writes."""
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder, "cases.sqlite"))
            return Path(folder, "cases.sqlite").read_bytes()

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        if self.is_copy:
            raise UsageError(f"{self.where} was opened to be read", hint="change the file with CaseBase.edit(path)")
        with self._lock, guard(self.where, writing=begin != "BEGIN"):
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise

    def _entries(self, table: str, case_ids: Sequence[str]) -> dict[str, dict[Any, Any]]:
        """The entries of some cases in another table, by case id, in the order of their keys."""
        entries: dict[str, dict[Any, Any]] = {}
        for case_id, key, value in self.having(table, case_ids):
            entries.setdefault(case_id, {})[key] = value
        return entries

    def having(self, table: str, case_ids: Sequence[str] | None) -> Iterable[Any]:
        """The rows of a table that belong to some cases, or all rows."""
        if case_ids is None:
            return self._streamed(f"SELECT * FROM {table} ORDER BY 1, 2")
        return self._having(f"SELECT * FROM {table}", "case_id", case_ids)

    def _streamed(self, statement: str) -> Iterator[Any]:
        """The rows of a statement, a few at a time: a list of all of them keeps the garbage collector busy."""
        with self._lock, guard(self.where):
            rows = self._connection.execute(statement)
        while True:
            with self._lock, guard(self.where):
                some = rows.fetchmany(CHUNK)
            if not some:
                return
            yield from some

    def _having(self, select: str, column: str, values: Iterable[str]) -> Iterator[Any]:
        """Rows whose column has one of the values."""
        rest = iter(values)
        while some := list(islice(rest, CHUNK)):
            yield from self.fetch(f"{select} WHERE {column} IN ({_marks(some)}) ORDER BY 1, 2", some)

    def fetch(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows of a statement; its values are bound."""
        with self._lock, guard(self.where):
            return self._connection.execute(statement, values).fetchall()


def _marks(values: Sequence[object]) -> str:
    """A placeholder for each value."""
    return ", ".join("?" * len(values))
