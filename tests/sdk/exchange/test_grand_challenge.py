"""LUNA25's interface: every point is answered, in its place, whatever fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ct_files as make
from made_diagnosis import made_diagnosis, made_prediction
from nodule_diag.errors import BackendError, CoordinateError, OutputError, UsageError
from nodule_diag.exchange import answer_grand_challenge

NAME = "lung-nodule-malginancy-likelihoods.json"
HERE, THERE, OUTSIDE = [-10.0, 20.0, -120.0], [-15, 25, -110], [0, 300, -120]


class Predicts:
    """Tells x / -100 of each point as P; refuses what lies outside, as the Diagnoser does."""

    def __init__(self, error: Exception | None = None, bad: list[float] | None = None) -> None:
        self.error, self.bad = error, bad
        self.calls: list[int] = []

    def predict_timed(self, ct, points, *, check_lung=True, prevalence=None, **_):
        self.calls.append(len(points))
        if self.error is not None and (self.bad is None or self.bad in [list(point) for point in points]):
            raise self.error
        if any(y > 100 for _, y, _ in points):
            raise CoordinateError("point (0, 300, -120) mm LPS is outside the CT")
        return made_prediction(*(made_diagnosis(malignancy=-x / 100) for x, _, _ in points))


def job(folder: Path, *points: object, ct: str | None = "scan.mha") -> Path:
    images = folder / "input" / "images" / "chest-ct"
    images.mkdir(parents=True)
    entries = [{"name": f"1_{n}_19990102", "point": point} for n, point in enumerate(points, start=1)]
    document = {"name": "Points of interest", "type": "Multiple points", "points": entries}
    document["version"] = {"major": 1, "minor": 0}
    (folder / "input" / "nodule-locations.json").write_text(json.dumps(document))
    (folder / "input" / "clinical-information-lung-ct.json").write_text('{"age": 61}')
    (folder / "output").mkdir()
    if ct is not None:
        make.write(images / "made.mha").rename(images / ct)
    return folder


def answers(folder: Path, diagnoser: Predicts, **options):
    answered = answer_grand_challenge(diagnoser, folder / "input", folder / "output", **options)
    assert [path.name for path in (folder / "output").iterdir()] == [NAME]
    document = json.loads((folder / "output" / NAME).read_text())
    assert {name: document[name] for name in ("name", "type", "version")} == {
        "name": "Points of interest",
        "type": "Multiple points",
        "version": {"major": 1, "minor": 0},
    }
    return answered, document["points"]


def test_all_together(tmp_path):
    diagnoser = Predicts()
    answered, points = answers(job(tmp_path, HERE, THERE), diagnoser)
    assert points == [
        {"name": "1_1_19990102", "point": HERE, "probability": 0.1},
        {"name": "1_2_19990102", "point": THERE, "probability": 0.15},
    ]
    assert (answered.count, answered.failures) == (2, ())
    assert diagnoser.calls == [2]


@pytest.mark.parametrize(
    "bad", [OUTSIDE, [float("nan"), 0, 0], [1, 2], "a", None, [1, 2, "b"]], ids=lambda bad: str(bad)[:12]
)
def test_a_point_that_fails_still_stands_in_its_place(tmp_path, bad):
    answered, points = answers(job(tmp_path, HERE, bad, THERE), Predicts())
    assert [point["name"] for point in points] == ["1_1_19990102", "1_2_19990102", "1_3_19990102"]
    assert [point["probability"] for point in points] == [0.1, 0.5, 0.15]
    assert points[1]["point"] == (bad if bad == OUTSIDE else None)
    (failure,) = answered.failures
    assert failure.startswith("point 2")


def test_the_prior_is_the_prevalence(tmp_path):
    _, points = answers(job(tmp_path, OUTSIDE), Predicts(), prevalence=0.09)
    assert points[0]["probability"] == 0.09


def test_no_points(tmp_path):
    answered, points = answers(job(tmp_path), Predicts())
    assert (answered.count, points) == (0, [])


@pytest.mark.parametrize("name", ["scan.tif", "SCAN.TIFF", "scan.mha"])
def test_a_ct_that_cannot_be_read(tmp_path, name):
    folder = job(tmp_path, HERE, THERE, ct=name)
    (folder / "input" / "images" / "chest-ct" / name).write_bytes(b"no CT")
    answered, points = answers(folder, Predicts())
    assert [point["probability"] for point in points] == [0.5, 0.5]
    (failure,) = answered.failures
    assert name in failure


def test_a_network_that_fails_for_one(tmp_path):
    answered, points = answers(job(tmp_path, HERE, THERE), Predicts(BackendError("P = -3.99"), bad=HERE))
    assert [point["probability"] for point in points] == [0.5, 0.15]
    assert answered.failures == ("point 1: P = -3.99",)


def test_a_network_that_always_fails_is_no_answer(tmp_path):
    folder = job(tmp_path, HERE, THERE)
    with pytest.raises(BackendError, match="no GPU"):
        answer_grand_challenge(Predicts(BackendError("no GPU")), folder / "input", folder / "output")
    assert list((folder / "output").iterdir()) == []


def test_not_one_ct(tmp_path):
    folder = job(tmp_path, HERE, ct=None)
    with pytest.raises(UsageError, match="holds 0 CTs, not one"):
        answer_grand_challenge(Predicts(), folder / "input", folder / "output")
    for name in ("a.mha", "b.tif", "c.txt"):
        (folder / "input" / "images" / "chest-ct" / name).write_bytes(b"")
    with pytest.raises(UsageError, match="holds 2 CTs, not one"):
        answer_grand_challenge(Predicts(), folder / "input", folder / "output")
    with pytest.raises(UsageError, match="cannot read"):
        answer_grand_challenge(Predicts(), folder, folder / "output")


@pytest.mark.parametrize("text", ["", "[]", '{"points": 3}', '{"points": [3]}', "{", '{"points": [], "points": []}'])
def test_no_list_of_points(tmp_path, text):
    folder = job(tmp_path, HERE)
    (folder / "input" / "nodule-locations.json").write_text(text)
    with pytest.raises(UsageError, match=r"nodule-locations\.json"):
        answer_grand_challenge(Predicts(), folder / "input", folder / "output")


def test_odd_names_are_echoed(tmp_path):
    folder = job(tmp_path)
    names = ["größer", "", 7, None, ["x"], "1", "1"]
    entries = [{"name": name, "point": HERE, "more": float("inf")} for name in names]
    (folder / "input" / "nodule-locations.json").write_text(json.dumps({"points": entries}))
    _, points = answers(folder, Predicts())
    assert [point["name"] for point in points] == ["größer", "", 7, None, None, "1", "1"]
    assert np.allclose([point["probability"] for point in points], 0.1)


def test_the_folder_is_made(tmp_path):
    folder = job(tmp_path, HERE)
    answer_grand_challenge(Predicts(), folder / "input", folder / "absent")
    assert [path.name for path in (folder / "absent").iterdir()] == ["lung-nodule-malginancy-likelihoods.json"]


def test_no_folder_to_write_to(tmp_path):
    folder = job(tmp_path, HERE)
    (folder / "a-file").touch()
    with pytest.raises(OutputError):
        answer_grand_challenge(Predicts(), folder / "input", folder / "a-file")
