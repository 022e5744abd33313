"""``cases.sqlite``: what goes in comes out, what is damaged or foreign is refused, and no committed case is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle_factory import make_tiny_bundle, tiny_base, tiny_cases, tiny_parts
from nodule_diag.bundle.bundle import Bundle, write_bundle
from nodule_diag.cases import schema
from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.case import Case
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.errors import CaseBaseError, OutputError, UsageError

MODEL = "0123456789abcdef" * 4
PNG = b"\x89PNG\r\n\x1a\n" + b"made up"

name = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
score = st.floats(1, 5)
some_case = st.builds(
    Case,
    case_id=name,
    patient_id=name,
    label=st.sampled_from([0, 1]),
    label_source=st.sampled_from(["biopsy", "Verlaufskontrolle über 2 Jahre"]),
    label_certainty=st.sampled_from(["nodule", "patient"]),
    malignancy=st.floats(0, 1),
    expert_score=score,
    reader_scores=st.lists(score, max_size=4).map(tuple),
    diameter_mm=st.none() | st.floats(0.1, 100),
    columns=st.dictionaries(name, name | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9), max_size=3),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of sixty cases."""
    tiny_base().save(tmp_path / "cases.sqlite")
    return tmp_path / "cases.sqlite"


def refused(path: Path, code: str, *words: str) -> CaseBaseError:
    with pytest.raises(CaseBaseError) as caught:
        CaseIndex(CaseBase.open(path))
    assert caught.value.code == code, caught.value.message
    assert caught.value.exit_code == 4
    assert caught.value.hint
    for word in (str(path), *words):
        assert word in caught.value.message
    return caught.value


