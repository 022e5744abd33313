"""Enhanced and Legacy Converted Enhanced CT, made by highdicom and pydicom: the truth is the classic series."""

import copy
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

import ct_files as make
from dicom_exports import AXIAL, assert_is_the_field, exported
from enhanced_ct import concatenation, enhanced
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError

HU = make.chest_hu((12, 40, 48))


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> CTVolume:
    return read_ct(make.save_series(tmp_path_factory.mktemp("clean"), make.dicom_slices(HU)))


def same(ct: CTVolume, truth: CTVolume) -> None:
    np.testing.assert_array_equal(ct.hu, truth.hu)
    assert (ct.spacing_xyz_mm, ct.origin_xyz_mm) == (truth.spacing_xyz_mm, truth.origin_xyz_mm)
    assert ct.hu.dtype == truth.hu.dtype


def saved(folder: Path, *items: Dataset) -> Path:
    return make.save_series(folder, list(items), name="ct{}.dcm".format)


def both(folder: Path) -> tuple[Path, Path]:
    return folder, make.zipped(folder, folder.with_suffix(".zip"))


def test_legacy_converted_by_highdicom(tmp_path, truth):
    legacy = pytest.importorskip("highdicom.legacy")
    items = make.dicom_slices(HU)
    for item in make.encoded(items, uid.ExplicitVRLittleEndian):
        item.PatientName, item.PatientBirthDate, item.PatientSex = "A^B", "", ""
        item.StudyID = item.StudyDate = item.StudyTime = item.AccessionNumber = ""
        item.ReferringPhysicianName, item.Manufacturer, item.SeriesDate = "", "Maker", "20260101"
        item.ImageType, item.AcquisitionNumber, item.SeriesTime = ["ORIGINAL", "PRIMARY", "AXIAL"], 3, "101500"
        item.ContentDate, item.ContentTime, item.PositionReferenceIndicator = "20260101", "101500", ""
        item.AcquisitionDate, item.AcquisitionTime = "20260101", "101530"
    made = legacy.LegacyConvertedEnhancedCTImage(
        legacy_datasets=items, series_instance_uid=f"{make.UID_ROOT}.5", series_number=5,
        sop_instance_uid=f"{make.UID_ROOT}.5.1", instance_number=1,
    )  # fmt: skip
    (tmp_path / "series").mkdir()
    made.save_as(tmp_path / "series" / "legacy.dcm")
    for path in both(tmp_path / "series"):
        ct = read_ct(path)
        same(ct, truth)
        assert ct.warnings == ()
        assert {one.sop_class for one in ct.dicom.slices} == {uid.LegacyConvertedEnhancedCTImageStorage}
        # The independent reader of the same file says which frame lies where.
        written = pydicom.dcmread(tmp_path / "series" / "legacy.dcm")
        frames = written.PerFrameFunctionalGroupsSequence
        for one in ct.dicom.slices:
            assert one.sop_uid == f"{make.UID_ROOT}.5.1"
            assert one.position_xyz_mm == tuple(frames[one.frame - 1].PlanePositionSequence[0].ImagePositionPatient)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    ],
    ids=lambda syntax: syntax.keyword,
)
def test_enhanced_in_every_native_syntax(tmp_path, truth, syntax, order):
    item = enhanced(make.dicom_slices(HU)[::order])
    for path in both(saved(tmp_path / "series", *make.encoded([item], syntax))):
        ct = read_ct(path)
        same(ct, truth)
        assert [one.frame for one in ct.dicom.slices] == list(range(1, 13))[::order]


@pytest.mark.parametrize(
    "syntax",
    [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLosslessSV1],
    ids=lambda syntax: syntax.keyword,
)
@pytest.mark.parametrize("bot", [True, False], ids=["offset table", "none"])
def test_enhanced_compressed(tmp_path, truth, syntax, bot):
    frames = make.encoded(make.dicom_slices(HU), syntax)
    item = enhanced(make.dicom_slices(HU))
    item.file_meta = make.FileMetaDataset()
    item.file_meta.TransferSyntaxUID = syntax
    streams = [next(pydicom.encaps.generate_frames(one.PixelData, number_of_frames=1)) for one in frames]
    item.PixelData = encapsulate(streams, has_bot=bot)
    item["PixelData"].VR, item["PixelData"].is_undefined_length = "OB", True
    for path in both(saved(tmp_path / "series", item)):
        same(read_ct(path), truth)


def test_a_rescale_for_each_frame(tmp_path, truth):
    slices = make.dicom_slices(HU)
    for number in (1, 4, 5):
        slices[number] = make.dicom_slices(HU, intercept=-2000)[number]
    same(read_ct(saved(tmp_path / "series", enhanced(slices))), truth)
    slices[7].RescaleSlope = 2
    with pytest.raises(CTError, match=r"ct0\.dcm, frame 8 has slope 2") as caught:
        read_ct(saved(tmp_path / "wrong", enhanced(slices)))
    assert caught.value.code == "ct-inconsistent-slices"


def test_what_frames_share_may_be_anything(tmp_path, truth):
    names = ("PixelMeasuresSequence", "PlaneOrientationSequence", "PixelValueTransformationSequence",
             "CTImageFrameTypeSequence", "CTReconstructionSequence")  # fmt: skip
    for count in range(len(names) + 1):
        item = enhanced(make.dicom_slices(HU), shared=names[:count])
        same(read_ct(saved(tmp_path / f"{count}", item)), truth)


