"""Killed at any moment: no mixed, torn or lost result, and nothing of a patient in a temporary folder.

strace delivers the signal when the program is about to make a chosen system call, so the moments are the same whatever
the machine's speed: every call that writes a result, and others drawn from the rest of the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

import ct_files
from bundle_factory import tiny_base
from case_tables import phantom_table
from guard import STRACE
from marked_files import with_patient
from nodule_diag.bundle import Bundle
from nodule_diag.cases import rows
from nodule_diag.cases.base import CaseBase
from nodule_diag.ct.phantom import chest_phantom
from nodule_diag.process import sweep_dead, write_bytes
from nodule_diag_cli.demo import write_ct
from nodule_diag_cli.out import opened

CALLS = ("openat", "read", "write", "pwrite64", "mkdir", "rmdir", "rename", "unlink", "fsync", "fdatasync", "ftruncate")
CLI = "import sys; sys.argv[0] = 'nodule-diag'; from nodule_diag_cli.main import main; main()"
ADD = """
import sys
from nodule_diag.cases import CaseBase
with CaseBase.edit(sys.argv[1]) as base:
    base.add([case.model_copy(update={"case_id": f"new-{case.case_id}"}) for case in base])
"""
OLD, NEW = ("--xyz", "-72", "-18", "-135"), ("--xyz", "119.1", "22", "-190", "--xyz", "-84", "38.5", "-205")


def _strace_works() -> bool:
    return bool(STRACE) and subprocess.run([STRACE, "-qq", "-o", os.devnull, "true"], check=False).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _strace_works(), reason="strace is not installed, or may trace nothing here"),
]


@dataclass(frozen=True)
class Moment:
    """Before the n-th call of a kind in the program's first thread."""

    call: str
    number: int


@dataclass(frozen=True)
class Job:
    """A program and its arguments, with a place of its own."""

    code: str
    words: tuple[str, ...]
    place: Path

    def run(self, *strace: str) -> int:
        for name in ("home", "tmp"):
            (self.place / name).mkdir(exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.place / "home"), "TMPDIR": str(self.place / "tmp")}
        line = [str(STRACE), "-f", "-qq", *strace, sys.executable, "-B", "-c", self.code, *self.words]
        ended = subprocess.run(
            line, cwd=self.place, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=False
        )
        assert b"Traceback" not in ended.stderr, ended.stderr
        for name in ("home", "tmp"):
            assert list((self.place / name).iterdir()) == []
        return ended.returncode

    def moments(self) -> list[tuple[Moment, str]]:
        """Every moment of a whole run with the call's text, in order."""
        log = self.place / "log"
        assert self.run("-o", str(log), "-y", "-e", f"trace={','.join(CALLS)}") == 0
        lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
        first = lines[0][0]
        counts: Counter[str] = Counter()
        found = []
        for thread, text in lines:
            name = re.match(r"\w+", text)
            if thread == first and name and name[0] in CALLS:
                counts[name[0]] += 1
                found.append((Moment(name[0], counts[name[0]]), text))
        return found

    def killed(self, moment: Moment, by: signal.Signals) -> int:
        chosen = f"inject={moment.call}:signal={by.name}:when={moment.number}"
        return self.run("-o", os.devnull, "-e", f"trace={moment.call}", "-e", chosen)


