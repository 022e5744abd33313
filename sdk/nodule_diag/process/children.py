"""Runs native code in a child process, because damaged input may crash it, hang it or use all memory.

The death of a child is an error. A child is a new Python started by ``subprocess``. ``multiprocessing`` does not fit: a
spawned process runs the host's main module again, and a forked one inherits locks of threads that do not exist.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from nodule_diag.process.child import ANSWER, REQUEST, SAID_BYTES

PYTHON_VARIABLE = "NODULE_DIAG_PYTHON"
"""Names the Python to start where the host program is not Python itself: it embeds Python, or it is frozen."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")
_START_S = 60.0
_WALL_OVER_CPU = 4
"""Wall time per CPU time: a child on a busy machine may have to wait."""
_PROGRAM = """import sys
if sys.version_info[:2] != {version}:
    sys.exit("this is Python %d.%d" % sys.version_info[:2])
sys.path[:] = sys.argv[2:]
from nodule_diag.process.child import main
main(sys.argv[1])
"""


class NoChildError(RuntimeError):
    """A child cannot be started, so the request was not tried."""


class ChildDiedError(RuntimeError):
    """A request ended the child that worked on it."""


class ChildLateError(ChildDiedError):
    """A request took too long, and its child was ended."""


class ChildRefusedError(ValueError):
    """A child's work raised an error for a request."""


class Children:
    """Children that all do the same work, started when they are needed and ended with the block.

    Any thread may ask. Each child answers one request at a time; a dead child is replaced when it is next needed.

    Args:
        work: ``module:function`` that each child calls once: it returns a function, which takes the bytes of a request
            and returns the bytes of its answer.
        at_most: How many children there may be.
        cpu_s: Seconds of CPU time that a request may take.
    """

    def __init__(self, work: str, *, at_most: int = 1, cpu_s: int = 30) -> None:
        self._work, self._cpu_s = work, cpu_s
        self._free = threading.Semaphore(at_most)
        self._idle: list[_Child] = []
        self._lock = threading.Lock()
        self._busy: set[_Child] = set()
        self._stopped = False

    def __enter__(self) -> Children:
        """The children themselves; none is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End all children. No thread may still be asking."""
        while self._idle:
            self._idle.pop().end()

    def stop(self) -> None:
        """Kill the working children, from any thread; waiting callers get ``ChildDiedError``."""
        with self._lock:
            self._stopped = True
            for child in self._busy:
                child.kill()

    def ask(
        self, request: bytes, *, memory_bytes: int, answer_bytes: int, cpu_s: int | None = None
    ) -> tuple[bytes, str]:
        """Have a request answered.

        Args:
            request: The request in the work's own format.
            memory_bytes: How much the work may allocate; on Linux.
            answer_bytes: The longest accepted answer.
            cpu_s: Seconds of CPU time for this request, instead of the children's.

        Returns:
            The answer, and the output of libraries meanwhile.

        Raises:
            ChildRefusedError: If the work raised an error; its text is in the message.
            ChildDiedError: If the child died, or was stopped; ``ChildLateError`` if it took too long.
            NoChildError: If no child can be started.
        """
        limits = {"memory_bytes": memory_bytes, "answer_bytes": answer_bytes, "cpu_s": cpu_s or self._cpu_s}
        with self._free:
            if self._stopped:
                raise ChildDiedError("it was stopped")
            try:
                child = self._idle.pop()
            except IndexError:
                child = _Child(self._work)
            try:
                with self._at_work(child):
                    answer = child.ask(request, **limits)
            except ChildRefusedError:
                self._idle.append(child)
                raise
            except BaseException:
                child.end()
                raise
            self._idle.append(child)
            return answer

    @contextmanager
    def _at_work(self, child: _Child) -> Iterator[None]:
        with self._lock:
            if self._stopped:
                raise ChildDiedError("it was stopped")
            self._busy.add(child)
        try:
            yield
        finally:
            with self._lock:
                self._busy.remove(child)


