"""How many threads a call uses: one number, for the network and for image filters."""

from __future__ import annotations

import math
import os

from nodule_diag.errors import UsageError
from nodule_diag.process.cpu_quota import cpu_quota

MAX_THREADS = 1024
"""A larger number is a typing error."""


def resolve_threads(threads: int | None = None) -> int:
    """Settle the number of threads.

    Args:
        threads: The caller's number; None takes ``OMP_NUM_THREADS`` where it is set to a number, else every core that
            this process may run on, limited to its container's share of CPU time, rounded up.

    Returns:
        At least 1.

    Raises:
        UsageError: When ``threads`` is not a whole number from 1 to 1024.
    """
    if threads is not None:
        if isinstance(threads, bool) or not 1 <= threads <= MAX_THREADS:
            raise UsageError(
                f"threads is {threads!r}; it must be a whole number from 1 to {MAX_THREADS}",
                hint="leave threads out to use every core this process may run on",
            )
        return threads
    # OMP_NUM_THREADS may list one number per nesting level: the first is the outermost.
    wished = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wished.isdecimal() and 1 <= int(wished) <= MAX_THREADS:
        return int(wished)
    return available_cores()


def available_cores() -> int:
    """The number of cores of this process, limited to its container's share of CPU time, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else min(cores, math.ceil(quota))
