"""JSON in its forms: the plain list, JSON Lines, 3D Slicer's markups, Grand Challenge's points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import marked_files as marked
from nodule_diag.errors import UsageError
from nodule_diag.exchange import open_positions, read_positions
from nodule_diag.exchange.position import Mark

POINTS = [(-1.5, 2.0, 3.0), (4.0, 5.0, 60.0)]
PLAIN = '[{"x": -1.5, "y": 2, "z": 3}, {"x": 4, "y": 5, "z": 60}]'
LISTS = {
    "list.json": PLAIN,
    "bom.json": "\ufeff" + PLAIN,
    "nodules.json": f'{{"nodules": {PLAIN}}}',
    "json without its name.txt": f"  {PLAIN}",
    "lines.jsonl": '{"x": -1.5, "y": 2, "z": 3}\n\n{"x": "4", "y": 5, "z": 60, "more": []}\n',
    "lines.ndjson": '{"x": -1.5, "y": 2, "z": 3}\r\n{"x": 4, "y": 5, "z": 60}',
    "prediction.json": json.dumps({"schema": "x", "nodules": [{"xyz_lps_mm": list(xyz)} for xyz in POINTS]}),
    "without labels.mrk.json": json.dumps(
        {"markups": [{"type": "Fiducial", "controlPoints": [{"position": list(xyz)}]} for xyz in POINTS]}
    ),
    "challenge.json": json.dumps({"type": "Multiple points", "points": [{"point": list(xyz)} for xyz in POINTS]}),
}


def marks(path: Path) -> list[Mark]:
    return list(open_positions(path).marks)


@pytest.mark.parametrize("name", LISTS)
def test_lists(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(LISTS[name].encode())
    assert [(mark.name, mark.xyz) for mark in marks(path)] == [(None, point) for point in POINTS]


def test_ids(tmp_path: Path) -> None:
    path = tmp_path / "ids.json"
    path.write_text('[{"id": 12, "x": 1, "y": 2, "z": 3}, {"id": null, "x": 1, "y": 2, "z": 3}]')
    assert [mark.name for mark in marks(path)] == ["12", None]
    path.write_text('{"name": "one", "type": "Point", "point": [1, 2, 3], "version": {"major": 1, "minor": 0}}')
    assert marks(path) == [Mark("entry 1", (1.0, 2.0, 3.0), "one")]


BAD_LISTS = {
    "broken.json": ('[{"x": 1,', ["not JSON"]),
    "no list.json": ('{"x": 1, "y": 2, "z": 3}', ["not a JSON list"]),
    "deep.json": ("[" * 100_000, ["not JSON"]),
    "many digits.json": ('[{"x": ' + "1" * 5000 + ', "y": 2, "z": 3}]', ["not JSON"]),
    "beyond a float.json": ('[{"x": ' + "1" * 400 + ', "y": 2, "z": 1e400}]', ["entry 1: x", "entry 1: z = 'inf'"]),
    "a key twice.json": ('[{"x": 1, "x": 2, "y": 2, "z": 3}]', ["the key 'x' stands twice"]),
    "entries.json": (
        '[{"x": 1, "y": 2}, {"x": true, "y": 2, "z": 3}, [1, 2, 3], {"x": 1, "y": 2, "z": 3, "id": {}}]',
        ["entry 1: z is missing", "entry 2: x = 'True'", "entry 3: the entry", "entry 4: id"],
    ),
    "not finite.json": ('[{"x": NaN, "y": 2, "z": -Infinity}]', ["entry 1: x", "entry 1: z"]),
    "two kinds.json": ('[{"x": 1, "y": 2, "z": 3}, {"xyz_lps_mm": [1, 2, 3]}]', ["some entries have xyz_lps_mm"]),
    "empty.json": ("[]", ["no nodule"]),
    "broken.jsonl": ('{"x": 1, "y": 2, "z": 3}\n{"x"', ["not JSON"]),
    "challenge.json": (
        '{"points": [{"point": [1, 2]}, {"point": [1, 2, "a"]}, 3, {"name": [], "point": [1, 2, 3]}, {"name": "b"}]}',
        ["entry 1: point = '[1, 2]'", "entry 2: point", "entry 3: the entry", "entry 4: name", "entry 5: point"],
    ),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists_tell_all_faults(tmp_path: Path, name: str) -> None:
    text, messages = BAD_LISTS[name]
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        open_positions(path)
    for message in messages:
        assert message in str(caught.value)
    assert name in str(caught.value)


def test_a_long_list_of_faults_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "many.json"
    path.write_text(json.dumps([{"x": "?", "y": 0, "z": 0}] * 50))
    with pytest.raises(UsageError, match="and 30 more"):
        open_positions(path)


def test_reading_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodule_diag.exchange.documents.MAX_POSITIONS", 1)
    for name in LISTS:
        path = tmp_path / name
        path.write_bytes(LISTS[name].encode())
        with pytest.raises(UsageError, match="more than 1 "):
            open_positions(path)


def write_markups(path: Path, *markups: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"@schema": "v1.0.3", "markups": list(markups)}))
    return path


def fiducial(*controls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "Fiducial", "controlPoints": list(controls), **more}


def test_markups_obey_their_own_frame(tmp_path: Path) -> None:
    path = tmp_path / "m.mrk.json"
    for frame, sign in (("LPS", 1), ("RAS", -1)):
        path.write_text(marked.markups([(1, 2, 3)], frame))
        (found,) = read_positions(path)
        assert (found.id, found.xyz_lps_mm) == ("F-1", (sign, 2 * sign, 3))
    point = {"label": "a", "position": [1, 2, 3]}
    assert open_positions(write_markups(path, fiducial(point))).space == "lps", "the schema's default"


def test_markups_of_all_kinds(tmp_path: Path) -> None:
    path = write_markups(
        tmp_path / "m.mrk.json",
        fiducial(
            {"label": "F", "position": [1, 2, 3], "positionStatus": "defined"},
            {"label": "unplaced", "position": "", "positionStatus": "undefined"},
            {"label": "moving", "position": [0, 0, 0], "positionStatus": "preview"},
            {"label": "F", "position": [4, 5, 6]},
            {"position": [7, 8, 9]},
            coordinateUnits=["mm", "UCUM", "millimeter"],
        ),
        {"type": "ROI", "name": "R", "center": [10, 11, 12], "size": [5, 5, 4], "coordinateUnits": "mm"},
        {"type": "ROI", "center": [13, 11, 12], "size": [0, 0, 0], "controlPoints": [{"positionStatus": "defined"}]},
    )
    file = open_positions(path)
    found = file.on(None)
    assert [position.id for position in found] == ["F", "F (2)", "3", "R", "5"]
    assert [position.xyz_lps_mm[0] for position in found] == [1, 4, 7, 10, 13]
    assert found[1].source == f"{path}, entry 1, control point 4"
    assert file.warnings == ("2 points without a position were passed over: unplaced, moving",)


@pytest.mark.parametrize("status", ["undefined", "preview", "missing", None, "left out"])
def test_an_roi_that_was_never_placed_is_no_nodule(tmp_path: Path, status: str | None) -> None:
    roi: dict[str, Any] = {"type": "ROI", "name": "R", "center": [0, 0, 0], "size": [0.0, 0.0, 0.0]}
    if status != "left out":
        roi["controlPoints"] = [{"label": "R-1", "position": [0, 0, 0], "positionStatus": status}] if status else []
    path = write_markups(tmp_path / "m.mrk.json", fiducial({"position": [1, 2, 3]}), roi)
    file = open_positions(path)
    assert [mark.xyz for mark in file.marks] == [(1.0, 2.0, 3.0)]
    assert file.warnings == ("a point without a position was passed over: R",)
    with pytest.raises(UsageError, match="no placed point in it"):
        open_positions(write_markups(path, roi))


@pytest.mark.parametrize(
    ("markup", "message"),
    [
        ({"type": "Line", "controlPoints": []}, "type 'Line'"),
        ({"controlPoints": []}, "type 'None'"),
        ({"type": "Fiducial", "controlPoints": 3}, "controlPoints is not a list"),
        ({"type": "ROI"}, "center = 'None'"),
        ({"type": "ROI", "center": [0, 0, 0], "controlPoints": None}, "controlPoints is not a list"),
        (fiducial(), "no placed point"),
        (fiducial({"position": [1, 2, 3], "positionStatus": "undefined"}), "no placed point"),
        (fiducial({"position": [1, 2, 3]}, coordinateSystem="IJK"), "coordinateSystem = 'IJK'"),
        (fiducial({"position": [1, 2, 3]}, coordinateSystem=None), "coordinateSystem = 'None'"),
        (fiducial({"position": [1, 2, 3]}, coordinateUnits="um"), "coordinateUnits = 'um'"),
        (fiducial({"position": [1, 2, None]}), "control point 1: position"),
        (fiducial({"position": ""}), "control point 1: position"),
        (fiducial({"position": [1, 2, 3], "label": []}), "control point 1: label"),
        (fiducial(3), "control point 1: not an object"),
        (7, "entry 1: not an object"),
    ],
)
def test_bad_markups(tmp_path: Path, markup: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_positions(write_markups(tmp_path / "m.mrk.json", markup))
    assert message in str(caught.value)


def test_markups_in_two_frames_are_refused(tmp_path: Path) -> None:
    points = [fiducial({"position": [1, 2, 3]}, coordinateSystem=frame) for frame in ("LPS", "RAS")]
    with pytest.raises(UsageError, match="some of its markups are in LPS and some in RAS"):
        open_positions(write_markups(tmp_path / "m.mrk.json", *points))
