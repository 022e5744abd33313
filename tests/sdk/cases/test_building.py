"""A new case base: built a CT at a time, killed at every stage, gone on with, and the same file in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from case_tables import Model, phantom_table
from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.building import build_case_base, unfinished
from nodule_diag.cases.judging import Filled, Progress
from nodule_diag.cases.table import Listed, read_case_table
from nodule_diag.errors import BackendError, CTError, OutputError, UsageError

MODEL = "0123456789abcdef" * 4


class DiesAt(Model):
    """A model whose computer fails at a call."""

    def __init__(self, call: int) -> None:
        self.left = call

    def predict(self, ct: object, points: Sequence[tuple[float, float, float]]) -> list[object]:  # type: ignore[override]
        self.left -= 1
        if self.left < 0:
            raise BackendError("the card fell out")
        return super().predict(ct, points)  # type: ignore[arg-type, return-value]


def built(out: Path, rows: Sequence[Listed], model: object = None, *, name: str = "phantoms", **how: object) -> Filled:
    load = lambda: model or Model()  # noqa: E731
    return build_case_base(out, rows, load, name=name, model_sha256=MODEL, **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_table(tmp_path_factory.mktemp("phantoms"), 4)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_goes_on_where_it_was_and_the_bytes_are_the_same(table: Path, tmp_path: Path) -> None:
    rows = read_case_table(table, columns=["age"])
    assert built(tmp_path / "whole.sqlite", rows, pictures=True) == Filled(added=8)
    whole = (tmp_path / "whole.sqlite").read_bytes()
    out = tmp_path / "out.sqlite"
    for call in (2, 1):
        with pytest.raises(BackendError, match="fell out"):
            built(out, rows, DiesAt(call), pictures=True)
        assert unfinished(out)
        assert not out.exists()
    told: list[Progress] = []
    assert built(out, rows, pictures=True, progress=told.append) == Filled(added=2, there=6)
    assert [at.path and at.path.name for at in told] == ["ct03.nii", None]
    assert out.read_bytes() == whole
    assert files(tmp_path) == ["out.sqlite", "whole.sqlite"]


def test_what_was_mended_in_between_is_done_anew(table: Path, tmp_path: Path) -> None:
    rows, out = read_case_table(table), tmp_path / "out.sqlite"
    with pytest.raises(BackendError):
        built(out, rows, DiesAt(3))
    mended = [rows[0]._replace(xyz_lps_mm=(1.0, 2.0, 3.0)), *rows[1:3], rows[3].with_case(label=1), *rows[4:7]]
    assert built(out, mended) == Filled(added=3, there=4)  # the place, the label, and one that was never done
    assert built(tmp_path / "whole.sqlite", mended) == Filled(added=7)
    assert out.read_bytes() == (tmp_path / "whole.sqlite").read_bytes()


def test_with_pictures_or_by_another_name_it_begins_anew(table: Path, tmp_path: Path) -> None:
    rows, out = read_case_table(table), tmp_path / "out.sqlite"
    for how in ({}, {"name": "another"}, {"pictures": True}):
        with pytest.raises(BackendError):
            built(out, rows, DiesAt(1), **how)  # type: ignore[arg-type]
    assert built(out, rows, pictures=True) == Filled(added=6, there=2)
    base = CaseBase.open(out)
    assert (base.name, base.pictured) == ("phantoms", 8)


def test_a_damaged_part_begins_anew(table: Path, tmp_path: Path) -> None:
    rows, out = read_case_table(table), tmp_path / "out.sqlite"
    for spoil in ("cases.sqlite", "plan.json"):
        with pytest.raises(BackendError):
            built(out, rows, DiesAt(1))
        (tmp_path / ".out.sqlite.building" / spoil).write_bytes(b"spoilt" * 1000)
    assert built(out, rows) == Filled(added=8)


def test_one_broken_ct_stops_no_other(table: Path, tmp_path: Path) -> None:
    rows = read_case_table(table)
    broken, far = tmp_path / "broken.nii", (0.0, 0.0, 9000.0)
    broken.write_bytes(b"no CT")

    class Strict(Model):
        def predict(self, ct: object, points: Sequence[tuple[float, float, float]]) -> list[object]:  # type: ignore[override]
            from nodule_diag.errors import CoordinateError

            if far in points:
                raise CoordinateError("far away")
            if points[0] == (7.0, 7.0, 7.0):
                raise ZeroDivisionError("a bug")
            return super().predict(ct, points)  # type: ignore[arg-type, return-value]

    mixed = [
        rows[0]._replace(path=broken), rows[1], rows[2]._replace(xyz_lps_mm=far), rows[3],
        rows[4]._replace(xyz_lps_mm=(7.0, 7.0, 7.0)), *rows[5:],
    ]  # fmt: skip
    filled = built(tmp_path / "out.sqlite", mixed, Strict())
    codes = {one.case_id: one.error.code for one in filled.failed}
    assert codes == {
        "n00-0": "ct-damaged", "n01-0": "coordinate-rejected", "n02-0": "unforeseen", "n02-1": "unforeseen"
    }  # fmt: skip
    assert [case.case_id for case in CaseBase.open(tmp_path / "out.sqlite")] == ["n00-1", "n01-1", "n03-0", "n03-1"]
    assert files(tmp_path) == ["broken.nii", "out.sqlite"]


def test_nothing_stays_where_nothing_could_be_judged(table: Path, tmp_path: Path) -> None:
    rows = [row._replace(path=tmp_path / "absent.nii") for row in read_case_table(table)]
    with pytest.raises(CTError, match=r"absent\.nii, case 'n00-0'"):
        built(tmp_path / "out.sqlite", rows)
    assert files(tmp_path) == []


def test_what_is_there_is_left_alone(table: Path, tmp_path: Path) -> None:
    rows, out = read_case_table(table), tmp_path / "out.sqlite"
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match="already"):
        built(out, rows)
    out.unlink()
    with pytest.raises(BackendError):
        built(out, rows, DiesAt(1))
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match="already"):
        built(out, rows)
    assert out.read_bytes() == b"mine"


def test_a_second_builder_is_refused(table: Path, tmp_path: Path) -> None:
    rows, out = read_case_table(table), tmp_path / "out.sqlite"
    told: list[str] = []

    def meanwhile(_: Progress) -> None:
        if not told:
            with pytest.raises(OutputError) as caught:
                built(out, rows)
            told.append(caught.value.code)

    assert built(out, rows, progress=meanwhile) == Filled(added=8)
    assert told == ["output-busy"]


def test_a_link_in_the_place_of_the_work_is_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.sqlite.building").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link"):
        built(tmp_path / "out.sqlite", read_case_table(table))


KILLED = """
import json, os, signal, sys
from pathlib import Path
from case_tables import Model
from nodule_diag.cases import judging
from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.building import build_case_base
from nodule_diag.cases.table import read_case_table

