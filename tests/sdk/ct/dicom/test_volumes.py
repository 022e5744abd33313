"""Several volumes in one series: listed so that a person can choose, and chosen by number."""

import numpy as np
import pytest

import ct_files as make
from dicom_exports import assert_is_the_field, exported, upright
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import CTError

FIRST, SECOND = make.chest_hu(seed=1), make.chest_hu(seed=2)


def series_of(*parts, **values):
    """One series of several stacks; each value is a list with one entry a stack."""
    items = []
    for number, part in enumerate(parts):
        for item in part:
            item.SOPInstanceUID += f".{number}"
            for name, each in values.items():
                setattr(item, name, each[number])
            items.append(item)
    order = np.random.default_rng(0).permutation(len(items))
    return [items[i] for i in order]


def test_two_acquisitions(tmp_path):
    items = series_of(make.dicom_slices(FIRST), make.dicom_slices(SECOND), AcquisitionNumber=[2, 7])
    folder = make.save_series(tmp_path / "series", items)
    with pytest.raises(CTError, match=r"--acquisition 2 \(28 x 32 x 12, 2\.5 mm apart\); --acquisition 7 \(") as caught:
        read_ct(folder)
    assert caught.value.code == "ct-several-acquisitions"
    for number, hu in ((2, FIRST), (7, SECOND)):
        ct = read_ct(folder, acquisition=number)
        np.testing.assert_array_equal(ct.hu, hu)
        assert ct.warnings == ("set aside 12 DICOM objects: of another acquisition or reconstruction",)
    with pytest.raises(CTError, match="no number 1") as caught:
        read_ct(folder, acquisition=1)
    assert caught.value.code == "ct-unknown-acquisition"


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("ConvolutionKernel", ["B31f", "B70f"], "kernel B31f, "),
        ("AcquisitionTime", ["101530", "101730.5"], r"28 x 32 x 12, 2\.5 mm apart, at 10:15:30"),
        ("TemporalPositionIdentifier", [1, 2], ""),
        ("ImageType", [["ORIGINAL", "PRIMARY", "AXIAL", "40KEV"], ["ORIGINAL", "PRIMARY", "AXIAL", "70KEV"]], ""),
    ],
)
def test_of_one_acquisition_they_are_counted(tmp_path, name, values, said):
    items = series_of(make.dicom_slices(FIRST), make.dicom_slices(SECOND), AcquisitionNumber=[4, 4], **{name: values})
    folder = make.save_series(tmp_path / "series", items)
    with pytest.raises(CTError, match=rf"--acquisition 1 \(acquisition 4, {said}"):
        read_ct(folder)
    found = [read_ct(folder, acquisition=number).hu for number in (1, 2)]
    assert {found[0].tobytes(), found[1].tobytes()} == {FIRST.tobytes(), SECOND.tobytes()}


def test_two_kernels_in_each_of_two_acquisitions(tmp_path):
    stacks = [make.dicom_slices(make.chest_hu(seed=number)) for number in range(4)]
    items = series_of(*stacks, AcquisitionNumber=[1, 1, 2, 2], ConvolutionKernel=["soft", "lung"] * 2)
    folder = make.save_series(tmp_path / "series", items)
    with pytest.raises(CTError, match="holds 4 volumes"):
        read_ct(folder)
    found = {read_ct(folder, acquisition=number).hu.tobytes() for number in (1, 2, 3, 4)}
    assert found == {make.chest_hu(seed=number).tobytes() for number in range(4)}


def test_two_fields_of_view(tmp_path):
    near = make.dicom_slices(make.chest_hu((12, 40, 40)), spacing=(0.4, 0.4, 2.5))
    folder = make.save_series(tmp_path / "series", series_of(make.dicom_slices(FIRST), near))
    with pytest.raises(CTError, match="40 x 40 x 12") as caught:
        read_ct(folder)
    assert caught.value.code == "ct-several-acquisitions"
    assert {read_ct(folder, acquisition=number).size_xyz for number in (1, 2)} == {(28, 32, 12), (40, 40, 12)}


def test_axial_and_coronal_slices_of_one_series(tmp_path):
    coronal = make.dicom_slices(SECOND, row=(1, 0, 0), column=(0, 0, -1))
    folder = make.save_series(tmp_path / "series", series_of(make.dicom_slices(FIRST), coronal))
    with pytest.raises(CTError) as caught:
        read_ct(folder)
    assert caught.value.code == "ct-several-acquisitions"
    assert FIRST.tobytes() in {read_ct(folder, acquisition=number).hu.tobytes() for number in (1, 2)}


