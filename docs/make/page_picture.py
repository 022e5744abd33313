"""Draws the picture of the service's page (``docs/plots/page.png``): a phantom's nodule and its diagnosis, in Chromium.

``python docs/make/page_picture.py`` writes it. It needs Playwright and Chromium. The phantom is not a patient.
"""

from __future__ import annotations

import shutil
import threading
import time
from io import BytesIO
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

import nodule_diag as nd
from nodule_diag.service import Settings, create_app

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "plots" / "page.png"
NODULE = 2  # of the phantom's three: 20 mm, grown onto the pleura
WIDTH, HEIGHT = 1280, 800
WAIT_MS = 300_000
COLOURS = 128  # of the file's palette: a third of the size


def draw(address: str) -> bytes:
    """Ask for a nodule's diagnosis and photograph the page."""
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark")
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        page.get_by_role("button", name=f"Try nodule {NODULE}").click()
        page.locator(".answers").wait_for()
        page.wait_for_selector('.views[aria-busy="false"]')
        picture = page.screenshot(animations="disabled")
        browser.close()
    return picture


if __name__ == "__main__":
    application = create_app(Settings(demo=True), nd.Diagnoser.load(backend="onnxruntime"))
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        drawn = Image.open(BytesIO(draw(f"http://127.0.0.1:{port}/")))
        drawn.convert("RGB").quantize(COLOURS).save(PICTURE, optimize=True)
    finally:
        server.should_exit = True
        thread.join()
