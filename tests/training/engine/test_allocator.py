"""The allocator's settings, in a process of their own: they last."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

GROWTH = """
import ctypes
import resource
from nodule_diag_training.engine.allocator import keep_freed_memory

PR_SET_THP_DISABLE = 41  # a kernel that gives huge pages unasked counts a fault for 512 of them
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def pages_taken_again():
    for _ in range(2):
        before = faults()
        block = bytearray(64 * 2**20)
        del block
    return faults() - before

fresh = pages_taken_again()
assert keep_freed_memory()
print(fresh, pages_taken_again())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_freed_memory_is_kept():
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    without, kept = map(int, done.stdout.split())
    assert without > 100
    assert kept < without / 10
