"""The DICOM objects, by pydicom: what they say and refer to, whatever the CT lacks."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

import ct_files as make
from dicom_exports import exported, upright
from dicom_in_every_position import predicted, round_nodule, series, tilted_gantry
from enhanced_ct import concatenation, two_acquisitions
from made_diagnosis import ball, made_prediction
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.dicom_objects.source import EMPTY_WHERE_UNKNOWN
from nodule_diag.dicom_objects.writing import dicom_objects, write_dicom_objects
from nodule_diag.errors import CTError, MissingExtraError, OutputError, UsageError
from nodule_diag.results.segmentation import Segmentation

Saved = Callable[[list[Any]], CTVolume]


def items(dataset: Dataset) -> list[Dataset]:
    """All content items below one, depth first."""
    return [found for item in dataset.get("ContentSequence", []) for found in (item, *items(item))]


def test_what_is_written(saved: Saved, tmp_path: Path) -> None:
    ct = saved(series())
    files = write_dicom_objects(tmp_path / "objects", ct, predicted(ct))
    assert sorted(file.name for file in files) == [
        "cam_1.dcm", "cam_2.dcm", "measurements.dcm", "pictures_1.dcm", "pictures_2.dcm", "segmentation.dcm",
    ]  # fmt: skip
    written = [dcmread(file) for file in files]
    assert {item.StudyInstanceUID for item in written} == {ct.dicom.study_uid}
    assert {item.PatientID for item in written} == {"phantom"}
    assert len({item.SOPInstanceUID for item in written}) == len(files)
    assert len({item.SeriesInstanceUID for item in written}) == 4  # one a kind
    assert not {item.SeriesInstanceUID for item in written} & {ct.series_uid}


def test_two_runs_are_two_series_of_the_same_nodules(saved: Saved) -> None:
    ct = saved(series())
    first, second = (dicom_objects(ct, predicted(ct))["segmentation.dcm"] for _ in range(2))
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert [s.TrackingUID for s in first.SegmentSequence] == [s.TrackingUID for s in second.SegmentSequence]
    assert len({s.TrackingUID for s in first.SegmentSequence}) == 2


def test_report_says_what_the_diagnosis_says(saved: Saved) -> None:
    ct = saved(series())
    prediction = predicted(ct)
    report = dicom_objects(ct, prediction)["measurements.dcm"]
    named = [item for item in items(report) if "ConceptNameCodeSequence" in item]
    groups = [item for item in named if item.ConceptNameCodeSequence[0].CodeValue == "125007"]
    assert len(groups) == 2
    for group, diagnosis in zip(groups, prediction.diagnoses, strict=True):
        said = {
            item.ConceptNameCodeSequence[0].CodeMeaning: float(item.MeasuredValueSequence[0].NumericValue)
            for item in items(group)
            if item.ValueType == "NUM"
        }
        assert said["Probability of cancer"] == pytest.approx(100 * diagnosis.malignancy)
        assert said["Malignancy"] == pytest.approx(diagnosis.expert_score)
        assert said["Diameter"] == pytest.approx(diagnosis.segmentation.diameter_mm)
        assert said["Volume"] == pytest.approx(diagnosis.segmentation.volume_mm3)
        assert said["Mean class activation over the nodule"] == pytest.approx(diagnosis.faithfulness.cam_nodule)
        (point,) = (item for item in items(group) if item.ValueType == "SCOORD3D")
        np.testing.assert_allclose(np.array(point.GraphicData), diagnosis.xyz_lps_mm, atol=1e-4)
        assert point.ReferencedFrameOfReferenceUID == ct.dicom.frame_of_reference_uid
        texts = " ".join(item.TextValue for item in items(group) if item.ValueType == "TEXT")
        assert diagnosis.similar["machine+expert"][0].case_id in texts
        assert prediction.bundle.sha256 in texts


def test_a_nodule_that_none_is_leaves_an_empty_segment_out(saved: Saved) -> None:
    """An empty mask has no frames; the other objects stand."""
    ct = saved(series())
    prediction = predicted(ct)
    nothing = replace(prediction.diagnoses[0].segmentation, values=np.zeros((16, 16, 16), np.float32))
    both = made_prediction(replace(prediction.diagnoses[0], segmentation=nothing), prediction.diagnoses[1])
    made = dicom_objects(ct, both)
    assert [s.SegmentNumber for s in made["segmentation.dcm"].SegmentSequence] == [1]
    assert made["segmentation.dcm"].SegmentSequence[0].SegmentLabel == "Nodule n1"
    alone = dicom_objects(ct, made_prediction(both.diagnoses[0]))
    assert "segmentation.dcm" not in alone
    assert "measurements.dcm" in alone


@pytest.mark.parametrize("keyword", [*EMPTY_WHERE_UNKNOWN, "FrameOfReferenceUID", "StudyInstanceUID"])
def test_a_ct_may_lack_what_it_should_have(saved: Saved, keyword: str) -> None:
    slices = series()
    for item in slices:
        item.pop(keyword, None)
    ct = saved(slices)
    made = dicom_objects(ct, predicted(ct))
    for item in made.values():
        assert keyword in item or keyword == "FrameOfReferenceUID"
    assert len({item.StudyInstanceUID for item in made.values()}) == 1


def test_a_nodule_between_two_slices_has_no_segment(saved: Saved) -> None:
    """Slices of 5 mm: a nodule of 4 mm covers no pixel's centre. The report says so."""
    ct = saved(make.dicom_slices(make.chest_hu((12, 64, 60)), spacing=(0.9, 1.1, 5.0)))
    z = ct.origin_xyz_mm[2] + 27.5
    small, large = (round_nodule(ct, (10.0, 40.0, z), radius, id=id) for id, radius in (("small", 2.2), ("large", 9.0)))
    assert "segmentation.dcm" not in dicom_objects(ct, made_prediction(small))
    made = dicom_objects(ct, made_prediction(small, large))
    assert [s.SegmentLabel for s in made["segmentation.dcm"].SegmentSequence] == ["Nodule large"]
    assert {"cam_1.dcm", "cam_2.dcm", "measurements.dcm"} < set(made)
    comments = [
        item.TextValue
        for item in items(made["measurements.dcm"])
        if item.ValueType == "TEXT" and item.TextValue.startswith("Most similar cases")
    ]
    assert ["covers no pixel's centre: it has no segment." in text for text in comments] == [True, False]


