"""A browser to open pages with; a conftest or a test file that imports the fixtures has them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


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


def serious(page: Any) -> list[tuple[str, str]]:
    """What axe finds wrong with a page: the rule, and where."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    found = axe.Axe().run(page).response["violations"]
    heavy = [item for item in found if item["impact"] in {"serious", "critical"}]
    return [(item["id"], item["nodes"][0]["html"][:200]) for item in heavy]
