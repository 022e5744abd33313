"""The machine of a measurement: without it, a figure means nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""
LIBRARIES = (
    "nodule-diag",
    "numpy",
    "SimpleITK",
    "onnxruntime",
    "openvino",
    "hnswlib",
    "isal",
    "torch",
    "monai",
    "faiss-cpu",
    "nibabel",
    "scipy",
)
TELLING_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile")
"""Instruction sets that decide the speed of matrix products."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where and when a part ran.

    Attributes:
        date: UTC, to the second.
        commit: The checkout's commit, with ``+`` where it had changes; None outside git.
        cpu: Model name.
        cpu_flags: The CPU's flags among :data:`TELLING_FLAGS`.
        cores: Cores that this process may use.
        memory_gib: Memory of the machine; None where the system does not say.
        threads: Number of threads that every runtime was set to.
        omp_num_threads: The variable, where it is set.
        load_average: Averages of the last 1, 5 and 15 minutes, before the part began: above 0, something else ran too.
        platform: Operating system.
        python: Its version.
        versions: Versions of the installed libraries.
    """

    date: str
    commit: str | None
    cpu: str
    cpu_flags: tuple[str, ...]
    cores: int
    memory_gib: float | None
    threads: int
    omp_num_threads: str | None
    load_average: tuple[float, float, float]
    platform: str
    python: str
    versions: dict[str, str]

    @classmethod
    def now(cls, *, threads: int) -> Environment:
        """This machine, at this moment."""
        cpu, flags = _cpu()
        return cls(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=_commit(),
            cpu=cpu,
            cpu_flags=flags,
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            memory_gib=_memory_gib(),
            threads=threads,
            omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
            load_average=os.getloadavg(),
            platform=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            versions={name: version for name in LIBRARIES if (version := _version(name))},
        )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> tuple[str, tuple[str, ...]]:
    """Model name and flags; Linux has both in one file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), ()
    facts = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    by_name = {name.strip(): value.strip() for name, value in facts.items()}
    flags = set(by_name.get("flags", "").split())
    return by_name.get("model name", platform.machine()), tuple(flag for flag in TELLING_FLAGS if flag in flags)


def _memory_gib() -> float | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError):
        return None


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _commit() -> str | None:
    revision = _git("rev-parse", "--short=12", "HEAD")
    return revision and revision + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
