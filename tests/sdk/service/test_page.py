"""The page at / in Chromium, used as a person would: by mouse, by keyboard alone, and with what goes wrong."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from skimage.io import imread

import ct_files as make
from chromium import serious
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.ct.phantom import Phantom, chest_phantom
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.results.png import png_bytes
from service_client import Settings, listening

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-a-test-0123456789"
WAIT_MS = 120_000
BROWSER_TELLS = "Failed to load resource"  # what Chromium itself says of any status above 399


@contextmanager
def serving(diagnoser: Diagnoser, **settings: Any) -> Iterator[str]:
    """The address of a service of its own."""
    with listening(Settings(**settings), diagnoser) as running:
        yield f"http://127.0.0.1:{running.port}/"


@pytest.fixture(scope="module")
def diagnoser() -> Diagnoser:
    return Diagnoser.load(Bundle.default(), backend="onnxruntime", device="cpu")


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return chest_phantom()


@pytest.fixture(scope="module")
def address(diagnoser: Diagnoser) -> Iterator[str]:
    with serving(diagnoser, demo=True) as url:
        yield url


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page; fails when it asks any other server, or a script of it fails or complains."""
    contexts = []

    def opening(
        url: str = address, *, scheme: str = "light", size: tuple[int, int] = (1440, 900), refusals: bool = False
    ) -> Any:
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": size[0], "height": size[1]}, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda message: None if refusals and BROWSER_TELLS in message.text else wrong.append(message.text),
        )
        page.nodule_diag_seen = (url, asked, wrong)
        page.goto(url)
        return page

    yield opening
    for context in contexts:
        for page in context.pages:
            url, asked, wrong = page.nodule_diag_seen
            assert [other for other in asked if not other.startswith((url, f"blob:{url}", "about:blank"))] == []
            assert asked
            assert wrong == []
        context.close()


def settled(page: Any) -> None:
    """Waits until every slice that is wanted is shown."""
    page.wait_for_selector('.views[aria-busy="false"]')


def pixels(locator: Any) -> NDArray[np.float64]:
    return np.asarray(imread(io.BytesIO(locator.screenshot(animations="disabled"))), dtype=np.float64)[..., :3]


def coloured(locator: Any) -> float:
    image = pixels(locator)
    return float(((image.max(axis=2) - image.min(axis=2)) > 25).mean())


def cross(page: Any) -> NDArray[np.float64]:
    return np.array([float(page.get_by_label(axis, exact=True).input_value()) for axis in "xyz"])


def diagnosed(page: Any, act: Callable[[], None]) -> dict[str, Any]:
    """Does what asks for a diagnosis; gives the document that came, when the page shows it."""
    with page.expect_response(lambda response: response.url.endswith("/result")) as answer:
        act()
    document = answer.value.json()
    nodule = document["nodules"][0]
    page.get_by_role("heading", name=f"Nodule {nodule['id']}", exact=True).wait_for()
    page.locator(".answers").wait_for()
    return document


def saved(page: Any, act: Callable[[], None]) -> tuple[str, bytes]:
    with page.expect_download() as download:
        act()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def tab_to(page: Any, role: str, name: str) -> None:
    """Presses Tab until the element has the focus, as who has no mouse does."""
    wanted = page.get_by_role(role, name=name, exact=True)
    for _ in range(80):
        if wanted.count() == 1 and wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to the {role} {name}")