def drawn(moments: list[tuple[Moment, str]], count: int, *, written: str, seed: int) -> list[Moment]:
    """Half of the moments evenly over the calls that name what is written, the others at random from the whole run."""
    names = [at for at, (_, text) in enumerate(moments) if written in text]
    evenly = [names[int(at)] for at in np.linspace(0, len(names) - 1, count // 2).round()]
    rest = range(len(moments) // 10, len(moments))  # the first tenth starts Python
    return [moments[at][0] for at in (*evenly, *random.Random(seed).sample(rest, count - count // 2))]


def each(
    make: Callable[[Path], Job],
    check: Callable[[Job, int], None],
    tmp_path: Path,
    plan: list[tuple[Moment, signal.Signals]],
) -> Counter[int]:
    """Run and check every kill of a plan; returns how the programs ended."""

    def one(numbered: tuple[int, tuple[Moment, signal.Signals]]) -> int:
        number, (moment, by) = numbered
        place = tmp_path / str(number)
        place.mkdir()
        job = make(place)
        code = job.killed(moment, by)
        assert code in {0, -by, 128 + by}, (moment, by, code)
        check(job, code)
        shutil.rmtree(place)
        return code

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return Counter(pool.map(one, enumerate(plan)))


def result(out: Path) -> tuple[str, set[str]]:
    """The CT of the one result in a folder and its maps, each of which is what its name says."""
    document = json.loads((out / "prediction.json").read_text())
    names = {name for nodule in document["nodules"] for name in nodule["maps"].values()}
    for name in names:
        assert hashlib.sha256((out / name).read_bytes()).hexdigest()[:16] in name
    return Path(document["ct"]["path"]).name, names


def test_predict_out(tiny_bundle: Path, tmp_path: Path) -> None:
    """One patient's result is replaced by another's: 60 times killed, 24 times asked to end."""
    first = write_ct(tmp_path / "first.nii", chest_phantom(spacing_zyx_mm=(5.0, 4.0, 4.0)).ct)
    second = write_ct(tmp_path / "second.nii", chest_phantom(spacing_zyx_mm=(5.0, 4.0, 4.2)).ct)
    words = ("--bundle", str(tiny_bundle), "--backend", "onnxruntime", "--no-lung-check", "--json", "--out")
    old = Job(CLI, ("predict", str(first), *OLD, *words, str(tmp_path / "old")), tmp_path)
    assert old.run("-o", os.devnull, "-e", "trace=none") == 0

    def make(place: Path) -> Job:
        shutil.copytree(tmp_path / "old", place / "out")
        (place / "out" / "notes.txt").write_text("mine")
        return Job(CLI, ("predict", str(second), *NEW, *words, str(place / "out")), place)

    (tmp_path / "whole").mkdir()
    whole = make(tmp_path / "whole")
    moments = whole.moments()
    results = dict((result(tmp_path / "old"), result(tmp_path / "whole" / "out")))
    assert sorted(results) == ["first.nii", "second.nii"]
    found: Counter[str] = Counter()

    def check(job: Job, code: int) -> None:
        out = job.place / "out"
        whose, maps = result(out)
        assert maps == results[whose]
        if code < 0:  # killed: what it left is gone once the next one begins
            with opened(out, ["1"]):
                pass
        assert {path.name for path in out.iterdir()} == {*maps, "prediction.json", "notes.txt"}
        found[whose] += 1

    plan = [(moment, signal.SIGKILL) for moment in drawn(moments, 60, written=".nodule-diag", seed=1)]
    plan += [(moment, signal.SIGTERM) for moment in drawn(moments, 24, written=".nodule-diag", seed=2)]
    ended = each(make, check, tmp_path, plan)
    assert ended[-signal.SIGKILL] > 50
    assert ended[128 + signal.SIGTERM] > 12
    assert min(found["first.nii"], found["second.nii"]) >= 2, "before and after the change"


def test_adding_cases_by_the_sdk(tmp_path: Path) -> None:
    """All of them or none: 8 times killed, 4 times asked to end."""
    tiny_base().save(tmp_path / "old.sqlite")

    def make(place: Path) -> Job:
        shutil.copy(tmp_path / "old.sqlite", place / "cases.sqlite")
        return Job(ADD, (str(place / "cases.sqlite"),), place)

    (tmp_path / "whole").mkdir()
    whole = make(tmp_path / "whole")
    moments = whole.moments()
    digests = {
        CaseBase.open(path).digest(): count
        for path, count in ((tmp_path / "old.sqlite", 60), (Path(whole.words[0]), 120))
    }
    found: Counter[int] = Counter()

    def check(job: Job, _: int) -> None:
        with CaseBase.edit(job.words[0]) as base:  # plays a journal back
            base.verify()
            assert digests[base.digest()] == len(base)
            found[len(base)] += 1
            base.remove(["case-0000"])  # the next one's transaction takes away a journal that had nothing to play back
        assert {path.name for path in job.place.iterdir()} == {"cases.sqlite", "home", "tmp"}

    plan = [(moment, signal.SIGKILL) for moment in drawn(moments, 8, written="cases.sqlite", seed=3)]
    plan += [(moment, signal.SIGTERM) for moment in drawn(moments, 4, written="cases.sqlite", seed=4)]
    each(make, check, tmp_path, plan)
    assert found[60] > 3


def test_cases_add(tiny_bundle: Path, tmp_path: Path) -> None:
    """The cases of each CT come together: 20 times killed, 8 times asked to end. The same command goes on."""
    table = phantom_table(tmp_path, count=2)
    old = tiny_base(model_sha256=Bundle.open(tiny_bundle).model_sha256)
    old.save(tmp_path / "old.sqlite")
    words = (str(table), "--column", "age", "--bundle", str(tiny_bundle), "--backend", "onnxruntime")

    def make(place: Path) -> Job:
        shutil.copy(tmp_path / "old.sqlite", place / "cases.sqlite")
        return Job(CLI, ("cases", "add", str(place / "cases.sqlite"), *words), place)

    (tmp_path / "whole").mkdir()
    whole = make(tmp_path / "whole")
    moments = whole.moments()
    done = rows_of(whole.place / "cases.sqlite")
    assert len(done) == 64
    found: Counter[int] = Counter()

    def check(job: Job, _: int) -> None:
        file = job.place / "cases.sqlite"
        with CaseBase.edit(file) as base:  # plays a journal back
            base.verify()
        now = rows_of(file)
        assert all(done[name] == row for name, row in now.items())
        assert len(now) in {60, 62, 64}
        found[len(now)] += 1
        if int(job.place.name) % 4 == 0:
            assert job.run("-o", os.devnull, "-e", "trace=none") == 0
            assert rows_of(file) == done
        with CaseBase.edit(file) as base:  # takes away a journal that had nothing to play back
            base.remove(["case-0000"])
        assert {path.name for path in job.place.iterdir()} == {"cases.sqlite", "home", "tmp"}

    plan = [(moment, signal.SIGKILL) for moment in drawn(moments, 20, written="cases.sqlite", seed=7)]
    plan += [(moment, signal.SIGTERM) for moment in drawn(moments, 8, written="cases.sqlite", seed=8)]
    each(make, check, tmp_path, plan)
    assert found[60] > 3
    assert found[62] + found[64] > 3


def rows_of(file: Path) -> dict[str, dict[str, object]]:
    """The cases of a base by their ids."""
    with CaseBase.open(file) as base:
        return {row["case_id"]: row for row in rows(base)}


def test_cases_build(tiny_bundle: Path, tmp_path: Path) -> None:
    """A file that is whole or none, and what is done is kept: 6 times killed, 3 times asked to end."""
    table = phantom_table(tmp_path, count=2)
    words = (str(table), "--bundle", str(tiny_bundle), "--backend", "onnxruntime", "--out")

    def make(place: Path) -> Job:
        return Job(CLI, ("cases", "build", *words, str(place / "made.sqlite")), place)

    (tmp_path / "whole").mkdir()
    whole = make(tmp_path / "whole")
    moments = whole.moments()
    done = rows_of(whole.place / "made.sqlite")

    def check(job: Job, _: int) -> None:
        file = job.place / "made.sqlite"
        if file.exists():
            assert rows_of(file) == done
            file.unlink()  # an existing file is not built over
        assert {path.name for path in job.place.iterdir()} <= {"home", "tmp", ".made.sqlite.building"}
        assert job.run("-o", os.devnull, "-e", "trace=none") == 0
        assert rows_of(file) == done
        assert {path.name for path in job.place.iterdir()} == {"made.sqlite", "home", "tmp"}

    plan = [(moment, signal.SIGKILL) for moment in drawn(moments, 6, written="made.sqlite", seed=9)]
    plan += [(moment, signal.SIGTERM) for moment in drawn(moments, 3, written="made.sqlite", seed=10)]
    each(make, check, tmp_path, plan)


def test_report_positions_and_dicom_objects(tiny_bundle: Path, tmp_path: Path) -> None:
    """Each file is the old one or the new one, whole: 16 times killed, 6 times asked to end."""
    pytest.importorskip("highdicom")
    pytest.importorskip("jinja2")
    first, second = (dicom(tmp_path / name, named=name) for name in ("first", "second"))
    words = ("--xyz", "14", "16", "6", "--space", "voxel", "--bundle", str(tiny_bundle), "--backend", "onnxruntime")

    def job(ct: Path, place: Path) -> Job:
        out = ("--report", "r.html", "--identity", "--positions-out", "p.csv", "--dicom-out", str(place / "objects"))
        return Job(CLI, ("predict", str(ct), *words, *out), place)

    (tmp_path / "old").mkdir()
    assert job(first, tmp_path / "old").run("-o", os.devnull, "-e", "trace=none") == 0

    def make(place: Path) -> Job:
        for name in ("r.html", "p.csv"):
            shutil.copy(tmp_path / "old" / name, place / name)
        return job(second, place)

    (tmp_path / "whole").mkdir()
    whole = make(tmp_path / "whole")
    moments = whole.moments()
    objects = {path.name for path in (whole.place / "objects").iterdir()}
    assert "measurements.dcm" in objects
    ends: Counter[str] = Counter()

    def check(job: Job, code: int) -> None:
        page = (job.place / "r.html").read_text()
        assert page.rstrip().endswith("</html>")
        assert ("patient-first" in page) != ("patient-second" in page)
        ends["second" if "patient-second" in page else "first"] += 1
        assert (job.place / "p.csv").read_bytes() == (tmp_path / "old" / "p.csv").read_bytes()  # the same place
        folder = job.place / "objects"
        if code == -signal.SIGKILL:  # what it left beside its files goes with the next ones
            for name in ("r.html", "p.csv"):
                write_bytes(job.place / name, b"next")
            if folder.exists():
                sweep_dead(folder)
        assert {path.name for path in job.place.iterdir()} <= {"r.html", "p.csv", "objects", "home", "tmp"}
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        assert there <= objects
        for name in there:
            assert dcmread(folder / name).PatientName == "Patient^second"
        if "measurements.dcm" in there or code != -signal.SIGKILL:
            assert there in (objects, set())

    plan = [(moment, signal.SIGKILL) for moment in drawn(moments, 16, written=".part.", seed=11)]
    plan += [(moment, signal.SIGTERM) for moment in drawn(moments, 6, written=".part.", seed=12)]
    each(make, check, tmp_path, plan)
    assert min(ends.values()) >= 2


def dicom(folder: Path, *, named: str) -> Path:
    """A series of a patient."""
    slices = with_patient(ct_files.dicom_slices(), f"Patient^{named}")
    for item in slices:
        item.PatientID = f"patient-{named}"
    return ct_files.save_series(folder, slices)


def test_grand_challenge(tiny_bundle: Path, tmp_path: Path) -> None:
    """The old answer or the new one: 6 times killed, 3 times asked to end."""
    images = tmp_path / "input" / "images" / "chest-ct"
    images.mkdir(parents=True)
    ct_files.write(images / "1.2.3.mha", ct_files.image())
    points = {"points": [{"name": "1", "point": [-10.0, 20.0, -115.0]}]}
    (tmp_path / "input" / "nodule-locations.json").write_text(json.dumps(points))
    name = "lung-nodule-malginancy-likelihoods.json"

    def make(place: Path) -> Job:
        (place / "output").mkdir()
        (place / "output" / name).write_text("old")
        words = ("--input", str(tmp_path / "input"), "--output", str(place / "output"), "--bundle", str(tiny_bundle))
        return Job(CLI, ("grand-challenge", *words, "--backend", "onnxruntime"), place)

    (tmp_path / "whole").mkdir()
    whole = make(tmp_path / "whole")
    moments = whole.moments()
    done = (whole.place / "output" / name).read_text()
    assert json.loads(done)["points"]

    def check(job: Job, _: int) -> None:
        file = job.place / "output" / name
        assert file.read_text() in {"old", done}
        write_bytes(file, b"next")
        assert list(file.parent.iterdir()) == [file]

    plan = [(moment, signal.SIGKILL) for moment in drawn(moments, 6, written=name, seed=13)]
    plan += [(moment, signal.SIGTERM) for moment in drawn(moments, 3, written=name, seed=14)]
    each(make, check, tmp_path, plan)


def test_reading_a_zip(tiny_bundle: Path, tmp_path: Path) -> None:
    """Nothing is ever unpacked: 20 times killed, 8 times asked to end."""
    folder = ct_files.save_series(tmp_path / "series", ct_files.dicom_slices())
    zipped = ct_files.zipped(folder, tmp_path / "series.zip")
    before = zipped.read_bytes()
    words = ("predict", str(zipped), "--xyz", "0", "0", "0", "--space", "voxel", "--bundle", str(tiny_bundle), "--json")

    def make(place: Path) -> Job:
        return Job(CLI, (*words, "--backend", "onnxruntime"), place)

    def check(job: Job, _: int) -> None:
        assert {path.name for path in job.place.iterdir()} == {"home", "tmp"}
        assert zipped.read_bytes() == before

    (tmp_path / "whole").mkdir()
    moments = make(tmp_path / "whole").moments()
    plan = [(moment, signal.SIGKILL) for moment in drawn(moments, 20, written="series.zip", seed=5)]
    plan += [(moment, signal.SIGTERM) for moment in drawn(moments, 8, written="series.zip", seed=6)]
    each(make, check, tmp_path, plan)
