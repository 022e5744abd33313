"""Keeps freed memory in the process: a training step frees and allocates the same gigabytes again and again.

glibc returns large freed blocks to the system at once, which hands them out again zeroed, page by page: this takes half
the time of a step on a CPU. Other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4
"""Parameters of mallopt(3)."""
TOP_PAD_BYTES = 64 * 2**20
"""Bytes by which the heap grows beyond a request."""
NEVER_TRIM = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep freed memory; returns whether malloc took the settings."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER_TRIM), (M_TOP_PAD, TOP_PAD_BYTES))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