def test_a_nodule_is_clicked_and_its_diagnosis_read(
    opened: Any, address: str, diagnoser: Diagnoser, chest: Phantom
) -> None:
    page = opened()
    page.get_by_role("note").filter(has_text="Research use. Not a medical device.").wait_for()
    truth, ct = chest.nodules[2], chest.ct
    axial = page.locator(".axial canvas")
    # Scroll to the slice, and click where the nodule lies in it: the whole slice is fitted into the canvas.
    at = (np.array(truth.center_xyz_mm) - ct.origin_xyz_mm) / ct.spacing_xyz_mm
    page.get_by_label("Axial, slice").fill(str(round(at[2])))
    settled(page)
    box, edge_mm = axial.bounding_box(), np.array(ct.size_xyz[:2]) * ct.spacing_xyz_mm[:2]
    scale = min(box["width"] / edge_mm[0], box["height"] / edge_mm[1])
    from_middle = (at[:2] - (np.array(ct.size_xyz[:2]) - 1) / 2) * ct.spacing_xyz_mm[:2] * scale
    page.mouse.click(box["x"] + box["width"] / 2 + from_middle[0], box["y"] + box["height"] / 2 + from_middle[1])
    np.testing.assert_allclose(cross(page), truth.center_xyz_mm, atol=1.0)

    settled(page)
    grey = coloured(axial)
    document = diagnosed(page, page.get_by_role("button", name="Diagnose", exact=True).click)
    (nodule,) = document["nodules"]
    np.testing.assert_allclose(nodule["xyz_lps_mm"], truth.center_xyz_mm, atol=1.0)
    (known,) = diagnoser.predict(ct, [nodule["xyz_lps_mm"]])
    assert nodule["malignancy"] == pytest.approx(known.malignancy, abs=1e-6)
    assert nodule["expert_score"] == pytest.approx(known.expert_score, abs=1e-5)

    names, figures = (page.locator(f".answer {part}").all_inner_texts() for part in ("h3", ".figure"))
    shown = dict(zip(names, figures, strict=True))
    assert shown["Malignancy"] == f"{nodule['malignancy']:.2f}"
    assert shown["Expert score"] == f"{nodule['expert_score']:.1f} of 5"
    assert shown["Size"] == f"{nodule['segmentation']['diameter_mm']:.1f} mm"
    assert shown["Evidence on it"].replace("−", "-") == f"{nodule['faithfulness']['margin']:+.2f}"
    assert ("Is it a nodule?" in shown) == (nodule["presence"] is not None)
    text = page.locator("#result").inner_text()
    assert "if half of such nodules were malignant" in text
    assert nodule["similar"]["machine+expert"][0]["case_id"] in text
    spoken = page.get_by_role("status").inner_text()
    assert f"malignancy {nodule['malignancy']:.2f}" in spoken
    settled(page)
    assert coloured(axial) > grey + 0.0003  # the CAM and the outline lie over the slice
    axial.press("h")
    axial.blur()  # or its focus would be coloured
    assert coloured(axial) <= grey


def test_evidence_lies_on_the_nodule(opened: Any, chest: Phantom) -> None:
    """The outline's middle is the nodule's, in all three planes, to a millimetre."""
    page = opened()
    diagnosed(page, page.get_by_role("button", name="Try nodule 1").click)
    page.get_by_label("CAM", exact=True).fill("0")
    for plane in ("axial", "coronal", "sagittal"):
        canvas = page.locator(f".{plane} canvas")
        image = pixels(canvas)
        cyan = np.argwhere(np.abs(image - (0x26, 0xE3, 0xFF)).max(axis=2) < 60)
        height, width = image.shape[:2]
        per_mm = min(height, width) / 64  # the close-up shows 64 mm
        middle = (cyan.min(axis=0) + cyan.max(axis=0)) / 2
        assert np.abs(middle - (height / 2, width / 2)).max() / per_mm < 1.0
        across = (cyan.max(axis=0) - cyan.min(axis=0)) / per_mm
        assert np.abs(across - chest.nodules[0].diameter_mm).max() < 3.0