@pytest.mark.parametrize(
    ("name", "values"),
    [("StackID", ("A", "B")), ("TemporalPositionIndex", (1, 2)), ("FrameAcquisitionNumber", (1, 2))],
)
def test_several_volumes_in_one_file(tmp_path, name, values):
    other = make.chest_hu((12, 40, 48), seed=5)
    slices = [item for pair in zip(make.dicom_slices(HU), make.dicom_slices(other), strict=True) for item in pair]
    item = enhanced(slices, **{name: list(values) * 12})
    folder = saved(tmp_path / "series", item)
    with pytest.raises(CTError, match=r"holds 2 volumes in one series: --acquisition 1 \(") as caught:
        read_ct(folder)
    assert caught.value.code == "ct-several-acquisitions"
    np.testing.assert_array_equal(read_ct(folder, acquisition=1).hu, HU)
    np.testing.assert_array_equal(read_ct(folder, acquisition=2).hu, other)


def test_two_kernels_in_one_file(tmp_path):
    other = make.chest_hu((12, 40, 48), seed=5)
    slices = [*make.dicom_slices(HU), *make.dicom_slices(other)]
    for number, item in enumerate(slices):
        item.ConvolutionKernel = ["B31f", "B70f"][number // 12]
    folder = saved(tmp_path / "series", enhanced(slices))
    with pytest.raises(CTError, match=r"kernel B31f.*kernel B70f"):
        read_ct(folder)
    np.testing.assert_array_equal(read_ct(folder, acquisition=2).hu, other)


def test_a_concatenation(tmp_path, truth):
    parts = concatenation(make.dicom_slices(HU), 5, 9)
    ct = read_ct(saved(tmp_path / "series", *parts[::-1]))
    same(ct, truth)
    assert ct.warnings == ()
    assert [one.frame for one in ct.dicom.slices] == [1, 2, 3, 4, 5, 1, 2, 3, 4, 1, 2, 3]
    part = read_ct(saved(tmp_path / "part", *parts[:2]))
    assert part.warnings == ("2 of the 3 files of a concatenation are there: the CT is in part",)


def test_tilted_with_a_missing_frame(tmp_path):
    rises = np.delete(2.5 * np.arange(16), 7)
    column = np.array([0, np.cos(0.2), -np.sin(0.2)])
    positions = [(-20.5, 11.25, rise) for rise in rises]  # the table moves along z
    item = enhanced(exported(positions, row=AXIAL[0], column=column))
    ct = read_ct(saved(tmp_path / "series", item))
    assert_is_the_field(ct, within=15, outside=-1024, rows=slice(6, 32))
    assert len(ct.warnings) == 3  # tilt, gap, and that the scan is turned
    assert ct.dicom.resampled


def test_beside_scouts_and_classic_series(tmp_path, truth):
    folder = saved(tmp_path / "study", enhanced(make.dicom_slices(HU)))
    scout = make.dicom_slices(series=4)[0]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    make.save_slice(scout, folder / "scout.dcm")
    ct = read_ct(folder)
    same(ct, truth)
    assert ct.warnings == ("set aside 1 DICOM object: a scout",)
    make.save_series(folder / "classic", make.dicom_slices(series=2))
    with pytest.raises(CTError, match="holds 2 series") as caught:
        read_ct(folder)
    assert caught.value.code == "ct-several-series"


def cut(folder: Path, count: int) -> Path:
    path = folder / "ct0.dcm"
    path.write_bytes(path.read_bytes()[:-count])
    return folder


def test_damage_is_refused(tmp_path):
    item = enhanced(make.dicom_slices(HU))
    with pytest.raises(CTError, match="truncated") as caught:
        read_ct(cut(saved(tmp_path / "short", item), 3000))
    assert caught.value.code == "ct-truncated"

    fewer = copy.deepcopy(item)
    fewer.PerFrameFunctionalGroupsSequence = fewer.PerFrameFunctionalGroupsSequence[:-1]
    with pytest.raises(CTError, match="it has 12 frames and says of 11 of them where they lie") as caught:
        read_ct(saved(tmp_path / "fewer", fewer))
    assert caught.value.code == "ct-multi-frame"

    lost = copy.deepcopy(item)
    del lost.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    with pytest.raises(CTError, match=r"ct0\.dcm, frame 4 has no usable ImagePositionPatient") as caught:
        read_ct(saved(tmp_path / "lost", lost))
    assert caught.value.code == "ct-no-orientation"

    many = copy.deepcopy(item)
    many.NumberOfFrames = 2**31 - 1
    with pytest.raises(CTError) as caught:
        read_ct(saved(tmp_path / "many", many))
    assert caught.value.code in {"ct-truncated", "ct-too-large"}

    compressed = copy.deepcopy(item)
    compressed.file_meta = make.FileMetaDataset()
    compressed.file_meta.TransferSyntaxUID = uid.RLELossless
    streams = [one.PixelData for one in make.encoded(make.dicom_slices(HU), uid.RLELossless)]
    frames = [next(pydicom.encaps.generate_frames(stream, number_of_frames=1)) for stream in streams]
    compressed.PixelData = encapsulate(frames[:-1])
    compressed["PixelData"].VR, compressed["PixelData"].is_undefined_length = "OB", True
    with pytest.raises(CTError, match="frames") as caught:
        read_ct(saved(tmp_path / "compressed", compressed))
    assert caught.value.code in {"ct-truncated", "ct-damaged"}


def test_large_headers_of_many_frames(tmp_path, truth):
    """Legacy converted images carry whole headers of private elements for each frame."""
    item = enhanced(make.dicom_slices(HU))
    for own in item.PerFrameFunctionalGroupsSequence:
        private = own.private_block(0x0019, "nodule-diag", create=True)
        private.add_new(0x01, "OB", bytes(400_000))
    for path in both(saved(tmp_path / "series", item)):
        same(read_ct(path), truth)
