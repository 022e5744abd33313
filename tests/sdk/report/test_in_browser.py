"""The report in Chromium: clicked, scrolled, printed, opened without scripts, and compared with readers' masks."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from skimage.io import imread

from chromium import serious
from nodule_diag.ct.reading import read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.report.cube import SIZE, STEP_MM
from nodule_diag.report.writing import write_report

pytestmark = pytest.mark.slow

CYAN = np.array([0x26, 0xE3, 0xFF])
WIDTH = 1200
WAIT_MS = 120_000  # a crowded machine may take longer than Playwright waits by itself


@pytest.fixture
def opened(browser: Any) -> Any:
    """Opens a file, with scripts or without; fails on any request and on any error."""
    contexts = []

    def opening(path: Path, *, scripts: bool = True, scheme: str = "light") -> Any:
        context = browser.new_context(
            java_script_enabled=scripts, color_scheme=scheme, viewport={"width": WIDTH, "height": 900}, has_touch=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.goto(path.as_uri())
        page.wait_for_load_state("load")
        page.nodule_diag_seen = (asked, wrong)
        return page

    yield opening
    for context in contexts:
        for page in context.pages:
            asked, wrong = page.nodule_diag_seen
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
            assert wrong == []
        context.close()


def pixels(locator: Any) -> NDArray[np.float64]:
    return np.asarray(imread(io.BytesIO(locator.screenshot(animations="disabled"))), dtype=np.float64)[..., :3]


def readout(page: Any) -> str:
    return str(page.locator(".readout").first.inner_text())


def test_viewer_scrolls_clicks_and_types(opened: Any, phantom_report: Path) -> None:
    page = opened(phantom_report)
    canvas = page.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    start = readout(page)
    before = pixels(canvas)
    canvas.hover()
    page.mouse.wheel(0, 100)
    page.wait_for_function("text => document.querySelector('.readout').textContent !== text", arg=start)
    assert start.split(" z ")[0] == readout(page).split(" z ")[0]  # an axial slice further: only z has changed
    page.mouse.wheel(0, -100)
    page.wait_for_function("text => document.querySelector('.readout').textContent === text", arg=start)
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert readout(page).split(",")[0] != start.split(",")[0]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("PageUp")
    page.keyboard.press("PageDown")
    assert readout(page) == start
    box = canvas.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.75)
    assert readout(page) != start
    page.get_by_role("button", name="mediastinum window").first.click()
    assert np.abs(pixels(canvas) - before).mean() > 1


def test_viewer_says_where_the_cross_is(opened: Any, phantom_report: Path, chest: Any) -> None:
    """Each cell of the cube, in mm: the middle of the cube is half a voxel from the position."""
    page = opened(phantom_report)
    where = np.array([float(part.split()[1]) for part in readout(page).split(" mm")[0].split(", ")])
    wanted = np.array(chest.nodules[0].center_xyz_mm) + STEP_MM / 2
    np.testing.assert_allclose(where, wanted, atol=0.051)


def test_opacities_take_away_cam_and_outline(opened: Any, phantom_report: Path) -> None:
    page = opened(phantom_report)
    canvas = page.locator("canvas").first
    canvas.scroll_into_view_if_needed()

    def coloured() -> float:
        image = pixels(canvas)
        return float(((image.max(axis=2) - image.min(axis=2)) > 25).mean())

    with_both = coloured()
    for number in (0, 1):
        page.locator(".controls input").nth(number).fill("0")
    assert with_both > 0.02
    assert coloured() == 0


def test_without_scripts_the_pictures_stand(opened: Any, phantom_report: Path) -> None:
    page = opened(phantom_report, scripts=False)
    assert page.locator(".viewer").first.is_hidden()
    assert page.locator("svg.plane").count() == 18
    assert np.ptp(pixels(page.locator("svg.plane").first)) > 150


def test_prints(opened: Any, phantom_report: Path) -> None:
    page = opened(phantom_report)
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type/Page/") <= 15
    page.emulate_media(media="print")
    assert page.locator(".viewer").first.is_hidden()
    assert page.locator("svg.plane").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened: Any, phantom_report: Path, scheme: str) -> None:
    assert serious(opened(phantom_report, scheme=scheme)) == []


def readers_mask(path: Path, xyz: tuple[float, float, float]) -> NDArray[np.bool_]:
    """(80, 80) the annotated nodule on the report's axial plane."""
    mask = sitk.ReadImage(str(path))
    grid = sitk.Image(SIZE, SIZE, 1, sitk.sitkUInt8)
    grid.SetSpacing((STEP_MM, STEP_MM, 1.0))
    corner = -(SIZE - 1) / 2 * STEP_MM
    grid.SetOrigin((xyz[0] + corner, xyz[1] + corner, xyz[2] + STEP_MM / 2))
    return np.asarray(
        sitk.GetArrayFromImage(sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor))[0] > 0
    )


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "suffix", "xyz"),
    [
        ("LIDC-IDRI-0314", ".nii.gz", (-56.94, 131.27, -520.6)),
        ("LIDC-IDRI-0001", "_dicom.zip", (56.17, 86.20, -115.86)),
    ],
)
def test_outline_and_cam_sit_on_the_nodule(
    opened: Any, diagnoser: Diagnoser, data_root: Path, tmp_path: Path, name: str, suffix: str, xyz: Any
) -> None:
    """By the pixels of the page, against the radiologists' mask."""
    ct = read_ct(data_root / "ct" / f"{name}{suffix}")
    path = tmp_path / "report.html"
    write_report(path, ct, diagnoser.predict_timed(ct, [xyz]), diagnoser=diagnoser)
    assert path.stat().st_size <= 4_000_000
    page = opened(path)
    plain, with_cam = (pixels(page.locator("svg.plane").nth(number)) for number in (0, 3))
    edge = min(*plain.shape[:2], *with_cam.shape[:2])  # a picture that begins between two pixels may lose one
    plain, with_cam = plain[:edge, :edge], with_cam[:edge, :edge]
    mask = readers_mask(data_root / "ct" / f"{name}_nodule_mask.nii.gz", xyz)
    large = ndimage.zoom(mask.astype(float), edge / SIZE, order=0, grid_mode=True, mode="nearest") > 0.5

    inside = ndimage.binary_fill_holes(np.abs(plain - CYAN).max(axis=2) < 40)
    dice = 2 * (inside & large).sum() / (inside.sum() + large.sum())
    assert dice > 0.7

    heat = with_cam.max(axis=2) - with_cam.min(axis=2)  # the CT is grey
    heat[np.abs(with_cam - CYAN).max(axis=2) < 120] = 0
    near = ndimage.binary_dilation(large, iterations=round(2 * edge / (SIZE * STEP_MM)))  # a cell of the CAM is 2 mm
    assert heat[near].sum() > 0.7 * heat.sum()


def test_cube_of_the_page_is_the_cube(phantom_report: Path) -> None:
    """What the script reads is JSON, whatever stands in it."""
    text = phantom_report.read_text(encoding="utf-8")
    data = json.loads(text.split('id="cube-1">')[1].split("</script>")[0])
    assert data["size"] == SIZE
    assert len(data["direction"]) == 9
