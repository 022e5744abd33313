"""Work for the child processes of tests/sdk/process/test_children.py: does what damage makes native code do."""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress


def worker():
    """What a child is asked with is a word and, behind a colon, what the word needs."""
    return answer


def answer(request: bytes) -> bytes:
    word, _, rest = request.partition(b":")
    return {
        b"echo": lambda: rest,
        b"pid": lambda: str(os.getpid()).encode(),
        b"refuse": lambda: 1 // 0,
        b"crash": lambda: ctypes.string_at(0),
        b"divide": lambda: os.kill(os.getpid(), signal.SIGFPE),
        b"leave": lambda: os._exit(3),
        b"abort": os.abort,
        b"loop": loop,
        b"sleep": lambda: time.sleep(600),
        b"take": lambda: bytes(len(bytearray(int(rest))) and 0),
        b"print": lambda: (os.write(1, b"out "), os.write(2, b"err"), b"said")[2],
        b"babble": babble,
        b"modules": lambda: "\n".join(sys.modules).encode(),
    }[word]()


def loop() -> bytes:
    while True:
        pass


def babble() -> bytes:
    with suppress(OSError):  # as a C library would
        for _ in range(100):
            os.write(2, b"x" * 2**16)
    return b"said"


def broken():
    """Work that cannot be loaded."""
    raise ImportError("no such decoder")
