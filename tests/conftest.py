"""Fixtures that every test folder shares."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# Whoever embeds the SDK decides, and here decides it before any test imports onnxruntime.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

TESTS = Path(__file__).resolve().parent
DEFAULT_DATA = TESTS.parent.parent / "shared" / "data"

if find_spec("hypothesis"):  # not where the wheel is tried out
    from hypothesis import settings

    settings.register_profile("no deadline: machines are shared", deadline=None)
    settings.load_profile("no deadline: machines are shared")

if (TESTS / "bundle_factory.py").is_file():
    pytest_plugins = ["bundle_factory", "chromium"]


@pytest.fixture(scope="session", autouse=True)
def nobodys_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the engines, self-test figures or terminal of whoever runs it, nor leaves anything there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODULE_DIAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COLUMNS", "80")
        for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "NODULE_DIAG_DEBUG"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return TESTS.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The LIDC-IDRI data folder; the test skips where it is absent."""
    root = Path(os.environ.get("NODULE_DIAG_DATA") or DEFAULT_DATA).resolve()
    if not (root / "ct").is_dir():
        pytest.skip("no LIDC-IDRI data: set NODULE_DIAG_DATA to the folder that holds ct/, lidc_vois/, lidc_cubes/")
    return root
