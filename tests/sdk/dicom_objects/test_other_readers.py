"""The DICOM objects as others read them: dciodvfy judges their form, dcmqi says where each voxel lies."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ct_files as make
from dicom_in_every_position import LYING, predicted, round_nodule, series, tilted_gantry
from enhanced_ct import enhanced, two_acquisitions
from made_diagnosis import made_prediction
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.dicom_objects.writing import write_dicom_objects
from other_programs import assert_cam, assert_segments, dciodvfy_errors, program, run

pytestmark = pytest.mark.slow

Saved = Callable[[list[Any]], CTVolume]


def classic(lying: str) -> list[Any]:
    return series(lying)


def multi_frame(lying: str) -> list[Any]:
    return [enhanced(series(lying))]


def multi_frame_turned_each(lying: str) -> list[Any]:
    """Each frame says itself how it lies; they come in the other order."""
    return [enhanced(series(lying)[::-1], shared=())]


@pytest.mark.parametrize("made", [classic, multi_frame, multi_frame_turned_each])
@pytest.mark.parametrize("lying", LYING)
def test_form_and_place(saved: Saved, tmp_path: Path, lying: str, made: Callable[[str], list[Any]]) -> None:
    """dciodvfy finds no error, and dcmqi every voxel in its place."""
    ct = saved(made(lying))
    prediction = predicted(ct)
    for file in write_dicom_objects(tmp_path / "objects", ct, prediction):
        assert dciodvfy_errors(file) == [], file.name
    (read := tmp_path / "read").mkdir()
    assert_segments(tmp_path / "objects/segmentation.dcm", prediction.diagnoses, read)
    for number, diagnosis in enumerate(prediction.diagnoses, start=1):
        assert_cam(tmp_path / f"objects/cam_{number}.dcm", diagnosis, read)


def test_the_form_with_a_tilted_gantry(saved: Saved, tmp_path: Path) -> None:
    slices, center = tilted_gantry(20)
    ct = saved(slices)
    files = write_dicom_objects(tmp_path / "objects", ct, made_prediction(round_nodule(ct, center)))
    assert len(files) == 4
    for file in files:
        assert dciodvfy_errors(file) == [], file.name


def test_form_and_place_of_one_acquisition_of_a_file(tmp_path: Path) -> None:
    file = two_acquisitions(series(), series()[::-1])
    ct = read_ct(make.save_series(tmp_path / "ct", [file]), acquisition=2)
    prediction = predicted(ct)
    for path in write_dicom_objects(tmp_path / "objects", ct, prediction):
        assert dciodvfy_errors(path) == [], path.name
    (read := tmp_path / "read").mkdir()
    assert_segments(tmp_path / "objects/segmentation.dcm", prediction.diagnoses, read)


@pytest.mark.parametrize("made", [classic, multi_frame])
def test_dcmqi_reads_the_same_numbers(saved: Saved, tmp_path: Path, made: Callable[[str], list[Any]]) -> None:
    ct = saved(made("axial"))
    first, second = predicted(ct).diagnoses
    prediction = made_prediction(replace(first, presence=0.25, feature_distance=1.5), second)
    write_dicom_objects(tmp_path, ct, prediction)
    run(
        program("tid1500reader", "dcmqi (pip)"),
        "--inputDICOM", tmp_path / "measurements.dcm", "--outputMetadata", tmp_path / "read.json",
    )  # fmt: skip
    groups = json.loads((tmp_path / "read.json").read_text())["Measurements"]
    assert [group["TrackingIdentifier"] for group in groups] == ["Nodule n0", "Nodule n1"]
    for group, diagnosis in zip(groups, prediction.diagnoses, strict=True):
        said = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in group["measurementItems"]}
        assert said["Probability of cancer"] == pytest.approx(100 * diagnosis.malignancy)
        assert said["Malignancy"] == pytest.approx(diagnosis.expert_score)
        assert said["Diameter"] == pytest.approx(diagnosis.segmentation.diameter_mm)
        assert said["Volume"] == pytest.approx(diagnosis.segmentation.volume_mm3)
        assert said["Share of malignant cases in the case base"] == pytest.approx(diagnosis.base_rate)
        more = {"Probability that there is a nodule": 25.0, "Distance of the features from those of training": 1.5}
        assert {name: said[name] for name in more if name in said} == (
            more if diagnosis is prediction.diagnoses[0] else {}
        )
