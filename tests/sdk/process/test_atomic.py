"""A file is written whole or not at all."""

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from nodule_diag.errors import OutputError
from nodule_diag.process import atomic


def test_replaces_the_old_file(tmp_path):
    target = tmp_path / "result.json"
    target.write_bytes(b"old")
    atomic.write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_keeps_the_old_file(tmp_path):
    target = tmp_path / "result.nii.gz"
    target.write_bytes(b"old")

    def interrupted():
        with atomic.writing(target) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.name.endswith("result.nii.gz")
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        atomic.write_bytes(tmp_path / "nowhere" / "result.json", b"")


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path):
    target = tmp_path / "report.html"
    code = (
        "import os, signal, sys; from nodule_diag.process import writing\n"
        "with writing(sys.argv[1]) as t: t.write_text('a patient'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["a patient"]
    atomic.write_bytes(target, b"new")
    assert list(tmp_path.iterdir()) == [target]


def test_two_writers_do_not_take_each_others_file(tmp_path):
    target = tmp_path / "report.html"
    with atomic.writing(target) as one, atomic.writing(target) as other:
        one.write_bytes(b"one")
        other.write_bytes(b"other")
        assert one != other
    assert target.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize("there", ["link", "folder"])
def test_a_trap_under_the_temporary_name_is_left_alone(there, tmp_path):
    target, mine, trap = tmp_path / "report.html", tmp_path / "mine.txt", tmp_path / ".0.part.report.html"
    mine.write_bytes(b"mine")
    trap.mkdir() if there == "folder" else trap.symlink_to(mine)
    atomic.write_bytes(target, b"new")
    assert (target.read_bytes(), mine.read_bytes()) == (b"new", b"mine")
    assert sorted(tmp_path.iterdir()) == sorted([trap, mine, target])


def test_many_writers_at_once_leave_one_whole_file(tmp_path):
    target = tmp_path / "report.html"
    contents = [bytes([number]) * 100_000 for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: atomic.write_bytes(target, data), contents))
    assert target.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [target]


def test_a_name_that_changes_hands_before_the_lock_is_the_new_writers(tmp_path, monkeypatch):
    """Opened while its writer lived, locked after that one's rename: the name is another writer's by then."""
    target, second = tmp_path / "report.html", contextlib.ExitStack()
    lock = atomic.try_lock

    def late(descriptor):
        monkeypatch.setattr(atomic, "try_lock", lock)
        first.close()
        second.enter_context(atomic.writing(target)).write_bytes(b"second")
        lock(descriptor)

    with contextlib.ExitStack() as first, second:
        first.enter_context(atomic.writing(target)).write_bytes(b"first")
        monkeypatch.setattr(atomic, "try_lock", late)
        atomic.write_bytes(target, b"third")
    assert target.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [target]


def test_a_name_that_is_too_long_is_an_error(tmp_path):
    with pytest.raises(OutputError):
        atomic.write_bytes(tmp_path / ("x" * 300), b"")
