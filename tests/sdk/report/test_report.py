"""The report as a file: what stands in it, what never does, and what it says in words."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from made_diagnosis import ball, made_diagnosis
from nodule_diag.cases.base import CaseBase
from nodule_diag.ct.phantom import Phantom
from nodule_diag.ct.volume import CTVolume
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import MissingExtraError
from nodule_diag.report import words, writing
from nodule_diag.report.cube import SIZE, STEP_MM, Cube
from nodule_diag.report.landscape import DRAWN_AT_MOST, HEIGHT, WIDTH, landscape
from nodule_diag.report.pictures import outline, overviews
from nodule_diag.results.diagnosis import Cam, Faithfulness
from nodule_diag.results.png import png_bytes
from nodule_diag.results.segmentation import Segmentation

VOID = {"meta", "image", "img", "input", "path", "circle", "rect", "stop", "br"}


class Tags(HTMLParser):
    """Checks that every tag is closed, and keeps what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in {"src", "href", "xlink:href", "action"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_asks_nobody_for_anything(phantom_report: Path) -> None:
    text = phantom_report.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in tags.addresses)
    assert "http:" not in text
    assert "https:" not in text
    assert phantom_report.stat().st_size <= 4_000_000


def test_only_the_pages_own_script_may_run(phantom_report: Path) -> None:
    text = phantom_report.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/=]{44}'(;|$)", policy)


def report_of(ct: CTVolume, diagnoser: Diagnoser, **changes) -> str:
    prediction = diagnoser.predict_timed(ct, [(0.0, 0.0, 0.0)])
    changed = replace(prediction.diagnoses[0], **changes)
    return writing.report_html(ct, replace(prediction, diagnoses=(changed,)), diagnoser=diagnoser)


def ball_ct(**changes) -> CTVolume:
    from nodule_diag.ct.made_up import made_up_ct

    return replace(made_up_ct(), **changes)


def test_nothing_from_outside_becomes_markup(diagnoser: Diagnoser) -> None:
    bad = "<script>alert(1)</script>"
    text = report_of(ball_ct(warnings=(bad,)), diagnoser, id=bad, warnings=(bad, "</script>"))
    assert bad not in text
    assert text.count("<script") == 2  # the cube's numbers and the page's own
    assert "&lt;script&gt;alert(1)" in text


def test_no_path_and_no_uid_unless_it_is_asked_for(chest: Phantom, diagnoser: Diagnoser) -> None:
    ct = ball_ct(path="/data/Doe^Jane/scan.nii.gz")
    assert "Doe" not in report_of(ct, diagnoser)
    prediction = diagnoser.predict_timed(ct, [(0.0, 0.0, 0.0)])
    named = writing.report_html(ct, prediction, diagnoser=diagnoser, identity={"Patient": "Doe, Jane"})
    assert "Doe, Jane" in named


def test_evidence_in_words() -> None:
    on = made_diagnosis(faithfulness=Faithfulness(0.81, 0.12))
    off = made_diagnosis(faithfulness=Faithfulness(0.2, 0.3))
    nothing = made_diagnosis(faithfulness=Faithfulness(0.0, 0.0))
    assert "87 % of the evidence lies on the nodule" in words.faithfulness(on)
    assert words.evidence_warning(on) is None
    assert "stronger off the nodule" in (words.evidence_warning(off) or "")
    assert "empty" in words.faithfulness(nothing)


@pytest.mark.parametrize(
    ("score", "word"), [(1.0, "highly unlikely"), (2.4, "moderately unlikely"), (3.0, "indeterminate"),
                        (4.49, "moderately suspicious"), (5.0, "highly suspicious")]
)  # fmt: skip
def test_score_in_the_readers_words(score: float, word: str) -> None:
    assert words.score(score) == word


def test_prior_is_said() -> None:
    assert words.prior(None) == "if half of such nodules were malignant"
    assert words.prior(0.05) == "if 5 % of such nodules were malignant"


