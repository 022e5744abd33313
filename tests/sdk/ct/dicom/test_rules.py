"""What lies beside the slices of a CT: set aside with a warning where it can be told, refused where it cannot."""

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

import ct_files as make
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError


def slice_like(**values) -> Dataset:
    """A copy of a slice of the series, with other elements; None takes one away."""
    item = make.dicom_slices()[4]
    item.SOPInstanceUID = f"{make.UID_ROOT}.77.{random.Random(repr(values)).randrange(10**9)}"
    for name, value in values.items():
        if value is None:
            delattr(item, name)
        else:
            setattr(item, name, value)
    return item


def no_image(storage: str, modality: str) -> Dataset:
    return slice_like(SOPClassUID=storage, Modality=modality, PixelData=None, Rows=None, Columns=None)


def colour() -> Dataset:
    """A screenshot, as a workstation saves it: of the CT's own series, sometimes with its modality."""
    item = slice_like(
        SOPClassUID=uid.SecondaryCaptureImageStorage, SamplesPerPixel=3, PhotometricInterpretation="RGB",
        PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0, Rows=20, Columns=30,
        ImagePositionPatient=None, ImageOrientationPatient=None,
    )  # fmt: skip
    item.PixelData = bytes(3 * 20 * 30)
    item["PixelData"].VR = "OB"
    return item


def grey_screenshot() -> Dataset:
    item = slice_like(
        SOPClassUID=uid.SecondaryCaptureImageStorage, ImagePositionPatient=None, ImageOrientationPatient=None
    )
    item.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    return item


