"""Reports of the phantom's three nodules and of two LIDC-IDRI CTs, and a browser to open them with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nodule_diag.bundle.bundle import Bundle
from nodule_diag.ct.phantom import Phantom, chest_phantom
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.report.writing import write_report

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chest() -> Phantom:
    return chest_phantom()


@pytest.fixture(scope="session")
def diagnoser() -> Diagnoser:
    return Diagnoser.load(Bundle.default(), backend="onnxruntime", device="cpu")


@pytest.fixture(scope="session")
def phantom_report(chest: Phantom, diagnoser: Diagnoser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phantom") / "report.html"
    points = np.array([nodule.center_xyz_mm for nodule in chest.nodules])
    write_report(path, chest.ct, diagnoser.predict_timed(chest.ct, points), diagnoser=diagnoser)
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; in CI it must be there."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        if os.environ.get("NODULE_DIAG_TOOLS") == "required":
            pytest.fail("CI has no chromium: .ci/run installs it")
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()
