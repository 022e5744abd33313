"""Reports of the phantom's three nodules and of two LIDC-IDRI CTs, and a browser to open them with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chromium import browser as browser
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.ct.phantom import Phantom, chest_phantom
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.report.writing import write_report


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