def segmentation() -> Dataset:
    item = slice_like(SOPClassUID=uid.SegmentationStorage, Modality="SEG", BitsAllocated=1, BitsStored=1, HighBit=0)
    item.NumberOfFrames, item.PixelData = 3, bytes(3 * 32 * 28 // 8)
    item["PixelData"].VR = "OB"
    item.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    return item


def dose() -> Dataset:
    item = slice_like(SOPClassUID=uid.RTDoseStorage, Modality="RTDOSE", BitsAllocated=32, BitsStored=32, HighBit=31)
    item.NumberOfFrames, item.PixelData = 2, bytes(4 * 2 * 32 * 28)
    return item


ODD = {
    "scout": (lambda: slice_like(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "a scout"),
    "scout that says nothing": (
        lambda: slice_like(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "in another plane, such as a scout",
    ),
    "screenshot in colour": (colour, "a picture in colour, such as a screenshot or a dose report"),
    "screenshot in grey": (grey_screenshot, "without a place in the patient, such as a screenshot"),
    "maximum intensity projection": (lambda: slice_like(ImageType=["DERIVED", "SECONDARY", "MIP"]),
                                     "a projection (MIP, volume rendering)"),
    "iodine map": (lambda: slice_like(RescaleType="MGML"), "not in Hounsfield units"),
    "PET": (lambda: slice_like(SOPClassUID=uid.PositronEmissionTomographyImageStorage, Modality="PT"),
            "no CT, of modality PT"),
    "segmentation": (segmentation, "no CT, of modality SEG"),
    "dose": (dose, "no CT, of modality RTDOSE"),
    "dose report": (lambda: no_image(uid.XRayRadiationDoseSRStorage, "SR"), "a DICOM object without an image (SR)"),
    "structure set": (lambda: no_image(uid.RTStructureSetStorage, "RTSTRUCT"),
                      "a DICOM object without an image (RTSTRUCT)"),
    "presentation state": (lambda: no_image(uid.GrayscaleSoftcopyPresentationStateStorage, "PR"),
                           "a DICOM object without an image (PR)"),
    "key objects": (lambda: no_image(uid.KeyObjectSelectionDocumentStorage, "KO"),
                    "a DICOM object without an image (KO)"),
}  # fmt: skip


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> CTVolume:
    return read_ct(make.save_series(tmp_path_factory.mktemp("clean"), make.dicom_slices()))


def same(ct: CTVolume, truth: CTVolume) -> None:
    np.testing.assert_array_equal(ct.hu, truth.hu)
    assert (ct.spacing_xyz_mm, ct.origin_xyz_mm) == (truth.spacing_xyz_mm, truth.origin_xyz_mm)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("beside", [False, True], ids=["in the series", "in the study"])
def test_one_odd_object_is_set_aside(tmp_path, truth, name, beside):
    item, why = ODD[name][0](), ODD[name][1]
    if beside:
        item.SeriesInstanceUID = f"{make.UID_ROOT}.9"
        if why.startswith(("in another plane", "without a place")):
            why = "another series, which is not a volume"
    folder = make.save_series(tmp_path / "study", make.dicom_slices())
    make.save_slice(item, folder / "0-first.dcm")
    for path in (folder, make.zipped(folder, tmp_path / "study.zip")):
        ct = read_ct(path)
        same(ct, truth)
        assert ct.warnings == (f"set aside 1 DICOM object: {why}",)
        assert [(Path(one.file).name, one.why) for one in ct.dicom.set_aside] == [("0-first.dcm", why)]
        assert len(ct.dicom.slices) == 12


@given(names=st.lists(st.sampled_from(sorted(ODD)), max_size=4, unique=True), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mixture_gives_the_same_volume(tmp_path_factory, truth, names, seed):
    rng = random.Random(seed)
    items = make.dicom_slices()
    for name in names:
        odd = ODD[name][0]()
        if rng.random() < 0.5:
            odd.SeriesInstanceUID = f"{make.UID_ROOT}.{rng.randrange(100, 10**6)}"
        items.append(odd)
    copies = [make.dicom_slices()[rng.randrange(12)] for _ in range(rng.randrange(3))]
    items += copies
    rng.shuffle(items)
    ct = read_ct(make.save_series(tmp_path_factory.mktemp("study"), items))
    same(ct, truth)
    assert len(ct.dicom.set_aside) == len(names) + len(copies)
    assert sum(int(warning.split()[2]) for warning in ct.warnings) == len(names) + len(copies)


def test_files_that_are_no_dicom_are_not_worth_a_warning(tmp_path, truth):
    folder = make.save_series(tmp_path / "study", make.dicom_slices())
    (folder / "LICENSE").write_text("CC BY 3.0")
    directory = make.Dataset()
    directory.SOPClassUID, directory.SOPInstanceUID = uid.MediaStorageDirectoryStorage, "1.2.3"
    make.save_slice(directory, folder / "DICOMDIR")
    (folder / "index.bin").write_bytes(b"\x08\x00 something else that begins as old DICOM does" * 9)
    ct = read_ct(folder)
    same(ct, truth)
    assert ct.warnings == ()
    assert [one.why for one in ct.dicom.set_aside] == ["no image"] * 3


@pytest.mark.parametrize("kind", ["scout", "segmentation", "PET"])
def test_an_odd_object_that_is_damaged_spoils_nothing(tmp_path, truth, kind):
    folder = make.save_series(tmp_path / "study", make.dicom_slices())
    make.save_slice(ODD[kind][0](), folder / "odd.dcm")
    path = folder / "odd.dcm"
    path.write_bytes(path.read_bytes()[:-60])
    same(read_ct(folder), truth)


def test_a_damaged_slice_of_another_series_spoils_nothing(tmp_path, truth):
    folder = make.save_series(tmp_path / "study", make.dicom_slices())
    other = make.save_series(tmp_path / "study" / "other", make.dicom_slices(series=2))
    path = other / "003.dcm"
    path.write_bytes(path.read_bytes()[:-60])
    same(read_ct(folder, series=f"{make.UID_ROOT}.1"), truth)
    with pytest.raises(CTError, match=r"003\.dcm") as caught:
        read_ct(folder, series=f"{make.UID_ROOT}.2")
    assert caught.value.code == "ct-truncated"
    with pytest.raises(CTError) as caught:  # damage chooses nothing
        read_ct(folder)
    assert caught.value.code == "ct-several-series"


def test_copies_are_set_aside(tmp_path, truth):
    folder = make.save_series(tmp_path / "study", make.dicom_slices())
    shutil.copytree(folder, folder / "again")
    renamed = make.dicom_slices()[3]
    renamed.SOPInstanceUID = f"{make.UID_ROOT}.1.999"  # exported twice, under another UID
    make.save_slice(renamed, folder / "renamed.dcm")
    ct = read_ct(folder)
    same(ct, truth)
    assert ct.warnings == ("set aside 13 DICOM objects: a copy of another",)


def test_the_same_bytes_of_other_units_are_no_copy(tmp_path):
    twin = make.dicom_slices()[3]
    twin.SOPInstanceUID, twin.RescaleIntercept = f"{make.UID_ROOT}.1.999", -1000
    with pytest.raises(CTError, match="duplicate slices at the same position") as caught:
        read_ct(make.save_series(tmp_path / "series", [*make.dicom_slices(), twin]))
    assert caught.value.code == "ct-duplicate-slices"


def test_a_copy_in_another_folder_by_a_link(tmp_path, truth):
    folder = make.save_series(tmp_path / "store" / "series", make.dicom_slices())
    study = tmp_path / "study"
    study.mkdir()
    (study / "link").symlink_to(folder, target_is_directory=True)
    (folder / "up").symlink_to(tmp_path / "store", target_is_directory=True)  # round and round
    (folder / "dead").symlink_to(tmp_path / "nowhere")
    (folder / "self").symlink_to(folder / "self")
    ct = read_ct(study)
    same(ct, truth)
    assert ct.warnings == ()
    for path in folder.glob("00[0-5].dcm"):
        target = tmp_path / "store" / path.name
        path.rename(target)
        path.symlink_to(target)
    (folder / "up").unlink()
    same(read_ct(study), truth)


def test_links_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("nodule_diag.ct.dicom.files.MAX_FILES", 30)
    for number in range(40):
        (tmp_path / "many" / f"{number}").mkdir(parents=True)
    study = tmp_path / "study"
    study.mkdir()
    (study / "link").symlink_to(tmp_path / "many", target_is_directory=True)
    with pytest.raises(CTError, match="over 30 files or folders") as caught:
        read_ct(study)
    assert caught.value.code == "ct-too-many-files"


def test_a_series_uid_a_slice(tmp_path, truth):
    items = make.dicom_slices()
    for number, item in enumerate(items):
        item.SeriesInstanceUID = f"{make.UID_ROOT}.8.{number}"
    folder = make.save_series(tmp_path / "study", [*items, ODD["scout"][0](), ODD["dose report"][0]()])
    ct = read_ct(folder)
    same(ct, truth)
    assert "each slice has a SeriesInstanceUID of its own: they were taken for one series" in ct.warnings
    items[5].PatientID = "another"
    with pytest.raises(CTError, match="another PatientID"):
        read_ct(make.save_series(tmp_path / "mixed", items))


def test_of_a_study_the_only_volume_is_taken(tmp_path, truth):
    folder = make.save_series(tmp_path / "study" / "a", make.dicom_slices()).parent
    two = make.dicom_slices(series=2)[:2]
    monitoring = make.dicom_slices(series=3)[:6]  # one place, again and again, until the contrast comes
    for number, item in enumerate(monitoring):
        item.ImagePositionPatient = make.dicom_slices()[4].ImagePositionPatient
        item.AcquisitionNumber = number
    make.save_series(folder / "b", two)
    make.save_series(folder / "c", monitoring)
    ct = read_ct(folder)
    same(ct, truth)
    assert ct.warnings == ("set aside 8 DICOM objects: another series, which is not a volume",)
    assert read_ct(folder, series=f"{make.UID_ROOT}.1").warnings == ()  # it was asked for


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "explicit"])
@pytest.mark.parametrize("group_2", [True, False], ids=["group 2", "no group 2"])
@pytest.mark.parametrize("suffix", ["", ".dcm"])
def test_files_without_a_preamble(tmp_path, truth, implicit, group_2, suffix):
    syntax = uid.ExplicitVRLittleEndian if group_2 and not implicit else uid.ImplicitVRLittleEndian
    items = make.dicom_slices()
    for item in items:
        item.file_meta = make.FileMetaDataset()
        item.file_meta.TransferSyntaxUID = syntax
    folder = make.save_series(tmp_path / "series", items, name=f"IM{{:03d}}{suffix}".format)
    for path, item in zip(sorted(folder.iterdir()), items, strict=True):
        if group_2:
            path.write_bytes(path.read_bytes()[132:])
        else:
            del item.file_meta
            item.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
            assert path.read_bytes().startswith(b"\x08\x00")
    same(read_ct(folder), truth)


def test_several_character_sets_of_one_patient(tmp_path, truth):
    """Without a PatientID it is the name that must agree."""
    items = make.dicom_slices()
    for item in items:
        item.SpecificCharacterSet, item.PatientName = "ISO_IR 100", "M\u00fcller^Anna"
        del item.PatientID
    same(read_ct(make.save_series(tmp_path / "one", items)), truth)
    items[7].PatientName = "M\u00fcller^Bernd"
    with pytest.raises(CTError, match=r"007\.dcm has another PatientID") as caught:
        read_ct(make.save_series(tmp_path / "two", items))
    assert "ller" not in str(caught.value)


def test_no_warning_names_a_file_or_a_patient(tmp_path):
    items = [*make.dicom_slices(), *(odd() for odd, _ in ODD.values())]
    folder = make.save_series(tmp_path / "Smith^John", items, name="Smith-{}.dcm".format)
    ct = read_ct(folder)
    assert len(ct.warnings) == len(ODD)
    assert "Smith" not in " ".join(ct.warnings)
    assert str(os.sep) not in " ".join(ct.warnings)