def assert_is_the_ball(
    made: Dataset, slices: dict[tuple[str, int | None], Dataset], center_xyz_mm: tuple[float, float, float]
) -> None:
    """Every pixel of every slice, by the standard's formula for its place (PS3.3, C.7.6.2.1.1).

    Args:
        made: The segmentation.
        slices: Classic slices, each by the UID and the number that a frame cites it by.
        center_xyz_mm: Of a ball of 6 mm. Its surface is known to 0.7 mm, which is its map's precision.
    """
    masks = {}
    for frame, mask in zip(made.PerFrameFunctionalGroupsSequence, made.pixel_array, strict=True):
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        cited = image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")
        masks[cited] = mask
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(place, slices[cited].ImagePositionPatient, atol=1e-9)
    assert len(masks) == made.NumberOfFrames
    for cited, item in slices.items():
        row, column = np.reshape(item.ImageOrientationPatient, (2, 3)).astype(float)
        r, c = np.indices((item.Rows, item.Columns))[..., None]
        between_rows, between_columns = item.PixelSpacing
        places = np.array(item.ImagePositionPatient) + c * between_columns * row + r * between_rows * column
        distance = np.linalg.norm(places - center_xyz_mm, axis=-1)
        assert (cited in masks) == (distance.min() < 6)
        mask = masks.get(cited, np.zeros(distance.shape))
        assert mask[distance < 5.3].all()
        assert not mask[distance > 6.7].any()


@pytest.mark.parametrize("angle", [0, 10, 20, -15])
def test_with_a_tilted_gantry_the_slices_are_those_of_the_nodule(saved: Saved, angle: int) -> None:
    slices, center = tilted_gantry(angle)
    ct = saved(slices)
    made = dicom_objects(ct, made_prediction(round_nodule(ct, center)))["segmentation.dcm"]
    assert_is_the_ball(made, {(item.SOPInstanceUID, None): item for item in slices}, center)


