"""Processes and memory, with sizes that are known."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks.child import ChildError, peak_growth_mib, run_module

MIB = 2**20
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is read from Linux's /proc")


def test_a_child_is_not_charged_with_its_parent_s_memory() -> None:
    ballast = np.ones(400 * MIB, dtype=np.uint8)  # Linux would hand this peak down through fork and exec
    ended = run_module(["timeit", "-n", "1", "-r", "1", "bytearray(50 * 2**20)"])
    assert 50 < ended.peak_mib < 150, f"{ballast.nbytes / MIB} MiB are ours"
    assert "loop" in ended.stdout
    assert ended.cpu_s > 0
    assert ended.wall_s > 0


def test_threads_are_told() -> None:
    ended = run_module(["timeit", "-n", "1", "-r", "1", "import os; print(os.environ['OMP_NUM_THREADS'])"], threads=3)
    assert ended.stdout.splitlines()[0] == "3"


def test_a_failing_child_says_what_it_said() -> None:
    with pytest.raises(ChildError, match="no such thing"):
        run_module(["timeit", "-n", "1", "-r", "1", "raise SystemExit('no such thing')"])


@linux_only
def test_growth_of_this_process() -> None:
    def allocate() -> None:
        np.ones(120 * MIB, dtype=np.uint8).sum()

    found = peak_growth_mib(allocate)
    assert found is not None
    assert 100 < found < 200
    again = peak_growth_mib(lambda: None)
    assert again is not None
    assert again < 20, "the mark begins anew"
