"""Native code in child processes: whatever ends one is an error in its parent, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nodule_diag.process import ChildDiedError, ChildLateError, ChildRefusedError, Children, NoChildError
from nodule_diag.process.children import PYTHON_VARIABLE, python

MIB = 2**20
ENOUGH = {"memory_bytes": 256 * MIB, "answer_bytes": 64 * MIB}
linux = pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")


@pytest.fixture
def children():
    with Children("child_work:worker", cpu_s=2) as them:
        yield them


def test_one_child_answers_all_requests_whatever_their_size(children):
    first, _ = children.ask(b"pid:", **ENOUGH)
    for count in (0, 1, 2**16, 2**16 + 1, 20 * MIB):
        data = os.urandom(count)
        assert children.ask(b"echo:" + data, **ENOUGH) == (data, "")
    assert children.ask(b"pid:", **ENOUGH)[0] == first != str(os.getpid()).encode()


@pytest.mark.parametrize(
    ("request_", "says"),
    [(b"crash:", "SIGSEGV"), (b"divide:", "SIGFPE"), (b"abort:", "SIGABRT"), (b"leave:", "status 3")],
)
def test_a_death_is_an_error_and_the_next_request_has_a_new_child(children, request_, says):
    before, _ = children.ask(b"pid:", **ENOUGH)
    with pytest.raises(ChildDiedError, match=says):
        children.ask(request_, **ENOUGH)
    assert children.ask(b"pid:", **ENOUGH)[0] != before


@linux
def test_time_is_limited(children):
    with pytest.raises(ChildLateError, match="too long"):
        children.ask(b"loop:", **ENOUGH)
    with pytest.raises(ChildLateError, match="too long"):
        children.ask(b"sleep:", **ENOUGH)
    with pytest.raises(ChildLateError, match="too long"):
        children.ask(b"sleep:", cpu_s=1, **ENOUGH)
    assert children.ask(b"echo:still here", **ENOUGH)[0] == b"still here"


def test_a_clock_that_strikes_with_the_answer_kills_nobody(monkeypatch):
    """Its thread looked whether it was cancelled before that was done, and comes to act after it."""

    class Late(threading.Timer):
        def cancel(self):
            super().cancel()
            self.function(*self.args)

    monkeypatch.setattr(threading, "Timer", Late)
    with Children("child_work:worker") as children:
        for said in (b"first", b"second"):
            assert children.ask(b"echo:" + said, **ENOUGH)[0] == said


def test_children_are_stopped_from_another_thread():
    """Whoever waits is told so, and nobody can ask any more."""
    with Children("child_work:worker", at_most=2, cpu_s=600) as children, ThreadPoolExecutor(2) as pool:
        children.ask(b"pid:", **ENOUGH)
        asked = [pool.submit(children.ask, b"sleep:", **ENOUGH) for _ in range(2)]
        while len(children._busy) < 2:
            time.sleep(0.01)
        children.stop()
        for one in asked:
            with pytest.raises(ChildDiedError, match="SIGKILL") as ended:
                one.result()
            assert not isinstance(ended.value, ChildLateError)
        with pytest.raises(ChildDiedError, match="stopped"):
            children.ask(b"pid:", **ENOUGH)


@linux
def test_memory_is_limited_for_each_request_anew(children):
    with pytest.raises(ChildRefusedError, match="MemoryError"):
        children.ask(f"take:{512 * MIB}".encode(), **ENOUGH)
    for _ in range(3):
        assert children.ask(f"take:{128 * MIB}".encode(), **ENOUGH)[0] == b""
    assert children.ask(f"take:{512 * MIB}".encode(), memory_bytes=1024 * MIB, answer_bytes=0)[0] == b""


def test_an_error_of_the_work_leaves_the_child_alive(children):
    before, _ = children.ask(b"pid:", **ENOUGH)
    with pytest.raises(ChildRefusedError, match="ZeroDivisionError"):
        children.ask(b"refuse:", **ENOUGH)
    assert children.ask(b"pid:", **ENOUGH)[0] == before


@linux
def test_what_libraries_print_comes_with_the_answer_and_goes_nowhere_else(children, capfd):
    assert children.ask(b"print:", **ENOUGH) == (b"said", "out err")
    assert children.ask(b"echo:", **ENOUGH) == (b"", "")
    answer, printed = children.ask(b"babble:", **ENOUGH)
    assert answer == b"said"
    assert 0 < len(printed) <= 2**16
    assert capfd.readouterr() == ("", "")


def test_a_longer_answer_than_was_due_is_not_taken(children):
    with pytest.raises(ChildDiedError, match="answered with 100,000 bytes, where 10 were due"):
        children.ask(b"echo:" + bytes(100_000), memory_bytes=MIB, answer_bytes=10)


def test_threads_share_as_many_children_as_are_allowed():
    with Children("child_work:worker", at_most=2) as children, ThreadPoolExecutor(8) as pool:
        data = [os.urandom(1000 * number) for number in range(60)]
        answers = list(pool.map(lambda part: children.ask(b"echo:" + part, **ENOUGH)[0], data))
        pids = set(pool.map(lambda _: children.ask(b"pid:", **ENOUGH)[0], range(60)))
    assert answers == data
    assert 1 <= len(pids) <= 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_work_that_cannot_be_loaded_is_no_death():
    with Children("child_work:broken") as children, pytest.raises(NoChildError, match="status 1"):
        children.ask(b"echo:", **ENOUGH)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_program_that_is_no_python(monkeypatch, tmp_path, children, frozen):
    """It must not be started again by its own name."""
    program = tmp_path / ("python-app" if frozen else "viewer")
    program.write_text("#!/bin/sh\ntouch started\n")
    program.chmod(0o755)
    here = sys.executable
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    assert python() != str(program)  # the interpreter beside it
    for prefix in ("exec_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, prefix, str(tmp_path))
    with pytest.raises(NoChildError, match=f"has none beside it; name one with {PYTHON_VARIABLE}"):
        children.ask(b"echo:", **ENOUGH)
    monkeypatch.setenv(PYTHON_VARIABLE, here)
    assert children.ask(b"echo:named", **ENOUGH)[0] == b"named"


def test_a_python_that_is_not_there(monkeypatch, children, tmp_path):
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "python3"))
    with pytest.raises(NoChildError, match="no process can be started"):
        children.ask(b"echo:", **ENOUGH)


HOST = """
import {signal}
from nodule_diag.process import Children, ChildDiedError
{more}
print("main module")
with Children("child_work:worker") as children:
    pid = int(children.ask(b"pid:", memory_bytes=2**28, answer_bytes=99)[0])
    {then}