@pytest.mark.parametrize("apart_mm", [0.0, 0.7])
def test_one_acquisition_of_a_file_is_cited_by_its_own_frames(tmp_path: Path, apart_mm: float) -> None:
    """They are every second frame, from the top down. The CAM's planes are those of slices, so it cites them too."""
    first, second = (
        exported(upright(heights, (-40.0, -40.0)), pixels=(64, 60), spacing=(1.5, 1.5))
        for heights in (2.0 * np.arange(40), 2.0 * np.arange(40)[::-1] + apart_mm)
    )
    file = two_acquisitions(first, second)
    ct = read_ct(make.save_series(tmp_path / "ct", [file]), acquisition=2)
    one, two = ((x, 5.0, 39.0 + apart_mm) for x in (5.0, 25.0))
    slices = {(file.SOPInstanceUID, 2 * number): item for number, item in enumerate(second, start=1)}
    made = dicom_objects(ct, made_prediction(round_nodule(ct, one)))
    assert_is_the_ball(made["segmentation.dcm"], slices, one)
    for group in made["cam_1.dcm"].PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        cited = slices[image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber]
        assert group.PlanePositionSequence[0].ImagePositionPatient[2] == pytest.approx(cited.ImagePositionPatient[2])
    both = dicom_objects(ct, made_prediction(round_nodule(ct, one), round_nodule(ct, two, id="2")))["segmentation.dcm"]
    cited = [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for group in both.PerFrameFunctionalGroupsSequence
    ]
    assert sorted(cited) == sorted(2 * [*range(36, 47, 2)])


def test_a_prediction_of_another_ct_is_refused(saved: Saved) -> None:
    ct = saved(series())
    x, y, z = ct.origin_xyz_mm
    with pytest.raises(UsageError, match=r"no slice of .* is near a nodule") as caught:
        dicom_objects(ct, made_prediction(round_nodule(ct, (x, y, z - 40.0))))
    assert caught.value.code == "another-ct"