def test_a_filter_of_the_cases_is_said(diagnoser: Diagnoser) -> None:
    """Beside the counts, in the table of shares and in the provenance; escaped like all that comes from outside."""
    prediction = diagnoser.predict_timed(ball_ct(), [(0.0, 0.0, 0.0)])
    whole = writing.report_html(ball_ct(), prediction, diagnoser=diagnoser)
    assert "142 diagnosed nodules, 80 % of them malignant" in whole
    assert "of all 142 cases" in whole
    chosen = replace(prediction.cases, where="expert_score < 4", count=50, malignant=20)
    text = writing.report_html(ball_ct(), replace(prediction, cases=chosen), diagnoser=diagnoser)
    assert "only the 50 diagnosed nodules with expert_score &lt; 4; 40 % of them malignant" in text
    assert "of the chosen 142 cases" in text  # the diagnosis is of all
    assert "chosen from the whole by <code>expert_score &lt; 4</code>" in text


def test_cube_of_a_linear_field_is_that_field() -> None:
    """HU = 2 x + 4 y + 6 z - 300, which any spline keeps: a flipped or shifted axis would show."""
    grid = np.stack(np.meshgrid(*(np.arange(80.0) - 40,) * 3, indexing="ij"))  # z, y, x in mm
    hu = (2 * grid[2] + 4 * grid[1] + 6 * grid[0] - 300).astype(np.float32)
    ct = CTVolume.from_array(hu, spacing_zyx_mm=(1.0, 1.0, 1.0), origin_xyz_mm=(-40.0, -40.0, -40.0))
    where = (3.0, -2.0, 1.0)
    cube = Cube.of(ct, made_diagnosis(xyz_lps_mm=where))
    offset = (np.arange(SIZE) - (SIZE - 1) / 2) * STEP_MM
    x, y, z = (at + offset for at in where)
    wanted = 2 * x + 4 * y[:, None] + 6 * z[:, None, None] - 300
    inner = slice(10, -10)  # the spline bends within a few voxels of the volume's edge
    np.testing.assert_allclose(cube.hu[inner, inner, inner], wanted[inner, inner, inner], atol=0.05)


def test_outside_the_volume_is_air() -> None:
    ct = CTVolume.from_array(
        np.random.default_rng(0).integers(-1000, 400, (20, 40, 40)),
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        origin_xyz_mm=(-20.0, -20.0, -10.0),
    )
    cube = Cube.of(ct, made_diagnosis(xyz_lps_mm=(0.0, 0.0, 0.0)))
    assert (cube.hu[0] == -1000).all()
    assert (cube.hu[:, 0] == -1000).all()
    assert cube.hu[40, 40, 40] > -1000 or cube.hu[40, 40, 41] > -1000


def test_cam_and_nodule_lie_on_the_same_grid() -> None:
    """A ball of 6 mm: half its values where its surface is, in an oblique scan too."""
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    center = (5.0, 6.0, 7.0)
    diagnosis = made_diagnosis(
        xyz_lps_mm=center, cam=Cam(ball(), center, turn), segmentation=Segmentation(ball(), center, turn)
    )
    cube = Cube(np.zeros((SIZE,) * 3, np.float32), diagnosis)
    offset = (np.arange(SIZE) - (SIZE - 1) / 2) * STEP_MM
    distance = np.sqrt(offset[:, None, None] ** 2 + offset[:, None] ** 2 + offset**2)
    assert (cube.nodule[distance < 5.0] > 0.5).all()
    assert (cube.nodule[distance > 7.0] < 0.5).all()
    assert (cube.cam[distance < 4.0] > 0.5).all()
    assert (cube.cam[distance > 8.5] < 0.5).all()


def test_cam_of_the_cube_is_the_cam_at_its_voxels() -> None:
    """A CAM without any symmetry, in an oblique scan: `Cam.sample` says what each voxel must have."""
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    cam = Cam(np.random.default_rng(0).random((16, 16, 16), dtype=np.float32), (5.0, 6.0, 7.0), turn)
    cube = Cube(np.zeros((SIZE,) * 3, np.float32), made_diagnosis(xyz_lps_mm=cam.center_xyz_mm, cam=cam))
    offset = (np.arange(SIZE) - (SIZE - 1) / 2) * STEP_MM
    z, y, x = np.meshgrid(offset, offset, offset, indexing="ij")
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3) @ turn.T + cam.center_xyz_mm
    np.testing.assert_allclose(cube.cam.ravel(), cam.sample(points), atol=1e-6)