"""


def host(*options, then, more="", env=None, **how):
    program = HOST.format(signal="signal, os, sys, time", more=more, then=textwrap.dedent(then).replace("\n", "\n    "))
    path = [f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"]
    return subprocess.Popen(
        [sys.executable, *options, "-c", "".join(path) + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        **how,
    )


@pytest.mark.parametrize("options", [["-I"], ["-S"], ["-I", "-S"]], ids=" ".join)
def test_the_child_finds_what_its_parent_finds(options, tmp_path):
    """Without environment, home or temporary folder; and no module of the host runs again."""
    process = host(*options, then="print(children.ask(b'echo:ok', memory_bytes=0, answer_bytes=9))", env={}, cwd="/")
    out, err = process.communicate(timeout=120)
    assert (out, err) == ("main module\n(b'ok', '')\n", "")


@pytest.mark.skipif(os.name != "posix", reason="SIGPIPE")
def test_a_host_that_dies_of_sigpipe_does_not(tmp_path):
    """Programs in C that embed Python leave SIGPIPE as it is."""
    then = """os.kill(pid, 9); time.sleep(0.2)
for _ in range(2):
    try:
        print(len(children.ask(b'echo:' + bytes(2**20), memory_bytes=2**28, answer_bytes=2**21)[0]))
    except ChildDiedError as error:
        print(error)"""
    process = host(more="signal.signal(signal.SIGPIPE, signal.SIG_DFL)", then=then)
    out, err = process.communicate(timeout=120)
    assert (out, err) == ("main module\nit was ended by SIGKILL\n1048576\n", "")
    assert process.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
@pytest.mark.parametrize("forked", [False, True], ids=["alone", "with a fork that holds the pipe"])
def test_children_end_with_their_parent(forked):
    fork = "os.fork() or (time.sleep(20), os._exit(0))\n" if forked else ""
    process = host(then=f"{fork}print(pid, flush=True); time.sleep(600)")
    assert process.stdout.readline() == "main module\n"
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    end = time.monotonic() + 60
    while time.monotonic() < end and _alive(pid):
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if not (status := Path(f"/proc/{pid}/stat")).exists():
        return True
    return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"  # of a container without init


def test_leaving_the_block_ends_children_and_closes_their_pipes():
    before = _descriptors()
    threads = threading.active_count()
    for _ in range(3):
        with Children("child_work:worker") as children:
            pid = int(children.ask(b"pid:", **ENOUGH)[0])
            with pytest.raises(ChildDiedError):
                children.ask(b"abort:", **ENOUGH)
            children.ask(b"echo:", **ENOUGH)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert _descriptors() == before
    assert threading.active_count() <= threads + 1  # a timer on its way out


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


def test_ctrl_c_ends_the_wait(children):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored, as in a job of a script
    children.ask(b"echo:", **ENOUGH)

    def interrupt():
        while not children._busy:
            time.sleep(0.01)
        time.sleep(0.3)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        children.ask(b"sleep:", **ENOUGH)
    thread.join()
    signal.signal(signal.SIGINT, before)
    assert children.ask(b"echo:again", **ENOUGH)[0] == b"again"