@pytest.mark.parametrize("size", [(61, 63), (60, 64)], ids=["frames end within a byte", "whole bytes"])
def test_three_segments_of_which_two_overlap(saved: Saved, size: tuple[int, int]) -> None:
    """highdicom's own reader finds each mask where it was put."""
    from highdicom.seg import Segmentation as Read

    columns, rows = size
    ct = saved(make.dicom_slices(make.chest_hu((40, rows, columns)), spacing=(0.9, 1.1, 1.5)))
    prediction = predicted(ct, count=3)
    made = dicom_objects(ct, prediction)["segmentation.dcm"]
    assert made.SegmentsOverlap == "YES"
    slices = ct.dicom.slices
    masks = Read.from_dataset(made).get_pixels_by_source_instance(
        [identity.sop_uid for identity in slices], ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    index = np.stack(np.meshgrid(np.arange(columns), np.arange(rows), indexing="xy"), axis=-1).reshape(-1, 2)
    for plane, identity in zip(masks, slices, strict=True):
        points = np.array(identity.position_xyz_mm) + np.c_[index * (0.9, 1.1), np.zeros(len(index))]
        for segment, diagnosis in enumerate(prediction.diagnoses):
            expected = diagnosis.segmentation.holds(points).reshape(rows, columns)
            np.testing.assert_array_equal(plane[..., segment] > 0, expected)
    heights = {}
    for frame in made.PerFrameFunctionalGroupsSequence:
        segment, place = frame.FrameContentSequence[0].DimensionIndexValues
        assert segment == frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        position = tuple(frame.PlanePositionSequence[0].ImagePositionPatient)
        assert heights.setdefault(place, position) == position  # one place, one number, whichever the segment
    assert len(set(heights.values())) == len(heights)


def test_segments_that_lie_apart(saved: Saved) -> None:
    ct = saved(series())
    first, _ = predicted(ct).diagnoses
    x, y, z = first.xyz_lps_mm
    aside = (x + 18.0, y, z)
    second = replace(first, id="aside", xyz_lps_mm=aside, segmentation=Segmentation(ball(5.0), aside, ct.direction))
    assert dicom_objects(ct, made_prediction(first, second))["segmentation.dcm"].SegmentsOverlap == "NO"


@pytest.mark.slow
def test_many_nodules_take_little_memory() -> None:
    """20 nodules on 400 slices of 512 x 512: all masks together would be 2 GiB, and the process may take one."""
    ended = subprocess.run(
        [sys.executable, Path(__file__).parents[2] / "many_segments.py"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    segments, frames = map(int, ended.stdout.split())
    assert segments == 20
    assert frames > 20 * 10


def test_a_concatenation_is_refused(saved: Saved) -> None:
    """Several multi-frame files: neither a segmentation nor a map can refer to them together."""
    ct = saved(concatenation(series(), 15, 22))
    with pytest.raises(UsageError, match="several multi-frame files") as caught:
        dicom_objects(ct, predicted(ct))
    assert caught.value.code == "multi-frame-concatenation"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientSex", "X"),
        ("PatientBirthDate", "unknown"),
        ("StudyDate", "20261341"),
        ("StudyTime", "25:61"),
        ("PatientName", "Doe^Jane\\Roe"),
        ("ReferringPhysicianName", "Doe^Jane\\Roe"),
    ],
)
def test_what_the_standard_does_not_allow_is_left_empty(saved: Saved, keyword: str, value: str) -> None:
    slices = series()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pydicom's, of the value
        for item in slices:
            setattr(item, keyword, value)
        ct = saved(slices)
        made = dicom_objects(ct, predicted(ct))
    assert {str(item[keyword].value or "") for item in made.values()} == {""}


def test_a_slice_without_a_thickness_has_the_distance_of_the_slices(saved: Saved) -> None:
    """The distance is at a right angle to them, with a tilted gantry too."""
    for slices, distance in ((series(), 1.5), (tilted_gantry(20)[0], 2.5 * np.cos(np.radians(20)))):
        for item in slices:
            del item.SliceThickness
        ct = saved(slices)
        shared = dicom_objects(ct, predicted(ct))["segmentation.dcm"].SharedFunctionalGroupsSequence[0]
        assert shared.PixelMeasuresSequence[0].SliceThickness == pytest.approx(distance)


def test_a_long_name_is_cut_to_what_every_reader_takes(saved: Saved) -> None:
    """dicom3tools counts bytes where the standard counts characters; no letter is cut in two."""
    ct = saved(series())
    prediction = predicted(ct, count=1)
    made = dicom_objects(ct, made_prediction(replace(prediction.diagnoses[0], id="<b>\\" + "漢" * 40)))
    label = made["segmentation.dcm"].SegmentSequence[0].SegmentLabel
    assert label == "Nodule <b>_" + "漢" * 17
    assert len(made["cam_1.dcm"].SeriesDescription.encode()) <= 64


def test_a_filter_of_the_cases_stands_in_the_objects(saved: Saved) -> None:
    ct = saved(series())
    prediction = predicted(ct, count=1)
    filtered = replace(prediction, cases=replace(prediction.cases, where="age > 60"))
    texts = [
        item.TextValue for item in items(dicom_objects(ct, filtered)["measurements.dcm"]) if item.ValueType == "TEXT"
    ]
    assert "cases_where=age > 60" in texts


def test_from_a_zip(saved: Saved, tmp_path: Path) -> None:
    saved(series())
    ct = read_ct(make.zipped(tmp_path / "ct", tmp_path / "ct.zip"))
    assert len(dicom_objects(ct, predicted(ct))) == 6


def test_files_that_are_gone_or_changed(saved: Saved, tmp_path: Path) -> None:
    slices = series()
    ct = saved(slices)
    middle = sorted((tmp_path / "ct").iterdir())[len(slices) // 2]
    slices[0].SOPInstanceUID = "1.2.3"
    make.save_slice(slices[0], middle)
    with pytest.raises(CTError, match="another file"):
        dicom_objects(ct, predicted(ct))
    middle.unlink()
    with pytest.raises(CTError, match="no longer holds"):
        dicom_objects(ct, predicted(ct))


def test_another_ct_has_no_objects(tmp_path: Path) -> None:
    ct = read_ct(make.write(tmp_path / "scan.nii.gz"))
    with pytest.raises(UsageError, match="not DICOM") as caught:
        dicom_objects(ct, predicted(ct))
    assert caught.value.code == "not-dicom"


def test_missing_extra_is_named(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    ct = saved(series())
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingExtraError, match=r"nodule-diag\[dicom\]"):
        dicom_objects(ct, predicted(ct))


def test_a_file_in_the_way(saved: Saved, tmp_path: Path) -> None:
    ct = saved(series())
    (tmp_path / "objects").write_text("in the way")
    with pytest.raises(OutputError, match="cannot make the folder"):
        write_dicom_objects(tmp_path / "objects", ct, predicted(ct))
