"""Programs that a test needs and a machine may lack: the test is skipped, or fails where CI was to bring them."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """Skip, or fail where CI was to bring it."""
    if os.environ.get("NODULE_DIAG_TOOLS") == "required":
        pytest.fail(f"CI has no {what}: .ci/run installs it")
    pytest.skip(f"no {what}")


def require(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            lacks(program)
