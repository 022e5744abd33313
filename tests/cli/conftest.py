"""A phantom on disk, and the command line run in this process or as a real program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nodule_diag.ct.phantom import Phantom, chest_phantom
from nodule_diag_cli.demo import write_ct
from nodule_diag_cli.main import run


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Stdout as the one JSON document it must be."""
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A coarse phantom: the same chest in a tenth of the time."""
    return chest_phantom(spacing_zyx_mm=(2.5, 2.0, 2.0))


@pytest.fixture(scope="session")
def phantom_ct(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The coarse phantom as NIfTI: do not write to it."""
    return write_ct(tmp_path_factory.mktemp("phantom") / "chest.nii", phantom.ct)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``nodule-diag`` in this process."""

    def ended(*words: object) -> Ended:
        capsys.readouterr()
        code = run([str(word) for word in words])
        return Ended(code, *capsys.readouterr())

    return ended


@pytest.fixture
def program(tmp_path: Path) -> Command:
    """Run ``nodule-diag`` as a program of its own, in an empty folder, not on a terminal."""

    def ended(*words: object, **environment: str) -> Ended:
        finished = subprocess.run(
            [sys.executable, "-W", "error", "-m", "nodule_diag_cli", *map(str, words)],
            capture_output=True,
            cwd=tmp_path,
            timeout=120,
            env=os.environ | {"PYTHONUTF8": "1"} | environment,
            check=False,
        )
        return Ended(finished.returncode, finished.stdout.decode(), finished.stderr.decode())

    return ended