@pytest.mark.parametrize("away", [0.05, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.95])
@pytest.mark.parametrize(("name", "values"), [("AcquisitionNumber", [1, 2]), ("ConvolutionKernel", ["B31f", "B70f"])])
def test_interleaved_volumes_are_apart_however_they_lie(tmp_path, away, name, values):
    heights = 2.5 * np.arange(14)
    one, two = (exported(upright(heights + shift)) for shift in (0, 2.5 * away))
    folder = make.save_series(tmp_path / "series", series_of(one, two, **{name: values}))
    with pytest.raises(CTError, match="holds 2 volumes in one series") as caught:
        read_ct(folder)
    assert caught.value.code == "ct-several-acquisitions"
    for number in (1, 2):
        ct = read_ct(folder, acquisition=number)
        assert ct.spacing_xyz_mm[2] == 2.5
        assert_is_the_field(ct, within=0.51)


@pytest.mark.parametrize(("name", "odd"), [("ConvolutionKernel", "B70f"), ("AcquisitionNumber", 9)])
def test_a_few_odd_slices_are_no_volume(tmp_path, name, odd):
    items = exported(upright(2.5 * np.arange(40)))
    for number, item in enumerate(items):
        setattr(item, name, odd if number in (5, 15, 25, 32) else type(odd)(1))
    ct = read_ct(make.save_series(tmp_path / "series", items))
    assert (ct.size_xyz[2], ct.warnings) == (40, ())


@pytest.mark.parametrize("count", [3, 4])
def test_several_interleaved_volumes(tmp_path, count):
    stacks = [exported(upright(3.0 * np.arange(12) + 3.0 * number / count)) for number in range(count)]
    items = series_of(*stacks, AcquisitionNumber=list(range(count)))
    with pytest.raises(CTError, match=f"holds {count} volumes in one series"):
        read_ct(make.save_series(tmp_path / "series", items))


def test_what_one_acquisition_lacks_another_may_fill(tmp_path):
    """A part that was scanned again: its slices lie in a gap of the others."""
    items = exported(upright(2.5 * np.arange(20)))
    for number, item in enumerate(items):
        item.AcquisitionNumber = 2 if number in (7, 8, 9, 10) else 1
    ct = read_ct(make.save_series(tmp_path / "series", items))
    assert (ct.size_xyz[2], ct.warnings) == (20, ())


def test_an_acquisition_number_for_each_rotation(tmp_path):
    items = exported(upright(2.5 * np.arange(20)))
    for number, item in enumerate(items):
        item.AcquisitionNumber = number // 4
    ct = read_ct(make.save_series(tmp_path / "series", items))
    assert (ct.size_xyz[2], ct.warnings) == (20, ())


def test_scans_that_reach_into_each_other(tmp_path):
    """A chest and an abdomen, half a slice off: together they would look like one uneven scan."""
    chest, abdomen = exported(upright(2.5 * np.arange(20))), exported(upright(2.5 * np.arange(14, 30) + 1.1))
    folder = make.save_series(tmp_path / "series", series_of(chest, abdomen, AcquisitionNumber=[1, 2]))
    with pytest.raises(CTError, match=r"28 x 32 x 20, 2\.5 mm apart\); --acquisition 2 \(28 x 32 x 16"):
        read_ct(folder)
    assert read_ct(folder, acquisition=1).origin_xyz_mm[2] == 0
    assert read_ct(folder, acquisition=2).origin_xyz_mm[2] == pytest.approx(36.1)


def test_acquisitions_that_make_one_volume(tmp_path):
    """Old scanners number every rotation, others a chest and the abdomen below it."""
    every = make.dicom_slices(FIRST)
    for number, item in enumerate(every):
        item.AcquisitionNumber = number + 1
    ct = read_ct(make.save_series(tmp_path / "rotations", every))
    np.testing.assert_array_equal(ct.hu, FIRST)
    assert ct.warnings == ()

    for number, item in enumerate(every):
        item.AcquisitionNumber = 1 + number // 8
    folder = make.save_series(tmp_path / "regions", every)
    np.testing.assert_array_equal(read_ct(folder).hu, FIRST)
    part = read_ct(folder, acquisition=1)
    np.testing.assert_array_equal(part.hu, FIRST[:8])
    assert part.warnings == ("set aside 4 DICOM objects: of another acquisition",)
    with pytest.raises(CTError, match="holds no acquisition 3, only 1, 2") as caught:
        read_ct(folder, acquisition=3)
    assert caught.value.code == "ct-unknown-acquisition"


def test_one_slice_of_another_acquisition_is_set_aside(tmp_path):
    again = make.dicom_slices(SECOND)[5:6]
    folder = make.save_series(tmp_path / "series", series_of(make.dicom_slices(FIRST), again, AcquisitionNumber=[1, 2]))
    ct = read_ct(folder)
    np.testing.assert_array_equal(ct.hu, FIRST)
    assert ct.warnings == ("set aside 1 DICOM object: of another acquisition or reconstruction",)
