"""One number of threads for every library that a part uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from nodule_diag.threads import filter_threads


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """SimpleITK, BLAS and OpenMP (torch and faiss too) use ``threads`` meanwhile."""
    with threadpool_limits(limits=threads), filter_threads.limited(threads):
        yield