class _Child:
    """One child process that is ready."""

    def __init__(self, work: str) -> None:
        program = _PROGRAM.format(version=tuple(sys.version_info[:2]))
        no_cache = ["-B"] * sys.dont_write_bytecode  # the host's setting applies to its children
        command = [python(), "-I", *no_cache, "-W", "ignore", "-c", program, work, *_absolute(sys.path)]
        self._printed = _memory_file()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the Python of this process, or the one the user names
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed or subprocess.DEVNULL,
                env=os.environ | _ONE_THREAD,
            )
        except OSError as error:
            self._close_printed()
            raise NoChildError(f"no process can be started: {error}") from error
        self._requests, self._answers = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        self._late = False
        try:
            self._answer(_START_S, 0)
        except BaseException as error:
            self.end()
            if isinstance(error, ChildDiedError):
                raise NoChildError(f"a process for it cannot be started: {error}") from error
            raise

    def ask(self, request: bytes, *, memory_bytes: int, answer_bytes: int, cpu_s: int) -> tuple[bytes, str]:
        """See `Children.ask`."""
        if self._printed:
            self._printed.seek(0)  # the child writes at this position
            self._printed.truncate()
        head = REQUEST.pack(len(request), memory_bytes, cpu_s)
        return self._answer(cpu_s * _WALL_OVER_CPU, answer_bytes, head, request)

    def _answer(self, seconds: float, answer_bytes: int, *parts: bytes) -> tuple[bytes, str]:
        """Send, and wait for the answer; a late child is killed, which ends the wait."""
        first = threading.Lock()  # taken by the answer or by the clock
        late = threading.Timer(seconds, self._kill_late, (first,))
        late.daemon = True
        late.start()
        try:
            with _to_the_living():
                self._requests.writelines(parts)
                self._requests.flush()
            head = self._answers.read(ANSWER.size)
            if len(head) < ANSWER.size:
                raise self._died()
            kind, count = ANSWER.unpack(head)
            if count > max(answer_bytes, SAID_BYTES):
                raise ChildDiedError(f"it answered with {count:,} bytes, where {answer_bytes:,} were due")
            answer = self._answers.read(count)
            if len(answer) < count or not first.acquire(blocking=False):
                raise self._died()
        finally:
            late.cancel()
        if kind:
            raise ChildRefusedError(answer.decode("utf-8", "replace"))
        return answer, self.printed()

    def _kill_late(self, first: threading.Lock) -> None:
        if first.acquire(blocking=False):
            self._late = True
            self._process.kill()

    def kill(self) -> None:
        """End the process; the caller that waits for its answer gets an error."""
        self._process.kill()

    def _died(self) -> ChildDiedError:
        """The error for the end of the child."""
        status = self._process.wait()
        if self._late or (os.name == "posix" and status == -signal.SIGXCPU):
            return ChildLateError("it took too long")
        if status < 0:
            with suppress(ValueError):
                return ChildDiedError(f"it was ended by {signal.Signals(-status).name}")
        said = self.printed().splitlines()
        return ChildDiedError(f"it ended with status {status}" + (f" ({said[-1]})" if said else ""))

    def printed(self) -> str:
        """The output since the request was sent."""
        if not self._printed:
            return ""
        self._printed.seek(0)
        return self._printed.read(SAID_BYTES).decode("utf-8", "replace")

    def end(self) -> None:
        """End the process and wait until it is gone."""
        self._process.kill()
        for pipe in (self._requests, self._answers):
            with _to_the_living():
                pipe.close()
        self._process.wait()
        self._close_printed()

    def _close_printed(self) -> None:
        if self._printed:
            self._printed.close()


def python() -> str:
    """The interpreter to start.

    Raises:
        NoChildError: If the program is not Python and there is none beside it.
    """
    if named := os.environ.get(PYTHON_VARIABLE):
        return named
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    at = [Path(sys.executable or "")] if not getattr(sys, "frozen", False) else []
    for prefix in (sys.exec_prefix, sys.base_exec_prefix):
        at += [Path(prefix, "bin", version), Path(prefix, "python.exe")]
    for path in at:
        if path.name.lower().startswith(("python", "pypy")) and path.is_file():
            return str(path)
    raise NoChildError(
        f"{sys.executable or 'the program'} is not a Python interpreter and has none beside it; "
        f"name one with {PYTHON_VARIABLE}"
    )


@contextmanager
def _to_the_living() -> Iterator[None]:
    """Ignore errors of writing to a dead child, even where SIGPIPE would kill the host, as in C programs."""
    if not hasattr(signal, "pthread_sigmask"):
        with suppress(OSError):
            yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        with suppress(OSError):
            yield
    finally:
        if signal.SIGPIPE not in before:
            if signal.SIGPIPE in signal.sigpending():
                signal.sigwait({signal.SIGPIPE})
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _absolute(path: list[str]) -> list[str]:
    with suppress(OSError):  # the working directory no longer exists
        return [os.path.abspath(entry) for entry in path]  # noqa: PTH100 - Path resolves no "" and no ".."
    return [entry for entry in path if os.path.isabs(entry)]  # noqa: PTH117


def _memory_file() -> IO[bytes] | None:
    """A file in memory without a name, where the system supports it."""
    if not hasattr(os, "memfd_create"):
        return None
    return open(os.memfd_create("nodule-diag"), "w+b", buffering=0)  # noqa: PTH123 - a descriptor, kept
