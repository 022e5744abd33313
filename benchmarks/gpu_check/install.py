"""The step that installs the carried wheels, without a network."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import benchmarks.gpu_check.findings as said
from benchmarks.gpu_check.plan import Settings

NOT_FOR_THIS_PYTHON = "not for this Python or platform"
"""A folder may hold wheels for several Pythons and platforms."""

ERROR = re.compile(r" error: |^\w+Error: ")
"""Lines in which pip repeats an error of a compiler or a traceback."""


def wheels(settings: Settings, findings: said.Findings) -> None:
    """Install every wheel of the folder that this Python takes; a wheel that fails must not stop the others."""
    if settings.wheels is None:
        raise said.UnavailableError("no --wheels folder: what is installed here is used")
    found = sorted(settings.wheels.glob("*.whl"))
    if not found:
        raise said.UnavailableError(f"{settings.wheels.name} holds no wheels")
    # An installed package stays: two copies of torch or CUDA in one process do not work together.
    wanted = [wheel for wheel in found if not installed(_package(wheel))]
    states = {wheel.name: "already installed" for wheel in found if wheel not in wanted}
    findings.add(wheels=states)
    findings.doing(f"installing {len(wanted)} wheels")
    if wanted and install("--no-deps", *map(str, wanted), site=settings.site):
        # One wheel that does not fit stops all. They are not installed one by one: packages may share a folder, as
        # NVIDIA's do, and a second call of pip does not change a folder that exists.
        fitting: dict[str, Path] = {}
        for wheel in wanted:
            findings.doing(f"trying {wheel.name}")
            why = install("--no-deps", "--dry-run", str(wheel), site=settings.site)
            states[wheel.name] = NOT_FOR_THIS_PYTHON if "not a supported wheel" in why else why
            if not why:
                if (other := fitting.get(_package(wheel))) is not None:
                    states[other.name] = f"left out for {wheel.name}"
                fitting[_package(wheel)] = wheel
        findings.doing(f"installing {len(fitting)} wheels")
        why = install("--no-deps", *map(str, fitting.values()), site=settings.site) if fitting else ""
        states |= dict.fromkeys((wheel.name for wheel in fitting.values()), why)
    states |= {wheel.name: "installed" for wheel in wanted if not states.get(wheel.name)}
    findings.add(wheels=states)
    missing = [wheel.name for wheel in wanted if not installed(_package(wheel))]
    if missing:
        raise said.IncompleteError("; ".join(f"{name}: {states[name]}" for name in missing))


def _package(wheel: Path) -> str:
    return wheel.name.partition("-")[0]


def installed(name: str) -> bool:
    """Whether a distribution can be imported by this process."""
    importlib.invalidate_caches()  # also finds what was just installed
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def install(*arguments: str, site: Path) -> str:
    """``pip install`` into a folder, without a network.

    Returns:
        An empty string, or the error: a compiler's or Python's first error, else the last line of pip's output.
    """
    site.mkdir(parents=True, exist_ok=True)
    # Compiling every module of a runtime takes longer than copying it.
    options = ["--no-index", "--no-compile", "--no-cache-dir", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(site), *arguments],
        capture_output=True,
        text=True,
        check=False,
        # The machine's own settings may name an index or another folder.
        env={**os.environ, "PIP_CONFIG_FILE": os.devnull},
    )
    if done.returncode == 0:
        return ""
    print(done.stdout, done.stderr)
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit code {done.returncode}"
    return next((line for line in lines if ERROR.search(line)), last)
