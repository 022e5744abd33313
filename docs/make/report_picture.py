"""Draws the picture of a report (``docs/plots/report.png``): the upper part of a phantom's, in Chromium.

``python docs/make/report_picture.py`` writes it. It needs Playwright and Chromium. The phantom is not a patient.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import nodule_diag as nd
from nodule_diag.ct import chest_phantom
from nodule_diag.report import write_report

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "plots" / "report.png"
NODULE = 1  # of the phantom's three: 20 mm, grown onto the pleura
WIDTH, HEIGHT = 1100, 1330


def draw(page_file: Path, picture: Path) -> None:
    """Open a report and photograph its upper part."""
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(page_file.as_uri())
        page.screenshot(path=str(picture), animations="disabled")
        browser.close()


if __name__ == "__main__":
    phantom = chest_phantom()
    diagnoser = nd.Diagnoser.load()
    prediction = diagnoser.predict_timed(phantom.ct, [phantom.nodules[NODULE].center_xyz_mm])
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "report.html")
        write_report(made, phantom.ct, prediction, diagnoser=diagnoser)
        draw(made, PICTURE)
