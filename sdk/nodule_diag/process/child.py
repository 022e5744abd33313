"""The child's side of `nodule_diag.process.children`: answers one request after another until its parent is gone."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import IO

REQUEST = struct.Struct("<QQQ")
"""Bytes of the request that follows, and the bytes of memory and seconds of CPU allowed for its answer."""

ANSWER = struct.Struct("<BQ")
"""Whether this is an answer (0) or an error (1), and the bytes that follow."""

SAID_BYTES = 2**16
"""How much a native library may print; the rest is lost."""

_PARENT_CHECKED_S = 1.0


def main(work: str) -> None:
    """Serve the standard streams.

    Args:
        work: ``module:function``; called once, it returns a function. This function is called with the bytes of each
            request, and returns the bytes of the answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries goes to the parent's file
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    module, _, function = work.partition(":")
    answer: Callable[[bytes], bytes] = getattr(import_module(module), function)()
    _send(answers, 0, b"")  # ready
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        count, memory_bytes, seconds = REQUEST.unpack(head)
        request = requests.read(count)
        if len(request) < count:
            return
        _limit(memory_bytes, seconds, count)
        try:
            _send(answers, 0, answer(request))
        except Exception as error:  # noqa: BLE001 - the parent raises it
            _send(answers, 1, f"{type(error).__name__}: {error}".encode("utf-8", "replace")[-SAID_BYTES:])


def _send(answers: IO[bytes], kind: int, data: bytes) -> None:
    answers.write(ANSWER.pack(kind, len(data)))
    answers.write(data)
    answers.flush()


def _leave_with(parent: int) -> None:
    """End when the parent has ended, because another process of the parent may still hold the pipe open."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECKED_S)
    os._exit(1)


def _limit(memory_bytes: int, seconds: int, file_bytes: int) -> None:
    """Set limits beyond the current use. No core is dumped, because it would hold a patient's pixels."""
    if sys.platform != "linux":  # other systems have no such limits, or ignore them
        return
    import resource

    with open("/proc/self/statm") as file:  # noqa: PTH123 - pathlib costs an import
        pages = int(file.read().split()[0])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes),
        (resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + 1 + seconds),
        (resource.RLIMIT_FSIZE, file_bytes + SAID_BYTES),  # also for files in memory
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
