"""Engines that were compiled on this machine, kept so that each is compiled once.

The cache lies in ``$NODULE_DIAG_CACHE`` where that is set, else in ``engines`` below
:func:`nodule_diag.backends.user_cache.user_cache`. It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nodule_diag.backends.engines.store import EngineKey, EngineRefusedError, read_engine, sidecar_path, write_engine
from nodule_diag.backends.imports import import_installed
from nodule_diag.backends.user_cache import (
    CACHE_VARIABLE,
    cache_errors,
    make_private,
    read_private,
    user_cache,
    warn_without_cache,
)
from nodule_diag.errors import BackendError, OutputError
from nodule_diag.process import write_bytes

LOCK_TIMEOUT_S = 1800.0
"""How long one process waits for another that compiles the same engine; a build takes seconds to minutes."""
_SUM_BYTES = 32


def cache_folder() -> Path:
    """Where engines are kept; the folder need not exist."""
    return user_cache() if os.environ.get(CACHE_VARIABLE) else user_cache() / "engines"


class EngineCache:
    """Engines by key, built under a lock; safe to share between threads and processes.

    Args:
        folder: The folder; :func:`cache_folder` when left out.
        lock_timeout_s: How long to wait for another process that builds the same engine.
    """

    def __init__(self, folder: Path | None = None, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.folder = cache_folder() if folder is None else folder
        self._lock_timeout_s = lock_timeout_s

    def path_of(self, key: EngineKey) -> Path:
        """Where the engine of a key is kept."""
        return self.folder / key.file_name

    def get(self, key: EngineKey, *, build: Callable[[], bytes]) -> bytes:
        """The plan of a key, from the cache or built now.

        An engine that does not match exactly (other key, truncated, altered) is deleted and built again. While one
        process builds, others wait and use its result. Where the folder cannot be written, or other users can write
        in it, the cache is not used, with a warning.

        Args:
            key: What the engine must be.
            build: Compiles the engine; called once, with the lock held.

        Raises:
            BackendError: ``engine-lock-timeout`` when another process holds the lock for too long; the errors of
                ``build``.
            MissingExtraError: Without ``filelock``, which both TensorRT extras install.
        """
        if not self._is_private():
            return build()
        path = self.path_of(key)
        with suppress(EngineRefusedError):  # tried again under the lock: another process may be writing
            return read_engine(path, key=key)
        plan = b""
        try:
            with self._locked(path):
                with suppress(EngineRefusedError):
                    return read_engine(path, key=key)
                self._remove(path)
                plan = build()
                write_engine(path, plan, key=key)
        except OutputError as error:
            warn_without_cache(error)
        return plan or build()

    def discard(self, key: EngineKey) -> None:
        """Delete an engine that its runtime refused, with its description."""
        path = self.path_of(key)
        if self._is_private():
            with self._locked(path):
                self._remove(path)

    def load_blob(self, name: str) -> bytes | None:
        """The blob that :meth:`store_blob` kept under a file name: a timing cache, or kernels compiled at run time.

        None where the blob is missing or damaged: a blob only saves time.
        """
        try:
            data = read_private(self.folder / name, owners=(0,)) if self._is_private() else b""
        except OSError:
            return None
        content = data[_SUM_BYTES:]
        return content if content and hashlib.sha256(content).digest() == data[:_SUM_BYTES] else None

    def store_blob(self, name: str, content: bytes) -> None:
        """Write the blob's SHA-256 and then the blob, atomically; a warning where the file cannot be written."""
        if self._is_private():
            try:
                write_bytes(self.folder / name, hashlib.sha256(content).digest() + content)
            except OutputError as error:
                warn_without_cache(error)

    def _is_private(self) -> bool:
        """Whether the folder may be used; a warning where not."""
        try:
            make_private(self.folder)
        except OutputError as error:
            warn_without_cache(error)
            return False
        return True

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        # filelock uses the operating system's own lock on Linux, macOS and Windows. The lock is released whenever its
        # process ends, so a killed build blocks nobody.
        filelock = import_installed("filelock", package="filelock", extra="tensorrt", code="backend-broken")
        lock = filelock.FileLock(path.with_name(path.name + ".lock"), timeout=self._lock_timeout_s)
        with cache_errors(self.folder):
            try:
                lock.acquire()
            except filelock.Timeout as error:
                raise BackendError(
                    f"another process has been building {path.name} for {self._lock_timeout_s:.0f} s",
                    hint=f"end that process, or set {CACHE_VARIABLE} to another folder",
                    code="engine-lock-timeout",
                ) from error
        try:
            yield
        finally:
            lock.release()

    def _remove(self, path: Path) -> None:
        """Remove an engine, and the temporary files of a killed writer; the lock is held."""
        leftovers = [*path.parent.glob(f".*.{path.name}"), *path.parent.glob(f".*.{sidecar_path(path).name}")]
        with cache_errors(self.folder):
            for file in (path, sidecar_path(path), *leftovers):
                file.unlink(missing_ok=True)
