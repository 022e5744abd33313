"""The same number of threads for every library that a part uses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from threadpoolctl import threadpool_limits

from nodule_diag.process import filter_threads


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Inside, SimpleITK, BLAS and OpenMP use ``threads``; torch and faiss too, if they have been imported."""
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(limits=threads))
        stack.enter_context(filter_threads(threads))
        if "torch" in sys.modules:
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        if "faiss" in sys.modules:
            import faiss

            stack.callback(faiss.omp_set_num_threads, faiss.omp_get_max_threads())
            faiss.omp_set_num_threads(threads)
        yield
