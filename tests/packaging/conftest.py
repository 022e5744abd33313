"""The built distributions, and a fresh environment that holds the wheel."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Distributions:
    """What `python -m build` makes: the sdist, and the wheel built from that sdist."""

    sdist: Path
    wheel: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the folder outside the checkout in which its commands run."""

    bin: Path
    cwd: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; none of this process's own environment leaks into it."""
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NODULE_DIAG"))}
        return subprocess.run(
            [str(self.bin / program), *arguments],
            cwd=self.cwd,
            env={**keep, "VIRTUAL_ENV": str(self.bin.parent)},
            capture_output=True,
            text=True,
            timeout=600,
        )


@pytest.fixture(scope="session")
def distributions(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """The sdist and the wheel of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(repo_root)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return Distributions(sdist=sdist, wheel=wheel)


@pytest.fixture(scope="session")
def installed(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment outside the checkout with the wheel and its `cpu` extra, as a user installs it."""
    return install(distributions, tmp_path_factory.mktemp("fresh"), "cpu")


@pytest.fixture(scope="session")
def engine_builder(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Another, with what builds engines."""
    return install(distributions, tmp_path_factory.mktemp("builder"), "cpu,engines")


def install(distributions: Distributions, root: Path, extras: str) -> Environment:
    """The wheel with some extras in an environment of its own."""
    (root / "cwd").mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(root / "venv")], check=True, timeout=600)
    environment = Environment(bin=root / "venv" / "bin", cwd=root / "cwd")
    done = environment.run("python", "-m", "pip", "install", f"nodule-diag[{extras}] @ {distributions.wheel.as_uri()}")
    assert done.returncode == 0, done.stdout + done.stderr
    return environment
