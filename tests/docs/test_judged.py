"""docs/judged.md is what docs/make/judged.py makes of the committed report."""

import pytest

pytest.importorskip("torch", reason="the extra export is not installed")


@pytest.fixture(scope="module")
def judged(script):
    return script("judged")


def test_the_page_is_made_of_the_committed_report(judged):
    assert judged.PAGE.read_text(encoding="utf-8") == judged.page(judged.read()), "run docs/make/judged.py"


def case(name: str, *, form: str = "voi", error: float = 0.0, nodule: float = 0.8, background: float = 0.1) -> dict:
    return {
        "case_id": name, "patient_id": "P1", "fold": 1, "form": form, "diameter_mm": 10.0, "diameter_error_mm": error,
        "cam_nodule": nodule, "cam_background": background, "malignancy": 0.25, "expert_score": 2.0,
        "reader_score": 3.5, "reader_scores": [3, 4], "texture": 4.5,
    }  # fmt: skip


def test_failures_are_a_cam_off_the_nodule_or_a_diameter_far_off(judged):
    found = judged.failures(
        [
            case("good"),
            case("just", error=3.0),
            case("small", error=-3.01),
            case("off", nodule=0.1, background=0.2),
            case("both", form="cube", error=4.0, nodule=0.1, background=0.2),
            case("cut", form="cube-cut", error=9.0),
            case("unknown") | {"diameter_error_mm": None, "cam_nodule": None, "cam_background": None},
        ]
    )
    assert [(one["case_id"], cam, far) for one, cam, far in found] == [
        ("both", True, True), ("small", False, True), ("off", True, False),
    ]  # fmt: skip


def test_a_failure_shows_its_figures(judged):
    cuts = [{"threshold": 0.35, "diameter_error_mm": -4.0}, {"threshold": 0.4, "diameter_error_mm": 0.0}]
    thresholds = {"0": 0.4, "1": 0.35}
    report = {"judgements": [case("x") | {"cuts": cuts}], "sections": [], "diagnosed": [], "command": "c"}
    text = judged.page(report | {"thresholds": thresholds})
    assert "| `x` | P1 | 10.0 | 4.5 | 6.0 | 0.70 | 0.25 | 2.0 | 3.5 of 2 | diameter |" in text
    assert "0\nand 1 of the 1 VOIs, 0 and 0 of the 0 cubes" in text


def test_the_curve_is_drawn_from_its_table(judged, tmp_path):
    rows = [
        {
            "metric": f"{what}, {when}",
            "value": value + fifth / 10,
            "low": low,
            "high": high,
            "n": 5,
            "group": f"{fifth}",
        }
        for when in (judged.BEFORE, judged.AFTER)
        for fifth in range(5)
        for what, value, low, high in (("mean P", 0.1, None, None), ("malignant", 0.2, 0.1, 0.9))
    ]
    section = judged.Section.model_validate({"title": judged.CURVE, "rows": rows})
    p, share, (down, up) = judged.curve(section, judged.AFTER)
    assert p == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert share == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])
    assert down == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert up == pytest.approx([0.7, 0.6, 0.5, 0.4, 0.3])
    for name in ("a.svg", "b.svg"):
        judged.draw(section, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
