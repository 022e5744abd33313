"""The DICOM objects, by pydicom: what they say and refer to, whatever the CT lacks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

import ct_files as make
from dicom_in_every_position import predicted, series
from made_diagnosis import made_prediction
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.dicom_objects.source import EMPTY_WHERE_UNKNOWN
from nodule_diag.dicom_objects.writing import dicom_objects, write_dicom_objects
from nodule_diag.errors import CTError, MissingExtraError, OutputError, UsageError

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
