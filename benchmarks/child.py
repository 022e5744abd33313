"""Runs a command in a separate process and measures it; also measures the peak memory of a call in this process."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import spawn
from benchmarks.environment import ROOT
from benchmarks.results import Cell, Column
from nodule_diag.errors import NoduleDiagError

PACKAGE_FOLDERS = ("sdk", "cli", "training", "export", "")
"""Folders of the checkout: a child runs the same code as its parent, whatever is installed."""
MESSAGE_CHARACTERS = 500


@dataclass(frozen=True, kw_only=True)
class ChildRun:
    """A finished process.

    Attributes:
        wall_s: Time from its start to its end.
        cpu_s: CPU time of all its threads.
        peak_mib: Largest resident set.
        stdout: What it printed.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    stdout: str


RUN_COLUMNS = tuple(
    Column(key=key, label=label)
    for key, label in {
        "command": "command",
        "p50_s": "p50 s",
        "best_s": "best s",
        "worst_s": "worst s",
        "cpu_s": "CPU s",
        "peak_mib": "peak MiB",
        "runs": "runs",
    }.items()
)
"""Columns for a table of commands that ran several times."""


def run_rows(
    found: Mapping[str, Sequence[ChildRun]], *, peak: Callable[[Iterable[float]], float]
) -> tuple[tuple[Cell, ...], ...]:
    """The rows below :data:`RUN_COLUMNS`.

    Args:
        found: The runs of each command.
        peak: Makes one number of the peaks of a command's runs.
    """
    return tuple(
        (
            name,
            *(of(one.wall_s for one in runs) for of in (statistics.median, min, max)),
            statistics.median(one.cpu_s for one in runs),
            peak(one.peak_mib for one in runs),
            len(runs),
        )
        for name, runs in found.items()
    )


class ChildError(NoduleDiagError, RuntimeError):
    """A command that was to be measured failed."""

    code = "bench-child-failed"


def child_environment(*, threads: int | None = None) -> dict[str, str]:
    """This process's environment, with the checkout's packages first and with a number of threads."""
    folders = [str(ROOT / folder) for folder in PACKAGE_FOLDERS]
    inherited = os.environ.get("PYTHONPATH")
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return os.environ | limit | {"PYTHONPATH": os.pathsep.join(folders + ([inherited] if inherited else []))}


def run_module(arguments: Sequence[str], *, threads: int | None = None) -> ChildRun:
    """Run ``python -m ...`` to its end; see :func:`run_program`.

    Args:
        arguments: Module and arguments.
        threads: Value of ``OMP_NUM_THREADS`` for the command; this process's value when left out.
    """
    return run_program([sys.executable, "-m", *arguments], threads=threads)


def run_program(command: Sequence[str], *, threads: int | None = None) -> ChildRun:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        threads: Value of ``OMP_NUM_THREADS`` for the command; this process's value when left out.

    Raises:
        ChildError: If the exit code is not 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        shim = [sys.executable, "-I", "-S", str(spawn.__file__), str(report), *command]
        done = subprocess.run(shim, capture_output=True, text=True, env=child_environment(threads=threads), check=False)
        found = json.loads(report.read_text()) if report.is_file() else {"exit_code": done.returncode or 1}
    if found["exit_code"]:
        said = (done.stderr + done.stdout).strip()[-MESSAGE_CHARACTERS:]
        raise ChildError(
            f"{Path(command[0]).name} {' '.join(command[1:4])} ended with {found['exit_code']}: {said}",
            hint="run it by hand",
        )
    return ChildRun(wall_s=found["wall_s"], cpu_s=found["cpu_s"], peak_mib=found["peak_mib"], stdout=done.stdout)


def peak_growth_mib(call: Callable[[], object]) -> float | None:
    """How much a call raises the peak of this process's resident set; None where the system does not say."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark: proc(5)
    except OSError:
        call()
        return None
    before = _status_mib("VmRSS")
    call()
    return max(0.0, _status_mib("VmHWM") - before)


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024.0


def available_bytes() -> int | None:
    """Memory that is available without swapping; None where the system does not say (Linux does)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