def test_all_by_keyboard(opened: Any) -> None:
    page = opened()
    page.get_by_role("button", name="Try nodule 1").wait_for()
    start = cross(page)
    page.keyboard.press("Tab")
    tab_to(page, "img", "Axial plane; arrow keys move the cross, Page Up and Page Down scroll, plus and minus zoom")
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    step = np.array([-1.1, 1.1, 1.25])
    assert np.abs(cross(page) - start - step).max() <= 0.8  # a voxel each, from a place between voxels
    page.keyboard.press("2")
    assert page.get_by_role("button", name="Mediastinal").get_attribute("aria-pressed") == "true"
    document = diagnosed(page, lambda: page.keyboard.press("Enter"))
    np.testing.assert_allclose(document["nodules"][0]["xyz_lps_mm"], cross(page), atol=0.06)

    tab_to(page, "spinbutton", "x")
    page.keyboard.press("Control+a")
    page.keyboard.type("-70")
    second = diagnosed(page, lambda: page.keyboard.press("Enter"))
    assert second["nodules"][0]["xyz_lps_mm"][0] == pytest.approx(-70.0)
    assert page.locator(".nodules li").count() == 2
    tab_to(page, "button", "Report")
    name, content = saved(page, lambda: page.keyboard.press("Enter"))
    assert name == "nodule-diag-report.html"
    assert b"Nodule 4" in content
    assert b"Nodule 5" in content
    page.keyboard.press("Shift+Tab")
    tab_to(page, "button", "Report")


def test_a_place_outside_the_ct_is_refused(opened: Any) -> None:
    page = opened()
    page.get_by_role("button", name="Try nodule 1").wait_for()
    start = cross(page)
    x = page.get_by_label("x", exact=True)
    x.fill("999")
    x.press("Enter")
    assert x.evaluate("input => input.validationMessage") == "x 999 mm lies outside the CT."
    assert x.input_value() == "999"
    assert page.locator(".nodules li").count() == 0
    x.fill("-70")
    diagnosed(page, lambda: x.press("Enter"))
    x.fill("-999")
    x.press("Tab")
    assert x.evaluate("input => document.activeElement === input && !input.validity.valid")
    page.get_by_role("button", name="Try nodule 1").click()
    np.testing.assert_allclose(cross(page), start)
    assert x.evaluate("input => input.validity.valid")


def test_each_nodule_has_a_number_of_its_own(opened: Any) -> None:
    page = opened()
    diagnosed(page, page.get_by_role("button", name="Try nodule 1").click)
    y = page.get_by_label("y", exact=True)
    y.fill(str(cross(page)[1] + 3))
    y.press("Tab")
    diagnosed(page, page.get_by_role("button", name="Move nodule 1 here").click)
    diagnosed(page, page.get_by_role("button", name="Try nodule 1").click)
    _, content = saved(page, page.get_by_role("button", name="JSON").click)
    assert [nodule["id"] for nodule in json.loads(content)["nodules"]] == ["1", "4"]


def test_downloads_say_what_the_page_says(opened: Any) -> None:
    page = opened()
    document = diagnosed(page, page.get_by_role("button", name="Try nodule 2").click)
    (nodule,) = document["nodules"]
    assert nodule["id"] == "2"
    _, content = saved(page, page.get_by_role("button", name="JSON").click)
    assert json.loads(content)["nodules"] == document["nodules"]
    name, content = saved(page, page.get_by_role("button", name="3D Slicer").click)
    points = json.loads(content)["markups"][0]["controlPoints"]
    assert name.endswith(".mrk.json")
    np.testing.assert_allclose(points[0]["position"], nodule["xyz_lps_mm"], atol=1e-3)
    _, content = saved(page, page.get_by_role("button", name="Report").click)
    assert f"{nodule['malignancy']:.2f}" in content.decode()
    assert page.get_by_role("button", name="DICOM", exact=True).count() == 0  # the chest is made up


