"""What a person sees of a result: one line in a shell, a table and three planes in a notebook."""

from __future__ import annotations

from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from made_diagnosis import made_diagnosis, made_prediction
from nodule_diag.results.identity import Runtime
from nodule_diag.results.picture import GAP, OUTLINE, SCALE, ct_planes, nodule_png
from nodule_diag.results.rows import figures
from nodule_diag.results.spaces import SPACES

EDGE = 64 * SCALE
ANY_TEXT = st.text(max_size=200)


@given(text=ANY_TEXT, number=st.floats(-1e3, 1e3) | st.sampled_from([float("nan"), float("inf")]))
@settings(max_examples=50)
def test_every_repr_is_one_short_line(text: str, number: float) -> None:
    diagnosis = made_diagnosis(id=text, malignancy=number, warnings=(text, text))
    prediction = made_prediction(diagnosis, name=text)
    case = diagnosis.similar["machine"][0]._replace(case_id=text, distance=number)
    parts = (diagnosis.cam, diagnosis.segmentation, diagnosis.faithfulness, prediction.runtime)
    for result in (diagnosis, prediction, case, *parts):
        assert len(repr(result).splitlines()) == 1
        assert len(repr(result)) < 200
        assert repr(result).startswith(f"{type(result).__name__}(")


def test_repr_says_what_matters() -> None:
    assert repr(made_diagnosis(id="left upper")) == (
        "Diagnosis('left upper' at LPS -31.00, 12.50, -140.00 mm: malignancy 0.71, expert score 3.9,"
        " diameter 11.8 mm, no warnings)"
    )


def test_the_share_has_a_name_that_explains_itself() -> None:
    diagnosis = made_diagnosis()
    assert diagnosis.malignant_share is diagnosis.diagnosis


@pytest.mark.parametrize(("threads", "said"), [(1, "1 thread"), (2, "2 threads")])
def test_one_thread_is_no_threads(threads: int, said: str) -> None:
    assert Runtime("0.1.0", "onnxruntime", "cpu", "fp32", threads).label == f"onnxruntime on cpu, fp32, {said}"


def test_similar_cases_are_counted_as_they_were_found() -> None:
    """Where cases are excluded, fewer than K and than all are left."""
    case = made_diagnosis().similar["machine"][0]
    few = made_diagnosis(similar=dict.fromkeys(SPACES, (case,) * 7), k=20, cases=142)
    (row,) = (row for row in figures(few.to_dict(), prevalence=None) if row.label == "  as they come")
    assert row.meaning.startswith("of 7,")