def changed(path: Path, *statements: str) -> Path:
    """The file, after somebody else's SQLite had its way with it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    for statement in statements:
        connection.execute(statement)
    connection.close()
    return path


@settings(max_examples=40, deadline=None)
@given(st.lists(some_case, max_size=12, unique_by=lambda case: case.case_id))
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, cases: list[Case]) -> None:
    folder = tmp_path_factory.mktemp("base")
    one = CaseBase.of(cases, name="one", model_sha256=MODEL)
    one.save(folder / "one.sqlite")
    opened = CaseBase.open(folder / "one.sqlite")
    assert list(opened) == sorted(cases, key=lambda case: case.case_id)
    assert (len(opened), opened.malignant) == (len(cases), sum(case.label for case in cases))
    assert (opened.name, opened.model_sha256) == ("one", MODEL)
    opened.verify()
    # Grown in another order, in two goes and with a detour, it says the same and is the same file when it is written.
    with CaseBase.create(folder / "two.sqlite", name="one", model_sha256=MODEL) as two:
        two.add(cases[::-2])
        two.add(cases[-2::-2])
        two.add([Case(**{**tiny_cases(1)[0].model_dump(), "case_id": "a detour"})])
        two.remove(["a detour"])
        assert two.digest() == one.digest() == opened.digest()
        two.save(folder / "three.sqlite")
    assert (folder / "three.sqlite").read_bytes() == (folder / "one.sqlite").read_bytes() == one.to_bytes()


def test_the_digest_can_be_computed_by_anybody() -> None:
    case = tiny_cases(1)[0].model_copy(update={"columns": {"sex": "F", "age": 61}})
    text = (
        MODEL + "\n"
        '{"case_id":"case-0000","patient_id":"patient-0000","label":%d,"label_source":"biopsy","label_certainty":"nodule",'
        '"malignancy":%r,"expert_score":%r,"reader_scores":[3.0,4.0,3.0],"diameter_mm":12.0,"columns":{"age":61,"sex":"F"}}\n'
    ) % (case.label, case.malignancy, case.expert_score)
    base = CaseBase.of([case], name="any", model_sha256=MODEL)
    assert base.digest() == hashlib.sha256(text.encode()).hexdigest()


def test_the_identity_is_the_files(path: Path) -> None:
    identity = CaseIndex(CaseBase.open(path)).identity
    assert identity.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (identity.name, identity.count) == ("tiny cases", 60)
    assert identity.malignant == sum(case.label for case in tiny_cases())


def test_pictures_travel_with_their_case(path: Path) -> None:
    new = tiny_cases(61)[60:]
    with CaseBase.edit(path) as base:
        base.add(new, pictures={"case-0060": {"slice": PNG, "cam": PNG + b"!"}})
    assert CaseBase.open(path).pictures("case-0060") == {"cam": PNG + b"!", "slice": PNG}
    with CaseBase.edit(path) as base:
        base.remove(["case-0060"])
        assert base.pictures("case-0060") == {}
        with pytest.raises(CaseBaseError, match=r"'case-0060' cannot be added .*png"):
            base.add(new, pictures={"case-0060": {"slice": b"GIF"}})
        assert len(base) == 60


def test_a_change_is_whole_or_not_at_all(path: Path) -> None:
    before = path.read_bytes()
    with CaseBase.edit(path) as base:
        with pytest.raises(CaseBaseError, match="'case-0007'"):
            base.add([*tiny_cases(70)[60:], tiny_cases()[7]])
        with pytest.raises(UsageError, match="'nobody'"):
            base.remove(["case-0001", "nobody"])
    assert path.read_bytes() == before
    with pytest.raises(UsageError, match="opened to be read"):
        CaseBase.open(path).add(tiny_cases(61)[60:])
    with pytest.raises(UsageError, match="already"):
        CaseBase.create(path, name="x", model_sha256=MODEL)


def test_a_case_with_a_value_that_none_may_have_is_not_called_a_double(path: Path) -> None:
    new = tiny_cases(61)[60]
    with CaseBase.edit(path) as base:
        for change in ({"malignancy": float("nan")}, {"expert_score": 7.0}):
            with pytest.raises(CaseBaseError, match=next(iter(change))) as caught:
                base.add([new.model_copy(update=change)])
            assert "already" not in caught.value.message
        with pytest.raises(CaseBaseError, match="already"):
            base.add([new, new])
        assert len(base) == 60


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_name_that_none_may_have(name: str) -> None:
    with pytest.raises(UsageError, match=f"the name of the case base has {len(name)} characters"):
        CaseBase.of((), name=name, model_sha256=MODEL)


def test_threads_share_one_base_that_is_edited(path: Path, tmp_path: Path) -> None:
    """Whoever comes while a transaction is open waits for its end, and finds nothing half done."""
    base, taken, seen = CaseBase.edit(path), threading.Event(), []

    def cases() -> Iterator[Case]:
        yield tiny_cases(61)[60]
        taken.set()
        reader.join(0.2)  # it cannot end before this transaction has
        yield tiny_cases(62)[61]

    def read() -> None:
        taken.wait()
        base.save(tmp_path / "copy.sqlite")
        seen.extend([len(base), len(CaseBase.open(tmp_path / "copy.sqlite"))])
        base.remove(["case-0060"])

    reader = threading.Thread(target=read)
    reader.start()
    base.add(cases())
    reader.join()
    assert seen == [62, 62]
    assert len(base) == 61


def test_one_writer_waits_for_the_other_and_readers_for_neither(path: Path) -> None:
    first = CaseBase.edit(path)
    taken, done = threading.Event(), threading.Event()

    def slowly() -> None:
        def cases() -> object:
            taken.set()
            done.wait()
            yield tiny_cases(61)[60]

        first.add(cases())  # type: ignore[arg-type]

    thread = threading.Thread(target=slowly)
    thread.start()
    taken.wait()
    assert len(CaseBase.open(path)) == 60
    second = CaseBase.edit(path)
    second._connection.execute("PRAGMA busy_timeout = 0")
    with pytest.raises(CaseBaseError) as caught:
        second.add(tiny_cases(62)[61:])
    assert caught.value.code == "case-base-busy"
    second._connection.execute("PRAGMA busy_timeout = 60000")
    done.set()
    second.add(tiny_cases(62)[61:])
    thread.join()
    assert len(CaseBase.open(path)) == 62


def test_an_index_outlives_changes_of_its_file(path: Path) -> None:
    index = CaseIndex(CaseBase.open(path))
    before = index.search("machine", malignancy=0.5, expert_score=3.0, k=60)
    with CaseBase.edit(path) as base:
        base.remove([case.case_id for case in tiny_cases(59)])
    path.write_bytes(b"gone")
    assert index.search("machine", malignancy=0.5, expert_score=3.0, k=60) == before


@pytest.mark.parametrize(
    ("spoil", "code", "word"),
    [
        (lambda p: p.unlink(), "case-base-missing", "No such file"),
        (lambda p: p.write_bytes(b""), "case-base-invalid", "empty"),
        (lambda p: p.write_bytes(b'{"cases": []}' * 100), "case-base-invalid", "not a database"),
        (lambda p: p.write_bytes(p.read_bytes()[:-4096]), "case-base-invalid", "malformed"),
        (lambda p: changed(p, "PRAGMA application_id = 7"), "case-base-invalid", "application_id is 0x7"),
        (lambda p: changed(p, "PRAGMA user_version = 2"), "case-base-version", "version 2"),
        (lambda p: changed(p, "PRAGMA user_version = 0"), "case-base-version", "version 0"),
        (lambda p: changed(p, "PRAGMA journal_mode = WAL"), "case-base-invalid", "WAL"),
        (lambda p: changed(p, "DELETE FROM cases"), "case-base-empty", "no cases"),
        (lambda p: changed(p, "DELETE FROM base"), "case-base-invalid", "which model"),
        (lambda p: changed(p, "DROP TABLE pictures"), "case-base-invalid", "a table is missing"),
        (lambda p: changed(p, "CREATE TABLE more (x)"), "case-base-invalid", "more"),
        (lambda p: changed(p, "CREATE VIEW v AS SELECT load_extension('x')"), "case-base-invalid", "v"),
        (
            lambda p: changed(p, "CREATE TRIGGER t AFTER DELETE ON cases BEGIN DELETE FROM base; END"),
            "case-base-invalid",
            "t",
        ),
        (
            lambda p: changed(
                p,
                "PRAGMA writable_schema = ON",
                "UPDATE sqlite_master SET type = CAST(type AS BLOB) WHERE name = 'base'",
            ),
            "case-base-invalid",
            "schema",
        ),
        (lambda p: changed(p, "ALTER TABLE cases ADD COLUMN x"), "case-base-invalid", "cases"),
        (lambda p: changed(p, "UPDATE cases SET label = 2"), "case-base-invalid", "CHECK"),
        (lambda p: changed(p, "UPDATE cases SET label = 'malignant'"), "case-base-invalid", "CHECK"),
        (lambda p: changed(p, "UPDATE cases SET malignancy = 1.5"), "case-base-invalid", "CHECK"),
        (lambda p: changed(p, "UPDATE cases SET expert_score = 'high'"), "case-base-invalid", "CHECK"),
        (lambda p: changed(p, "UPDATE cases SET diameter_mm = 9e999"), "case-base-invalid", "CHECK"),
        (lambda p: changed(p, "UPDATE cases SET label_certainty = 'perhaps'"), "case-base-invalid", "CHECK"),
        (lambda p: changed(p, "UPDATE cases SET patient_id = x'00'"), "case-base-invalid", "CHECK"),
        (lambda p: changed(p, "UPDATE cases SET patient_id = printf('%201d', 1)"), "case-base-invalid", "CHECK"),
        (lambda p: changed(p, "UPDATE reader_scores SET score = 6.0"), "case-base-invalid", "CHECK"),
        (
            lambda p: changed(p, "UPDATE base SET model_sha256 = upper(model_sha256) || 'X'"),
            "case-base-invalid",
            "CHECK",
        ),
    ],
)
def test_what_is_no_case_base(path: Path, spoil: Callable[[Path], object], code: str, word: str) -> None:
    spoil(path)
    refused(path, code, word)


def test_a_folder_and_a_giant(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path, "case-base-invalid")
    with pytest.raises(CaseBaseError, match="no case base at"):
        CaseBase.open("nul\0.sqlite")
    monkeypatch.setattr(schema, "MAX_BYTES", 1000)
    refused(path, "case-base-too-large", str(path.stat().st_size))


def renamed_to_a_view(path: Path) -> None:
    """The name is right and every word of the table's text stands there, but behind it is a view."""
    changed(
        path,
        "CREATE VIEW v AS SELECT * FROM cases",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET name = 'old' WHERE name = 'cases' AND type = 'table'",
        "UPDATE sqlite_master SET name = 'cases', tbl_name = 'cases' WHERE name = 'v'",
    )