def test_options_and_places_change_the_answer(opened: Any) -> None:
    page = opened()
    first = diagnosed(page, page.get_by_role("button", name="Try nodule 3").click)["nodules"][0]
    page.get_by_text("Options", exact=True).click()
    prevalence = page.get_by_label("Malignant among such nodules, %")
    prevalence.fill("5")
    moved = diagnosed(page, prevalence.blur)["nodules"][0]
    odds = first["malignancy"] / (1 - first["malignancy"]) * 5 / 95
    assert moved["malignancy"] == pytest.approx(odds / (1 + odds), abs=1e-4)
    page.locator(".answers").get_by_text("if 5 % of such nodules were malignant").wait_for()
    x = page.get_by_label("x", exact=True)
    x.fill("-82")
    x.press("Tab")
    there = diagnosed(page, page.get_by_role("button", name="Move nodule 3 here").click)["nodules"][0]
    assert there["xyz_lps_mm"][0] == pytest.approx(-82.0)
    page.get_by_role("button", name="Remove nodule 3").click()
    page.locator("#diagnosis").wait_for(state="hidden")
    assert page.locator(".nodules li").count() == 0


def test_a_dicom_series_is_sent_read_and_let_go(opened: Any, address: str, tmp_path: Path) -> None:
    page = opened()
    page.get_by_role("button", name="Open another CT").click()
    series = make.save_series(tmp_path / "series", make.dicom_slices())
    page.get_by_label("Choose files").set_input_files(sorted(series.iterdir()))
    page.locator("#ct-name").filter(has_text="28 × 32 × 12 voxels").wait_for()
    diagnosed(page, page.get_by_role("button", name="Diagnose", exact=True).click)
    name, content = saved(page, page.get_by_role("button", name="DICOM", exact=True).click)
    assert name == "nodule-diag-dicom.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        kinds = {pydicom.dcmread(io.BytesIO(archive.read(item))).Modality for item in archive.namelist()}
    assert {"SR", "SEG"} <= kinds
    held = page.request.get(f"{address}v1/cts").json()["cts"]
    assert len(held) == 2
    page.get_by_role("button", name="Open another CT").click()
    page.get_by_role("button", name="Made-up chest").click()
    page.get_by_role("button", name="Try nodule 1").wait_for()
    page.wait_for_function("async () => (await (await fetch('v1/cts')).json()).cts.length === 1")


def test_a_file_is_chosen_by_its_input(opened: Any, tmp_path: Path) -> None:
    page = opened()
    page.get_by_role("button", name="Open another CT").click()
    page.get_by_label("Choose files").set_input_files(make.write(tmp_path / "scan.nii.gz"))
    page.locator("#ct-name").filter(has_text="scan.nii.gz: 28 × 32 × 12 voxels").wait_for()
    settled(page)
    assert np.ptp(pixels(page.locator(".axial canvas"))) > 100


