"""One writer at a time, with the operating system's own lock, which is released whenever its process ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nodule_diag.errors import OutputError

if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> None:
        """Lock an open file, or raise PermissionError where another process has it."""
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def try_lock(descriptor: int) -> None:
        """Lock an open file, or raise BlockingIOError where another process has it."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def sole_writer(file: Path, *, of: Path) -> Iterator[None]:
    """Hold a lock for the block; the lock file is removed afterwards. A second writer is refused and does not wait.

    Args:
        file: The lock. It is a file, because a folder cannot be locked on NFS.
        of: The folder that is written, for the message.

    Raises:
        OutputError: ``output-busy`` while another writer holds the lock; ``output-failed`` where locking fails.
    """
    descriptor = _locked(file, of)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove an open file
            file.unlink()
        os.close(descriptor)


def _locked(file: Path, of: Path) -> int:
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            raise OutputError(f"cannot write in {of}: {error.strerror or error}", hint="name another folder") from error
        try:
            try_lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # the previous holder has removed it
        except (BlockingIOError, PermissionError) as error:
            os.close(descriptor)
            raise OutputError(
                f"another process is writing in {of}",
                hint="wait for it, or name another folder: a folder holds one result",
                code="output-busy",
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise OutputError(
                f"{of} cannot be locked against other writers: {error.strerror or error}", hint="name another folder"
            ) from error
        os.close(descriptor)