def test_outline_goes_round_what_is_inside() -> None:
    inside = np.zeros((20, 20), np.float32)
    inside[5:9, 10:15] = 1.0
    pairs = re.findall(r"([\d.]+) ([\d.]+)", outline(inside))
    points = np.array(pairs, dtype=float)
    assert points[:, 0].min() == pytest.approx(10.0)
    assert points[:, 0].max() == pytest.approx(15.0)
    assert points[:, 1].min() == pytest.approx(5.0)
    assert points[:, 1].max() == pytest.approx(9.0)
    assert outline(np.zeros((4, 4), np.float32)) == ""
    assert outline(np.ones((4, 4), np.float32)).startswith("M")  # closed at the picture's edge


def test_overview_marks_the_position(chest: Phantom) -> None:
    x, y, z = chest.nodules[0].center_xyz_mm
    axial, coronal = overviews(chest.ct, (x, y, z))
    (left, front, foot), size = chest.ct.origin_xyz_mm, chest.ct.size_xyz
    step_x, step_y, step_z = chest.ct.spacing_xyz_mm
    assert axial.x_mm == pytest.approx(x - left + step_x / 2)
    assert axial.y_mm == pytest.approx(y - front + step_y / 2)
    assert coronal.y_mm == pytest.approx(size[2] * step_z - (z - foot + step_z / 2))
    assert axial.width_mm == pytest.approx(size[0] * step_x)


def test_landscape_places_every_case(diagnoser: Diagnoser, chest: Phantom) -> None:
    diagnosis = diagnoser.predict(chest.ct, [chest.nodules[0].center_xyz_mm], prevalence=0.01)[0]
    drawn = landscape(diagnosis, diagnoser.cases)
    _, numbers = diagnoser.cases.cases.numbers()
    assert len(drawn.dots) == len(numbers)
    assert sum(dot.malignant for dot in drawn.dots) == numbers[:, 0].sum()
    assert len(drawn.rings) == 20
    raw = 1 / (1 + np.exp(-diagnosis.logit))  # the prevalence does not move it
    assert drawn.nodule.y == pytest.approx((1 - raw) * HEIGHT)
    assert drawn.nodule.x == pytest.approx((diagnosis.expert_score - 1) / 4 * WIDTH)


def test_a_large_case_base_stays_a_small_picture(diagnoser: Diagnoser) -> None:
    from nodule_diag.cases.retrieval import CaseIndex

    first = next(iter(diagnoser.cases.cases))
    many = [first.model_copy(update={"case_id": f"c{number:05}"}) for number in range(DRAWN_AT_MOST + 1)]
    index = CaseIndex(CaseBase.of(many, name="many", model_sha256="0" * 64))
    drawn = landscape(made_diagnosis(), index)
    assert len(drawn.dots) <= DRAWN_AT_MOST
    assert drawn.cases == DRAWN_AT_MOST + 1


def test_pictures_of_the_case_base_are_shown(diagnoser: Diagnoser) -> None:
    picture = png_bytes(np.full((8, 8), 77, np.uint8))
    cases = list(diagnoser.cases.cases)
    base = CaseBase.of((), name="with pictures", model_sha256=diagnoser.bundle.model_sha256)
    base.add(cases, pictures={case.case_id: {"axial": picture} for case in cases})
    from nodule_diag.cases.retrieval import CaseIndex

    text = writing.report_html(
        (ct := ball_ct()),
        diagnoser.predict_timed(ct, [(0.0, 0.0, 0.0)]),
        diagnoser=Diagnoser(diagnoser.bundle, diagnoser._backend, CaseIndex(base)),
    )
    assert text.count('alt="Picture of case') == 20


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"nodule-diag\[report\]"):
        writing._template()


def test_identity_is_read_from_the_ct_itself(tmp_path: Path) -> None:
    import ct_files as make
    from nodule_diag.ct.reading import read_ct
    from nodule_diag.report.identity import identity_of

    slices = make.dicom_slices()
    for item in slices:
        item.PatientName, item.PatientBirthDate = "Doe^Jane", "19610203"
    known = identity_of(read_ct(make.save_series(tmp_path / "ct", slices)))
    assert known["Patient"] == "Doe Jane"
    assert known["Born"] == "1961-02-03"
    assert known["Patient number"] == "phantom"
    assert "Sex" not in known
    assert list(identity_of(ball_ct(path="/a/scan.nii"))) == ["CT"]
