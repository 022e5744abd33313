"""DICOM objects: every encoding, what other programs wrote, and files that contradict themselves or end early."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

import marked_files as maker
from nodule_diag.errors import UsageError
from nodule_diag.exchange import open_positions, read_positions
from nodule_diag.exchange.dicom.structure import MAX_DEPTH

OBJECTS = ("rtstruct", "seg binary", "seg label map rle", "sr point", "sr outlines", "chest cad")


def positions(path, ct=None):
    return [position.xyz_lps_mm for position in read_positions(path, ct=ct)]


def rewritten(source: Path, target: Path, change) -> Path:
    """An object that was changed."""
    data = pydicom.dcmread(source)
    change(data)
    data.save_as(target)
    return target


def undefined_lengths(data: pydicom.Dataset) -> None:
    for element in data:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                undefined_lengths(item)


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("lengths", ["known", "unknown"])
def test_every_encoding(straight, tmp_path, name, syntax, lengths):
    data = pydicom.dcmread(straight.files[name])
    if "PixelData" in data and (data.file_meta.TransferSyntaxUID.is_compressed or syntax == ExplicitVRBigEndian):
        pytest.skip("its pixels would have to be encoded again")
    if lengths == "unknown":
        undefined_lengths(data)
    path = tmp_path / "object.dcm"
    pydicom.dcmwrite(
        path, data, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian,
        overwrite=True, force_encoding=True,
    ) if syntax != DeflatedExplicitVRLittleEndian else _deflated(path, data)  # fmt: skip
    if syntax != DeflatedExplicitVRLittleEndian:
        _say_syntax(path, syntax)
    assert positions(path, straight.ct) == positions(straight.files[name], straight.ct)


def _deflated(path, data):
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)


def _say_syntax(path, syntax):
    """pydicom refuses to write another encoding than the syntax says, unless it is changed afterwards."""
    raw = path.read_bytes()
    old, new = b"1.2.840.10008.1.2.1\0", str(syntax).encode().ljust(20, b"\0")
    assert old in raw
    path.write_bytes(raw.replace(old, new, 1))


def test_without_a_preamble(straight, tmp_path):
    path = tmp_path / "old.dcm"
    path.write_bytes(straight.files["rtstruct"].read_bytes()[132:])
    assert positions(path) == positions(straight.files["rtstruct"])


@pytest.mark.parametrize("name", OBJECTS)
def test_a_file_that_ends_early_never_has_fewer_nodules(straight, tmp_path, name):
    whole = straight.files[name].read_bytes()
    expected = positions(straight.files[name], straight.ct)
    path = tmp_path / "cut.dcm"
    for end in np.linspace(1, len(whole) - 1, 150).astype(int):
        path.write_bytes(whole[:end])
        try:
            assert positions(path, straight.ct) == expected
        except UsageError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("length", [13, 4000, 65534])
def test_a_value_longer_than_its_item_is_refused(straight, tmp_path, length):
    """pydicom takes what follows for the value, or what is left of the file."""
    whole = straight.files["sr point"].read_bytes()
    at = whole.index(b"\x70\x00\x22\x00FL\x0c\x00") + 6  # GraphicData, three floats
    path = tmp_path / "long.dcm"
    path.write_bytes(whole[:at] + length.to_bytes(2, "little") + whole[at + 2 :])
    with pytest.raises(UsageError) as caught:
        open_positions(path)
    if length > 100:
        assert "element (0070,0022) is longer than what holds it" in str(caught.value)


def test_deep_sequences_are_refused(straight, tmp_path):
    def nest(data):
        inner = pydicom.Dataset()
        for _ in range(MAX_DEPTH + 1):
            outer = pydicom.Dataset()
            outer.ContentSequence = [inner]
            inner = outer
        data.ContentSequence = [inner]

    path = rewritten(straight.files["sr point"], tmp_path / "deep.dcm", nest)
    with pytest.raises(UsageError, match="sequences are more than 64 deep"):
        open_positions(path)


def test_a_deflated_bomb_is_refused(straight, tmp_path, monkeypatch):
    data = pydicom.dcmread(straight.files["rtstruct"])
    data.add_new(0x00091001, "UT", "a" * 9_000_000)
    path = tmp_path / "bomb.dcm"
    _deflated(path, data)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr("nodule_diag.exchange.dicom.objects.MAX_BYTES", 2**20)
    with pytest.raises(UsageError, match="its compressed part is cut, or holds more"):
        open_positions(path)


def test_too_many_elements_are_refused(straight, monkeypatch):
    monkeypatch.setattr("nodule_diag.exchange.dicom.structure.MAX_ELEMENTS", 10)
    with pytest.raises(UsageError, match="too many elements"):
        open_positions(straight.files["rtstruct"])


def test_other_objects_are_named(straight, tmp_path):
    with pytest.raises(UsageError, match="a DICOM CT Image Storage, not an SR"):
        open_positions(next(straight.marked.folder.iterdir()))
    path = rewritten(straight.files["rtstruct"], tmp_path / "x.dcm", lambda data: data.pop("SOPClassUID"))
    with pytest.raises(UsageError, match=r"an object of class \(none\)"):
        open_positions(path)


def contours(data):
    return data.ROIContourSequence[0].ContourSequence


RTSTRUCTS = {
    "no such type": (lambda d: setattr(contours(d)[0], "ContourGeometricType", "BLOB"), "'BLOB' is unknown"),
    "not in threes": (lambda d: contours(d)[0].ContourData.append("1"), "73 numbers"),
    "contours twice": (lambda d: d.ROIContourSequence.append(d.ROIContourSequence[0]), "contours of ROI 1 stand twice"),
    "contours of no ROI": (lambda d: d.StructureSetROISequence.pop(0), "contours of ROI 1, which is not"),
    "no number": (lambda d: d.StructureSetROISequence[0].pop("ROINumber"), "ROINumber = None"),
    "no data": (lambda d: contours(d)[0].pop("ContourData"), "ContourData = None"),
    "nothing": (lambda d: d.pop("ROIContourSequence"), "no position in it; ROI 1 (left) has no contours"),
}


@pytest.mark.parametrize("name", RTSTRUCTS)
def test_bad_rtstructs(straight, tmp_path, name):
    change, message = RTSTRUCTS[name]
    with pytest.raises(UsageError) as caught:
        open_positions(rewritten(straight.files["rtstruct"], tmp_path / "rt.dcm", change))
    assert message in str(caught.value)


def test_rtstruct_passes_over_what_is_not_drawn(straight, tmp_path):
    def change(data):
        data.ROIContourSequence[0].ContourSequence = []

    file = open_positions(rewritten(straight.files["rtstruct"], tmp_path / "rt.dcm", change))
    assert [mark.name for mark in file.marks] == ["right", "click"]
    assert file.warnings == ("ROI 1 (left) has no contours and was passed over",)


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
@pytest.mark.parametrize("count", [1, 2])
def test_closed_contours_of_one_or_two_points_have_no_area(straight, tmp_path, kind, count):
    stray = pydicom.Dataset()
    stray.ContourGeometricType, stray.ContourData = kind, [f"{value}" for value in range(3 * count)]

    def add(data):
        contours(data).insert(0, stray)
        maker.add_roi(data, 4, "BODY", straight.marked.frame, [(kind, np.full((count, 3), 7.0))])

    file = open_positions(rewritten(straight.files["rtstruct"], tmp_path / "rt.dcm", add))
    assert [mark.xyz for mark in file.marks] == [*positions(straight.files["rtstruct"]), (7.0, 7.0, 7.0)]
    what = "has closed contours of one or two points, which have no area"
    assert file.warnings == (f"ROI 1 (left) {what}", f"ROI 4 (BODY) {what}")


def test_two_nodules_in_one_roi_or_segment_are_said(straight, tmp_path):
    def join(data):
        left, right, _ = data.ROIContourSequence
        far = [float(v) + (60 if at % 3 == 0 else 0) for at, v in enumerate(right.ContourSequence[0].ContourData)]
        right.ContourSequence[0].ContourData = far
        left.ContourSequence = [*left.ContourSequence, *[right.ContourSequence[0]] * 5]

    file = open_positions(rewritten(straight.files["rtstruct"], tmp_path / "rt.dcm", join))
    assert file.warnings == ("ROI 1 (left) is of parts that lie apart: its centroid is in none of them",)

    def merge(data):
        for frame in data.PerFrameFunctionalGroupsSequence:
            group = frame.SegmentIdentificationSequence[0]
            if group.ReferencedSegmentNumber == 2:
                place = frame.PlanePositionSequence[0]
                x, y, z = place.ImagePositionPatient
                place.ImagePositionPatient = [float(x) + 60, y, z]
            group.ReferencedSegmentNumber = 1

    file = open_positions(rewritten(straight.files["seg binary"], tmp_path / "seg.dcm", merge))
    assert file.warnings == (
        "segment 1 (left) is of parts that lie apart: its centroid is in none of them",
        "segment 2 (right) is empty and was passed over",
    )


def test_closed_planar_xor(straight, tmp_path):
    """A shell: the inner outlines, drawn off the middle, push the centroid to the other side."""

    def hollow(data):
        for contour in contours(data):
            contour.ContourGeometricType = "CLOSEDPLANAR_XOR"
        marked = straight.marked
        inner = [marked.outline(marked.xyz + np.array([1.0, 0, 0]), k, 2.5) for k in range(len(marked.slices))]
        for points in (points for points in inner if points is not None):
            contour = pydicom.Dataset()
            contour.ContourGeometricType = "CLOSEDPLANAR_XOR"
            contour.ContourData = [f"{value:.6f}" for value in points.ravel()]
            data.ROIContourSequence[0].ContourSequence.append(contour)

    first = positions(rewritten(straight.files["rtstruct"], tmp_path / "rt.dcm", hollow))[0]
    shift = first[0] - straight.marked.xyz[0]
    assert -0.25 < shift < -0.05, "a ball of 2.5 of 5 mm is an eighth: 1 mm / 7 to the other side"


def frames(data):
    return data.PerFrameFunctionalGroupsSequence


SEGS = {
    "a frame too few": (lambda d: frames(d).pop(), "frames, and describes"),
    "no such segment": (lambda d: d.SegmentSequence.pop(0), "segment 1, which is not among its segments"),
    "a segment twice": (lambda d: d.SegmentSequence.append(d.SegmentSequence[0]), "a segment number stands twice"),
    "no such type": (lambda d: setattr(d, "SegmentationType", "BLOB"), "its type 'BLOB' is unknown"),
    "huge": (lambda d: setattr(d, "Rows", 65535) or setattr(d, "Columns", 65535), "65535 x 65535 pixels"),
    "short": (lambda d: setattr(d, "PixelData", d.PixelData[:100]), "its pixels are 100 bytes"),
    "nowhere": (lambda d: frames(d)[0].pop("PlanePositionSequence"), "ImagePositionPatient = None"),
    "flat": (lambda d: setattr(d.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "PixelSpacing", [0, 1]),
             "PixelSpacing is 0, 1"),
    "colour": (lambda d: setattr(d, "SamplesPerPixel", 3), "pixels of 1 bits"),
    "nothing": (lambda d: setattr(d, "PixelData", bytes(len(d.PixelData))), "no position in it; segment 1 (left)"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEGS)
def test_bad_segmentations(straight, tmp_path, name):
    change, message = SEGS[name]
    with pytest.raises(UsageError) as caught:
        open_positions(rewritten(straight.files["seg binary"], tmp_path / "seg.dcm", change))
    assert message in str(caught.value)


def group(data):
    return data.ContentSequence[-1].ContentSequence[0]


def region(data):
    return next(one for one in group(data).ContentSequence if one.ValueType == "SCOORD3D")


SRS = {
    "no such graphic": (lambda d: setattr(region(d), "GraphicType", "BLOB"), "graphic type 'BLOB' is unknown"),
    "not in threes": (lambda d: setattr(region(d), "GraphicData", [1.0, 2.0]), "a graphic of 2 numbers"),
    "not finite": (lambda d: setattr(region(d), "GraphicData", [1.0, 2.0, float("nan")]), "not a list of numbers"),
    "absurd": (lambda d: setattr(region(d), "GraphicData", [1.0, 2.0, 1e30]), "not a list of numbers"),
    "no data": (lambda d: region(d).pop("GraphicData"), "GraphicData = None"),
    "nothing": (lambda d: d.ContentSequence.clear(), "no position in it"),
}


@pytest.mark.parametrize("name", SRS)
def test_bad_reports(straight, tmp_path, name):
    change, message = SRS[name]
    with pytest.raises(UsageError) as caught:
        open_positions(rewritten(straight.files["sr point"], tmp_path / "sr.dcm", change))
    assert message in str(caught.value)


def test_reports_pass_over_what_has_no_place(straight, tmp_path):
    def remove(data):
        group(data).ContentSequence = [one for one in group(data).ContentSequence if one.ValueType != "SCOORD3D"]

    file = open_positions(rewritten(straight.files["sr point"], tmp_path / "sr.dcm", remove))
    assert [mark.name for mark in file.marks] == ["right"]
    assert file.warnings == ("measurement group 1 (left) has no place and was passed over",)


def test_findings_of_two_frames_are_refused(straight, tmp_path):
    def add(data):
        other = pydicom.Dataset()
        other.update(region(data))
        other.ReferencedFrameOfReferenceUID = "1.2.3"
        group(data).ContentSequence.append(other)

    with pytest.raises(UsageError, match="is in 2 frames of reference"):
        open_positions(rewritten(straight.files["sr point"], tmp_path / "sr.dcm", add))


def test_lines_of_a_measurement(straight, tmp_path):
    """As OHIF writes a length: the line lies below the number that was measured on it."""

    def move(data):
        for one in data.ContentSequence[-1].ContentSequence:
            (graphic,) = (below for below in one.ContentSequence if below.ValueType == "SCOORD3D")
            one.ContentSequence.remove(graphic)
            x, y, z = graphic.GraphicData
            graphic.GraphicType, graphic.GraphicData = "POLYLINE", [x - 3, y, z, x + 3, y, z]
            graphic.RelationshipType = "INFERRED FROM"
            name = maker.coded("410668003", "SCT", "Length")
            one.ContentSequence.append(maker.content("CONTAINS", "NUM", name, graphic))

    path = rewritten(straight.files["sr point"], tmp_path / "sr.dcm", move)
    assert np.allclose(positions(path), positions(straight.files["sr point"]), atol=1e-4)


def test_a_segmentation_must_lie_beside_its_report(straight, tmp_path):
    for name in ("sr segment", "sr segment frame"):
        shutil.copy(straight.files[name], tmp_path / "sr.dcm")
        uid = pydicom.dcmread(straight.files["seg binary"]).SOPInstanceUID
        with pytest.raises(UsageError, match=f"by the segmentation {uid}, which is not in its folder"):
            open_positions(tmp_path / "sr.dcm")


def test_references_that_lead_nowhere(straight, tmp_path):
    def change(data):
        finding = data.ContentSequence[1].ContentSequence[0]
        finding.ContentSequence[1].ContentSequence[0].ReferencedContentItemIdentifier = [1, 1, 99]

    with pytest.raises(UsageError, match=r"its content item \[1, 1, 99\], which is not there"):
        open_positions(rewritten(straight.files["chest cad"], tmp_path / "cad.dcm", change))


def test_the_chest_cad_that_the_tests_make_is_one(straight):
    """dcmtk resolves its references to the image library: 1.1.10 is the tenth image, slice 9."""
    if not shutil.which("dsrdump"):
        pytest.skip("no dsrdump: apt-get install dcmtk")
    said = subprocess.run(["dsrdump", straight.files["chest cad"]], capture_output=True, text=True, check=True).stdout
    assert "Chest CAD Report" in said
    assert said.count("<selected from 1.1.10>") == 2


@pytest.mark.parametrize("name", ["seg binary", "sr point", "sr segment", "sr outlines"])
def test_what_highdicom_made_is_whole(straight, name):
    if not shutil.which("dciodvfy"):
        pytest.skip("no dciodvfy: apt-get install dicom3tools")
    said = subprocess.run(["dciodvfy", straight.files[name]], capture_output=True, text=True, check=False).stderr
    assert [line for line in said.splitlines() if line.startswith("Error")] == []


def dcmqi(program: str, *arguments: object) -> None:
    folder = Path(pytest.importorskip("dcmqi", reason="no dcmqi: pip install dcmqi").__file__).parent / "bin"
    subprocess.run([folder / program, *map(str, arguments)], check=True, capture_output=True)


def test_dcmqi_reads_the_same_centroids(every, tmp_path):
    dcmqi("segimage2itkimage", "--inputDICOM", every.files["seg binary"], "--outputDirectory", tmp_path, "-t", "nrrd")
    for number, xyz in enumerate(positions(every.files["seg binary"]), start=1):
        image = sitk.ReadImage(str(tmp_path / f"{number}.nrrd"))
        index = np.argwhere(sitk.GetArrayViewFromImage(image)).mean(axis=0)[::-1]
        expected = image.TransformContinuousIndexToPhysicalPoint(index.tolist())
        np.testing.assert_allclose(xyz, expected, atol=1e-3)


CODES = {
    "SegmentedPropertyCategoryCodeSequence": ("49755003", "Morphologically Altered Structure"),
    "SegmentedPropertyTypeCodeSequence": ("27925004", "Nodule"),
}


def code(value: str, meaning: str, scheme: str = "SCT") -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


def written_by_dcmqi(files, folder: Path) -> tuple[Path, tuple[float, ...]]:
    """A SEG of dcmqi's making, from a mask on the CT's grid as ITK reads it; and its centroid, LPS mm, by ITK."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in sorted(files.marked.folder.iterdir())])
    mask = reader.Execute() * 0
    mask = sitk.Cast(mask, sitk.sitkUInt8)
    x, y, z = mask.TransformPhysicalPointToIndex(files.marked.xyz.tolist())
    for offset in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        mask[x + offset[0], y + offset[1], z + offset[2]] = 1
    sitk.WriteImage(mask, str(folder / "mask.nrrd"))
    expected = mask.TransformContinuousIndexToPhysicalPoint((x + 0.25, y + 0.25, z + 0.25))
    segment = {"labelID": 1, "SegmentLabel": "one", "SegmentAlgorithmType": "AUTOMATIC", "SegmentAlgorithmName": "a"}
    segment |= {"recommendedDisplayRGBValue": [9, 9, 9], **{name: code(*words) for name, words in CODES.items()}}
    meta = {"ContentCreatorName": "A^B", "SeriesDescription": "s", "SeriesNumber": "300", "InstanceNumber": "1"}
    meta |= {"ContentLabel": "SEGMENTATION", "segmentAttributes": [[segment]]}
    (folder / "seg.json").write_text(json.dumps(meta))
    (folder / "out").mkdir()
    seg = folder / "out" / "seg.dcm"
    dcmqi(
        "itkimage2segimage", "--inputImageList", folder / "mask.nrrd", "--inputDICOMDirectory", files.marked.folder,
        "--inputMetadata", folder / "seg.json", "--outputDICOM", seg,
    )  # fmt: skip
    return seg, expected