@pytest.mark.parametrize(
    "spoil",
    [
        renamed_to_a_view,
        lambda p: changed(p, "CREATE TABLE g (a, b AS (a * 2))"),
        lambda p: changed(p, "CREATE INDEX i ON cases (label) WHERE label > 0"),
        lambda p: changed(p, "CREATE INDEX i ON cases (label)"),
        lambda p: changed(p, "ANALYZE"),
        lambda p: changed(p, "PRAGMA writable_schema = ON", "UPDATE sqlite_master SET rootpage = 2"),
        lambda p: changed(p, "PRAGMA writable_schema = ON", "UPDATE sqlite_master SET sql = sql || ' '"),
        lambda p: changed(p, "INSERT INTO free_columns SELECT case_id, 'big', 9e999 FROM cases LIMIT 1"),
        lambda p: changed(p, "INSERT INTO free_columns SELECT case_id, 'big', -9e999 FROM cases LIMIT 1"),
        lambda p: changed(p, "UPDATE cases SET malignancy = 9e999"),
        lambda p: changed(p, "UPDATE cases SET patient_id = CAST(x'80ff' AS TEXT)"),
        lambda p: changed(p, "UPDATE base SET name = CAST(x'80ff' AS TEXT)"),
    ],
)
def test_what_a_hostile_file_may_hold(path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(path)
    with pytest.raises(CaseBaseError) as caught:
        for _ in CaseIndex(CaseBase.open(path)).cases:
            pass
    assert (caught.value.code, caught.value.exit_code) == ("case-base-invalid", 4)
    assert "\n" not in caught.value.message


def test_what_sqlite_may_do_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value beyond the limit, a write to a base that is read, and more cases than memory is kept for."""
    reader = schema.connect_file(path, write=False)
    assert reader.execute("PRAGMA query_only").fetchone() == (1,)
    assert reader.execute("PRAGMA trusted_schema").fetchone() == (0,)
    assert reader.execute("PRAGMA cell_size_check").fetchone() == (1,)
    assert {limit: reader.getlimit(limit) for limit in schema.LIMITS} == schema.LIMITS
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM cases")
    with pytest.raises(sqlite3.DataError, match="too big"):
        reader.execute(f"SELECT zeroblob({2**27})")
    with pytest.raises(sqlite3.OperationalError, match=r"not authorized|no such function"):
        reader.execute("SELECT load_extension('x')")
    reader.close()
    with CaseBase.open(path) as base:
        count = len(base)
    monkeypatch.setattr(schema, "MAX_CASES", count - 1)
    refused(path, "case-base-too-large", f"{count} cases")


def test_a_fault_of_every_kind_is_found_when_it_is_edited_too(path: Path) -> None:
    changed(path, "UPDATE cases SET label = 2")
    with pytest.raises(CaseBaseError, match="CHECK") as caught:
        CaseBase.edit(path)
    assert caught.value.code == "case-base-invalid"
    changed(path, "PRAGMA user_version = 3")
    with pytest.raises(CaseBaseError) as caught:
        CaseBase.edit(path)
    assert caught.value.code == "case-base-version"


def test_verify_finds_what_hangs_in_the_air(path: Path) -> None:
    changed(path, "INSERT INTO reader_scores VALUES ('nobody', 0, 3.0)")
    with pytest.raises(CaseBaseError, match="not there"):
        CaseBase.open(path).verify()


def test_damage_anywhere(path: Path, tmp_path: Path) -> None:
    """A byte turned over is refused, or hits a value that may be so: nothing else comes out, and nothing crashes."""
    whole = path.read_bytes()
    outcomes = set()
    for position in [*range(100), *range(100, len(whole), 53)]:
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        other = tmp_path / "damaged.sqlite"
        other.write_bytes(damaged)
        try:
            index = CaseIndex(CaseBase.open(other))
            found = index.search("machine+expert", malignancy=0.5, expert_score=3.0, k=60)
            assert all(0.0 <= case.malignancy <= 1.0 and 1.0 <= case.expert_score <= 5.0 for case in found)
            outcomes.add("read")
        except CaseBaseError as error:
            outcomes.add(error.code)
    assert {"read", "case-base-invalid", "case-base-version"} <= outcomes


def test_one_of_another_model_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "b")
    assert len(CaseBase.of_bundle(bundle)) == 60
    with pytest.raises(CaseBaseError) as caught:
        tiny_base(model_sha256=MODEL).of_model(bundle)
    assert caught.value.code == "case-base-other-model"
    assert MODEL[:12] in caught.value.message
    assert bundle.model_sha256[:12] in caught.value.message
    manifest, files = tiny_parts()
    files["index/cases.sqlite"] = tiny_base(model_sha256=MODEL).to_bytes()
    with pytest.raises(CaseBaseError, match="tiny"):
        CaseIndex(write_bundle(tmp_path / "mixed", manifest=manifest, files=files))


@pytest.mark.parametrize("fault", ["empty", "noise", "short", "wal"])
def test_a_bundle_whose_case_base_is_none(tmp_path: Path, fault: str) -> None:
    """Well hashed and still wrong."""
    manifest, files = tiny_parts()
    content = files["index/cases.sqlite"]
    data = {
        "empty": b"",
        "noise": bytes(range(256)) * 100,
        "short": content[:-4096],
        "wal": content[:18] + b"\2\2" + content[20:],
    }[fault]
    bundle = write_bundle(tmp_path / "spoiled", manifest=manifest, files={**files, "index/cases.sqlite": data})
    with pytest.raises(CaseBaseError) as caught:
        CaseIndex(bundle)
    assert caught.value.code == "case-base-invalid"
    assert "index/cases.sqlite" in caught.value.message


def test_where_python_cannot_deserialize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is read in its place, and a zip says what to do."""
    make_tiny_bundle(tmp_path / "b")
    make_tiny_bundle(tmp_path / "b.zip")
    wanted = CaseIndex(Bundle.open(tmp_path / "b.zip")).identity
    monkeypatch.setattr(schema, "CAN_DESERIALIZE", False)
    assert CaseIndex(Bundle.open(tmp_path / "b")).identity == wanted
    alone = CaseBase.open(tmp_path / "b" / "index" / "cases.sqlite")
    assert CaseIndex(alone).identity.sha256 == alone.digest()
    with pytest.raises(CaseBaseError) as caught:
        CaseIndex(Bundle.open(tmp_path / "b.zip"))
    assert caught.value.code == "case-base-needs-sqlite"
    assert "unpack" in caught.value.hint
    opened = Bundle.open(tmp_path / "b")
    tiny_base(tiny_cases(9), model_sha256=opened.model_sha256).save(tmp_path / "b" / "index" / "cases.sqlite")
    with pytest.raises(CaseBaseError, match="changed after the bundle was opened"):
        CaseIndex(opened)


def test_it_is_written_whole(path: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        tiny_base().save(tmp_path / "no folder" / "cases.sqlite")
    CaseBase.of(tiny_cases(3), name="few", model_sha256=MODEL).save(path)
    assert len(CaseBase.open(path)) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["cases.sqlite"]


def test_python_reads_the_very_bytes_of_a_zip(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "b.zip")
    with zipfile.ZipFile(bundle.path) as archive, archive.open("index/cases.sqlite") as file:
        assert file.read() == bundle.read("index/cases.sqlite")
    assert CaseBase.of_bundle(bundle).sha256 == bundle.manifest.files["index/cases.sqlite"]


KILLED = """
import json, os, random, signal, sys, time
from bundle_factory import tiny_cases
from nodule_diag.cases.base import CaseBase

path, moments = sys.argv[1], int(sys.argv[2])
cases = {case.case_id: case for case in tiny_cases(40_000)}
order, chance, told = iter(list(cases)), random.Random(0), []
interrupted = 0
for moment in range(moments):
    read, write = os.pipe()
    batches = [[next(order) for _ in range(5)] for _ in range(100)]
    child = os.fork()
    if child == 0:
        with CaseBase.edit(path) as base:
            for batch in batches:
                base.add(cases[name] for name in batch)
                os.write(write, (" ".join(batch) + "\\n").encode())
        os._exit(0)
    os.close(write)
    told += os.read(read, 1 << 16).decode().split()  # the first commit, or the end
    time.sleep(chance.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 1 << 16):
        told += more.decode().split()
    os.close(read)
    interrupted += os.path.exists(path + "-journal")
    base = CaseBase.open(path)
    base.verify()
    held, _ = base.numbers()
    lost = sorted(set(told) - set(held))
    assert not lost, lost
    assert len(held) % 5 == 0, "half a transaction"
    assert all(cases[case.case_id] == case for case in base)
print(json.dumps({"told": len(told), "held": len(held), "interrupted": interrupted}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_fifty_moments_of_adding(tmp_path: Path) -> None:
    """Whatever was told to be on disk is there, and what is there is whole."""
    path = tmp_path / "cases.sqlite"
    CaseBase.create(path, name="growing", model_sha256=MODEL).close()
    tests = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), "50"],
        env={**os.environ, "PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["held"] >= counts["told"] >= 50 * 5


def test_a_journal_that_a_killed_writer_left_is_played_back(path: Path, tmp_path: Path) -> None:
    """Its pages stand half in the file; whoever opens it next, to read or to write, finds the last commit."""
    before = tiny_base().digest()
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("PRAGMA cache_spill = 1")
    writer.execute("BEGIN IMMEDIATE")
    writer.executemany(
        "INSERT INTO cases VALUES (?, 'p', 0, 'biopsy', 'nodule', 0.5, 3.0, NULL)",
        ((f"new-{n:06}",) for n in range(5000)),
    )
    journal = path.with_name(path.name + "-journal")
    for folder in ("read", "write"):
        (tmp_path / folder).mkdir()
        shutil.copy(path, tmp_path / folder / path.name)
        shutil.copy(journal, tmp_path / folder / journal.name)
    writer.close()
    assert (tmp_path / "read" / path.name).stat().st_size > 100_000
    assert CaseBase.open(tmp_path / "read" / path.name).digest() == before
    with CaseBase.edit(tmp_path / "write" / path.name) as base:
        assert base.digest() == before