class Page(HTMLParser):
    """Tags, visible words and images of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.images: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.images += [value or "" for name, value in attrs if (tag, name) == ("img", "src")]
        assert {name for name, _ in attrs} <= {"style", "alt", "src"}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


PRINTABLE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)


@given(text=st.one_of(PRINTABLE, st.sampled_from(["</td><script>alert(1)</script>", '"><img src=x>', "&lt;b&gt;"])))
@settings(max_examples=25)
def test_html_escapes_everything(text: str) -> None:
    prediction = made_prediction(made_diagnosis(id=text, warnings=(text,)), name=text)
    plain = made_prediction(made_diagnosis(warnings=("w",)))
    page, wanted = Page(prediction._repr_html_()), Page(plain._repr_html_())
    assert page.tags == wanted.tags
    assert len(page.images) == 1
    assert f"Nodule {text}" in page.words
    assert text in page.words
    assert any(words.startswith(f"{text} 1.0.0") for words in page.words)


def test_html_shows_the_figures_and_a_picture() -> None:
    diagnosis = made_diagnosis(prevalence=0.05, malignancy_spread=0.031, presence=0.97)
    page = Page(diagnosis._repr_html_())
    words = " ".join(page.words)
    for label, value, meaning in figures(diagnosis.to_dict(), prevalence=0.05):
        assert label.strip() in words
        assert value in page.words
        assert meaning in page.words
    assert "if 5 % were malignant" in words
    head, data = page.images[0].split(",")
    assert head == "data:image/png;base64"
    assert b64decode(data, validate=True).startswith(b"\x89PNG")


@pytest.mark.parametrize("known", [False, True])
def test_figures_that_nobody_can_give_have_no_line(known: bool) -> None:
    given_ = {"malignancy_spread": 0.03, "presence": 0.97} if known else {}
    labels = [row.label.strip() for row in figures(made_diagnosis(**given_).to_dict(), prevalence=None)]
    assert labels[0] == "Malignancy, 0..1"
    assert ("spread" in labels, "Presence" in labels) == (known, known)
    assert len(set(labels)) == len(labels)


def decoded(png: bytes, folder: Path) -> np.ndarray:
    """(height, width, 3) by ITK's own PNG reader."""
    path = folder / "nodule.png"
    path.write_bytes(png)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def panel(image: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = row * (EDGE + GAP), column * (EDGE + GAP)
    return image[top : top + EDGE, left : left + EDGE].astype(int)


@pytest.mark.parametrize(
    ("place_zyx", "seen"),
    [
        # towards the head and the patient's right, at the middle from front to back
        ((56, 32, 8), {1: (7, 8)}),
        # to the front and the patient's left, at the middle slice
        ((32, 8, 56), {0: (8, 56)}),
        # to the feet and the back, in the middle from side to side
        ((8, 56, 32), {2: (55, 56)}),
    ],
)
def test_planes_hang_as_radiologists_hang_them(
    tmp_path: Path, place_zyx: tuple[int, int, int], seen: dict[int, tuple[int, int]]
) -> None:
    patch = np.zeros((2, 64, 64, 64), np.float32)
    z, y, x = place_zyx
    patch[0, z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3] = 1.0
    none = made_diagnosis()
    empty = np.zeros((16, 16, 16), np.float32)
    cam, nothing = (type(part)(empty, part.center_xyz_mm, np.eye(3)) for part in (none.cam, none.segmentation))
    image = decoded(nodule_png(ct_planes(patch), cam=cam, segmentation=nothing), tmp_path)
    assert image.shape == (2 * EDGE + GAP, 3 * EDGE + 2 * GAP, 3)
    for column in range(3):
        grey = panel(image, 0, column)[..., 0]
        if column not in seen:
            assert grey.max() == 0
            continue
        rows, columns = np.nonzero(grey > 128)
        assert (rows.mean() / SCALE, columns.mean() / SCALE) == pytest.approx(seen[column], abs=1.0)


def test_the_outline_runs_round_the_nodule_and_the_cam_lies_on_it(tmp_path: Path) -> None:
    diagnosis = made_diagnosis()
    image = decoded(nodule_png(None, cam=diagnosis.cam, segmentation=diagnosis.segmentation), tmp_path)
    y, x = np.indices((EDGE, EDGE)) - (EDGE - 1) / 2
    distance_mm = np.hypot(y, x) / SCALE * 0.5
    for column in range(3):
        plain, covered = panel(image, 0, column), panel(image, 1, column)
        outline = (plain == OUTLINE).all(axis=-1)
        assert distance_mm[outline] == pytest.approx(5.8, abs=0.7)
        assert not plain[~outline].any()  # no CT was given
        heat = covered[..., 0]
        assert heat[distance_mm < 3].min() > 140
        assert heat[distance_mm > 10].max() <= 3
        np.testing.assert_array_equal((covered == OUTLINE).all(axis=-1), outline)


def test_planes_are_the_lung_window() -> None:
    patch = np.zeros((2, 64, 64, 64), np.float32)
    patch[0] = np.linspace(-0.1, 1.1, 64, dtype=np.float32)  # the spline overshoots
    planes = ct_planes(patch)
    assert (planes.shape, planes.dtype, planes.nbytes) == ((3, 64, 64), np.uint8, 12_288)
    np.testing.assert_allclose(planes[0, 5], np.linspace(-0.1, 1.1, 64).clip(0, 1) * 255, atol=0.5)
