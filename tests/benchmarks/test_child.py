"""Processes and memory, with sizes that are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
def test_growth_of_a_process(repo_root: Path) -> None:
    """In one of its own: this one may hold memory that earlier tests gave back, and take that."""
    code = (
        "import numpy as np\n"
        f"from {peak_growth_mib.__module__} import peak_growth_mib\n"
        f"print(peak_growth_mib(lambda: np.ones({120 * MIB}, dtype=np.uint8).sum()), peak_growth_mib(lambda: None))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, check=True)
    found, again = map(float, done.stdout.split())
    assert 100 < found < 200
    assert again < 20, "the mark begins anew"