folder, out = Path(sys.argv[1]), Path(sys.argv[1], "out.sqlite")
rows = read_case_table(sys.argv[2], columns=["age"])
cts = {row.path: judging.read_ct(row.path) for row in rows}
judging.read_ct = cts.get
add = CaseBase.add
reached = 0

def build(die_at=None):
    "Build; before the n-th moment the process is no more. A moment: a file of ours is touched, or a row goes in."
    global reached
    reached = 0

    def moment():
        global reached
        reached += 1
        if reached == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event, arguments):
        if event in {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "sqlite3.connect"}:
            if str(folder) in str(arguments[0]):
                moment()

    def add_slowly(self, cases, *, pictures=None):
        def one_by_one():
            for case in cases:
                moment()
                yield case
            moment()
        add(self, one_by_one(), pictures=pictures)

    sys.addaudithook(hook)
    CaseBase.add = add_slowly
    return build_case_base(
        out, rows, Model, name="phantoms", model_sha256="0" * 64, progress=lambda _: moment()
    )

def in_child(die_at=None):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        filled = build(die_at)
        os.write(write, json.dumps([filled.added, filled.there, reached]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        text = told.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None

added, there, moments = in_child()
assert (added, there) == (len(rows), 0)
whole = out.read_bytes()
kept = []
for moment in range(1, moments + 1):
    out.unlink()
    assert in_child(moment) is None, moment
    finished = out.exists()
    added, there, _ = in_child()
    assert added + there == len(rows) and (there == len(rows) or not finished), (moment, added, there)
    assert out.read_bytes() == whole, moment
    assert os.listdir(folder) == ["out.sqlite"], (moment, os.listdir(folder))
    kept.append(there)
assert kept == sorted(kept), kept
print(json.dumps([moments, kept]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_stage_of_twenty_phantoms(tmp_path: Path) -> None:
    """kill -9 before each file that is touched and each row that goes in; the next run keeps every CT that was done."""
    (tmp_path / "cts").mkdir()
    (tmp_path / "out").mkdir()
    table = phantom_table(tmp_path / "cts", 20)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "out"), str(table)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    moments, kept = json.loads(done.stdout)
    assert moments > 20 * 4
    assert set(kept) == {2 * number for number in range(21)}, "every CT was the first that was not kept"