def test_a_segmentation_of_dcmqi(every, tmp_path):
    seg, expected = written_by_dcmqi(every, tmp_path)
    np.testing.assert_allclose(positions(seg, every.ct), [expected], atol=1e-3)


def test_a_report_of_dcmqi(straight, tmp_path):
    """On a straight series: dcmqi 1.5.7 aborts on an oblique one."""
    seg, expected = written_by_dcmqi(straight, tmp_path)
    diameter = {"value": "10", "quantity": code("81827009", "Diameter"), "units": code("mm", "millimeter", "UCUM")}
    measured = {
        "TrackingIdentifier": "nodule of dcmqi",
        "ReferencedSegment": 1,
        "SourceSeriesForImageSegmentation": str(straight.marked.slices[0].SeriesInstanceUID),
        "segmentationSOPInstanceUID": str(pydicom.dcmread(seg).SOPInstanceUID),
        "Finding": code("27925004", "Nodule"),
        "measurementItems": [diameter],
    }
    meta = {"SeriesDescription": "m", "SeriesNumber": "1001", "InstanceNumber": "1", "Measurements": [measured]}
    meta |= {"compositeContext": ["seg.dcm"], "imageLibrary": [p.name for p in straight.marked.folder.iterdir()]}
    meta |= {"observerContext": {"ObserverType": "PERSON", "PersonObserverName": "A^B"}}
    meta |= {"VerificationFlag": "VERIFIED", "CompletionFlag": "COMPLETE", "activitySession": "1", "timePoint": "1"}
    (tmp_path / "sr.json").write_text(json.dumps(meta))
    report = tmp_path / "out" / "sr.dcm"
    dcmqi(
        "tid1500writer", "--inputImageLibraryDirectory", straight.marked.folder, "--inputCompositeContextDirectory",
        tmp_path / "out", "--inputMetadata", tmp_path / "sr.json", "--outputDICOM", report,
    )  # fmt: skip
    (found,) = read_positions(report, ct=straight.ct)
    assert found.id == "nodule of dcmqi"
    np.testing.assert_allclose(found.xyz_lps_mm, expected, atol=1e-3)
