"""DICOM folders that must be refused."""

from pathlib import Path

import numpy as np
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless, SegmentationStorage

import ct_files as make
from bad_inputs.case import case, cut


def slices(folder: Path, keep=lambda items: items) -> Path:
    """A DICOM folder of 12 slices, after ``keep`` has had its way with them."""
    return make.save_series(folder / "series", keep(make.dicom_slices()))


@case("DICOM slice cut off in its pixels", "ct-truncated", "004.dcm")
def dicom_truncated(folder):
    series = slices(folder)
    cut(series / "004.dcm", 1500)
    return series


@case("DICOM slice with fewer pixels than its header says", "ct-truncated", "004.dcm", "1,792 bytes", "1,592 bytes")
def dicom_short_pixels(folder):
    def shorten(items):
        items[4].PixelData = items[4].PixelData[:-200]
        return items

    return slices(folder, shorten)


@case("compressed DICOM slice cut off in its pixels", "ct-truncated", "004.dcm")
def dicom_compressed_truncated(folder):
    series = slices(folder, lambda items: make.encoded(items, RLELossless))
    path = series / "004.dcm"
    return cut(path, path.stat().st_size - 200).parent


@case("DICOM slices whose bits contradict each other", "ct-damaged", "000.dcm", "bits up to 11 of 8 hold 12")
def dicom_bits(folder):
    def contradict(items):
        for item in items:
            item.BitsAllocated, item.BitsStored, item.HighBit = 8, 12, 11
        return items

    return slices(folder, contradict)


@case("empty DICOM slice", "ct-empty", "011.dcm")
def dicom_empty_slice(folder):
    series = slices(folder)
    (series / "011.dcm").write_bytes(b"")
    return series


@case("DICOM slices of 60000 x 60000 pixels", "ct-truncated", "7,200,000,000 bytes", "000.dcm")
def dicom_absurd(folder):
    def enlarge(items):
        for item in items:
            item.Rows = item.Columns = 60000
        return items

    return slices(folder, enlarge)


@case("deflated DICOM whose header inflates to 128 MiB (bomb)", "ct-truncated", "000.dcm", "no pixel data")
def dicom_deflated_bomb(folder):
    item = make.dicom_slices()[0]
    item.private_block(0x0019, "nodule-diag", create=True).add_new(0x01, "OB", bytes(128 * 2**20))
    return make.save_series(folder / "series", make.encoded([item], DeflatedExplicitVRLittleEndian))


@case("DICOM folder of one slice", "ct-not-3d", "single slice")
def dicom_one_slice(folder):
    return slices(folder, lambda items: items[:1])


@case("DICOM series of another modality", "ct-not-ct", "modality PT")
def dicom_pet(folder):
    return make.save_series(folder / "series", make.dicom_slices(modality="PT"))


@case("multi-frame DICOM", "ct-multi-frame", "2 frames")
def dicom_multi_frame(folder):
    def merge(items):
        first = items[0]
        first.NumberOfFrames = 2
        first.PixelData = first.PixelData * 2
        return items[:1]

    return slices(folder, merge)


@case("DICOM images without a position", "ct-no-orientation", "ImagePositionPatient", "002.dcm")
def dicom_no_position(folder):
    def strip(items):
        del items[2].ImagePositionPatient
        return items

    return slices(folder, strip)


@case("slices taken with a tilted gantry", "ct-gantry-tilt", "15.0 degrees", "header says -15")
def gantry_tilt(folder):
    angle = np.deg2rad(15)
    items = make.dicom_slices(column=(0, np.cos(angle), -np.sin(angle)))
    for number, item in enumerate(items):
        # The table moves along z, the slices stay tilted.
        item.ImagePositionPatient = [-20.5, 11.25, -130 + 2.5 * number]
        item.GantryDetectorTilt = -15
    return make.save_series(folder / "series", items)


@case("a missing slice", "ct-missing-slices", "1 missing slice", "between -120.00 and -115.00 mm", "004.dcm")
def missing_slice(folder):
    return slices(folder, lambda items: items[:5] + items[6:])


@case(
    "missing slices in two places",
    "ct-missing-slices",
    "3 missing slices",
    "-127.50 and -120.00",
    "-110.00 and -105.00",
)
def missing_slices(folder):
    return slices(folder, lambda items: items[:2] + items[4:9] + items[10:])


@case("two slices at one position", "ct-duplicate-slices", "005.dcm and 012.dcm", "-117.50 mm")
def duplicate_position(folder):
    def repeat(items):
        again = make.dicom_slices()[5]
        again.SOPInstanceUID += ".1"
        return [*items, again]

    return slices(folder, repeat)


@case("the same slice twice, under two names", "ct-duplicate-slices", "005.dcm", "copy.dcm")
def duplicate_copy(folder):
    series = slices(folder)
    (series / "copy.dcm").write_bytes((series / "005.dcm").read_bytes())
    return series


@case("uneven slice gaps", "ct-uneven-gaps", "2.5 mm is usual", "3.7 mm between -117.50 and -113.80 mm")
def uneven_gaps(folder):
    def shift(items):
        items[6].ImagePositionPatient = [-20.5, 11.25, -113.8]
        return items

    return slices(folder, shift)


@case("a slice shifted sideways", "ct-inconsistent-slices", "007.dcm", "6.00 mm")
def shifted_slice(folder):
    def shift(items):
        items[7].ImagePositionPatient = [-14.5, 11.25, -112.5]
        return items

    return slices(folder, shift)


@case("a slice of another matrix size", "ct-inconsistent-slices", "008.dcm", "14 x 16 pixels against 28 x 32")
def other_matrix(folder):
    def shrink(items):
        items[8].Rows, items[8].Columns = 16, 14
        items[8].PixelData = items[8].PixelData[: 2 * 16 * 14]
        return items

    return slices(folder, shrink)


@case("a scout image among the slices", "ct-inconsistent-slices", "000.dcm has orientation")
def scout_inside(folder):
    def turn(items):
        items[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        return items

    return slices(folder, turn)


@case("DICOM slices 7.5 mm apart", "ct-slice-spacing", "7.5 mm")
def dicom_thick(folder):
    return make.save_series(folder / "series", make.dicom_slices(spacing=(0.75, 0.8, 7.5)))


def _two_series(folder: Path) -> Path:
    path = make.save_series(folder / "study" / "a", make.dicom_slices(description="lung 2.5")).parent
    thin = make.dicom_slices(make.chest_hu((20, 24, 24)), series=2, description="soft tissue")
    make.save_series(path / "b", thin)
    return path


@case("a folder of several series", "ct-several-series", f"{make.UID_ROOT}.1 (CT, 'lung 2.5', 28 x 32 x 12)",
      f"{make.UID_ROOT}.2 (CT, 'soft tissue', 24 x 24 x 20)")  # fmt: skip
def several_series(folder):
    return _two_series(folder)


@case("a series that is not there", "ct-unknown-series", "'1.2.3'", "lung 2.5", "soft tissue", series="1.2.3")
def unknown_series(folder):
    return _two_series(folder)


@case("a folder without DICOM images", "ct-no-dicom", "looked at: 1")
def no_dicom(folder):
    (folder / "series").mkdir()
    (folder / "series" / "readme.txt").write_text("nothing here")
    return folder / "series"


@case("a folder with a DICOM object that is no image", "ct-no-dicom", "looked at: 1")
def dicom_not_image(folder):
    item = make.dicom_slices()[0]
    item.SOPClassUID = SegmentationStorage
    item.Modality = "SEG"
    del item.PixelData, item.Rows, item.Columns
    return make.save_series(folder / "series", [item])