def test_a_file_is_dropped(opened: Any, tmp_path: Path) -> None:
    page = opened()
    page.get_by_role("button", name="Try nodule 1").wait_for()
    page.evaluate(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.nii.gz"));
            for (const type of ["dragover", "drop"]) {
                const how = { dataTransfer: transfer, bubbles: true, cancelable: true };
                document.body.dispatchEvent(new DragEvent(type, how));
            }
        }""",
        list(make.write(tmp_path / "scan.nii.gz").read_bytes()),
    )
    page.locator("#ct-name").filter(has_text="dropped.nii.gz: 28 × 32 × 12 voxels").wait_for()


def test_a_busy_server_is_asked_again(opened: Any) -> None:
    page = opened(refusals=True)
    refused = []

    def refuse_once(route: Any) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            problem = {"title": "Too Many Requests", "status": 429, "code": "queue-full", "detail": "full"}
            route.fulfill(status=429, headers={"Retry-After": "1"}, body=json.dumps(problem))

    page.route("**/v1/predictions", refuse_once)
    page.get_by_role("button", name="Try nodule 1").click()
    page.get_by_text("The server is busy; it is asked again in 1 s.").wait_for()
    page.locator(".answers").wait_for()


def test_without_its_events_a_job_is_looked_after(opened: Any) -> None:
    page = opened(refusals=True)
    page.route("**/events", lambda route: route.abort())
    page.get_by_role("button", name="Try nodule 1").click()
    page.locator(".answers").wait_for()


def test_a_diagnosis_is_cancelled_on_the_server_too(opened: Any) -> None:
    page = opened(refusals=True)
    page.route("**/events", lambda _: None)  # never answered
    page.get_by_role("button", name="Try nodule 1").click()
    with page.expect_request(lambda request: request.method == "DELETE" and "/v1/jobs/" in request.url) as cancelled:
        page.get_by_role("button", name="Cancel").click()
    assert cancelled.value.response().status == 204
    assert page.locator(".nodules li").count() == 0
    page.locator("#diagnosis").wait_for(state="hidden")


def test_errors_are_said_with_the_way_out(opened: Any, address: str, tmp_path: Path) -> None:
    page = opened(refusals=True)
    page.get_by_role("button", name="Open another CT").click()
    (tmp_path / "notes.nii.gz").write_bytes(b"no CT at all")
    page.get_by_label("Choose files").set_input_files(tmp_path / "notes.nii.gz")
    alert = page.locator("#intake-problem")
    alert.locator(".problem").wait_for()
    told = page.request.post(
        f"{address}v1/cts",
        multipart={"file": {"name": "notes.nii.gz", "mimeType": "application/gzip", "buffer": b"no CT at all"}},
    ).json()
    assert told["detail"] in alert.inner_text()
    assert told["hint"] in alert.inner_text()
    page.get_by_label("Choose files").set_input_files(make.write(tmp_path / "scan.nii.gz"))
    page.locator("#ct-name").filter(has_text="scan.nii.gz").wait_for()
    for ct in page.request.get(f"{address}v1/cts").json()["cts"]:
        if ct["name"] == "scan.nii.gz":
            assert page.request.delete(f"{address}v1/cts/{ct['id']}").status == 204
    page.get_by_role("button", name="Diagnose", exact=True).click()
    page.get_by_role("button", name="Open a CT again").click()
    page.get_by_role("heading", name="Open a chest CT").wait_for()


def test_similar_cases_have_pictures(opened: Any, diagnoser: Diagnoser) -> None:
    picture = png_bytes(np.full((8, 8), 77, np.uint8))
    base, cases = CaseBase.of((), name="pictured", model_sha256=diagnoser.bundle.model_sha256), diagnoser.cases.cases
    base.add(cases, pictures={case.case_id: {"axial": picture} for case in cases})
    with serving(Diagnoser(diagnoser.bundle, diagnoser._backend, CaseIndex(base)), demo=True) as url:
        page = opened(url)
        diagnosed(page, page.get_by_role("button", name="Try nodule 1").click)
        drawn = "count => [...document.querySelectorAll('.card img')].filter(i => i.naturalWidth).length === count"
        page.wait_for_function(drawn, arg=6)
        page.get_by_role("button", name="Show all 20").click()
        page.wait_for_function(drawn, arg=20)
        assert page.get_by_role("img", name="Picture of case").count() == 20
        page.goto("about:blank")


def test_a_token_is_asked_for(opened: Any, diagnoser: Diagnoser) -> None:
    with serving(diagnoser, demo=True, token=TOKEN) as url:
        page = opened(url, refusals=True)
        field = page.get_by_label("Token", exact=True)
        field.fill("a-wrong-one")
        field.press("Enter")
        page.get_by_text("That token was not accepted.").wait_for()
        field.fill(TOKEN)
        field.press("Enter")
        diagnosed(page, page.get_by_role("button", name="Try nodule 1").click)
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        page.goto("about:blank")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_axe_finds_nothing_serious(opened: Any, scheme: str, size: tuple[int, int]) -> None:
    page = opened(scheme=scheme, size=size)
    diagnosed(page, page.get_by_role("button", name="Try nodule 1").click)
    page.get_by_text("Options", exact=True).click()
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.get_by_role("button", name="Open another CT").click()
    page.get_by_role("heading", name="Open on this server").wait_for()
    assert serious(page) == []
