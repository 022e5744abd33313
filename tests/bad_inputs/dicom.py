"""DICOM folders that must be refused."""

from pathlib import Path

from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless, SegmentationStorage

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


@case(
    "a series that lacks most of its slices",
    "ct-missing-slices",
    "5 slices where 12",
    "20 mm between z -122.50 and -102.50",
)
def most_slices_missing(folder):
    return slices(folder, lambda items: items[:4] + items[11:])


def _odd_one(folder: Path, change) -> Path:
    """The series with one slice that ``change`` has had its way with."""

    def alter(items):
        change(items[5])
        return items

    return slices(folder, alter)


@case("two slices at one position", "ct-duplicate-slices", "005.dcm and 012.dcm", "-117.50 mm")
def duplicate_position(folder):
    def repeat(items):
        again = make.dicom_slices(make.chest_hu(seed=1))[5]
        again.SOPInstanceUID += ".1"
        return [*items, again]

    return slices(folder, repeat)


@case("two images of one UID that differ", "ct-duplicate-slices", "005.dcm", "012.dcm", "one SOPInstanceUID")
def duplicate_uid(folder):
    return slices(folder, lambda items: [*items, make.dicom_slices(make.chest_hu(seed=1))[5]])


@case("a slice of another patient", "ct-inconsistent-slices", "005.dcm", "another PatientID than 000.dcm")
def other_patient(folder):
    return _odd_one(folder, lambda item: setattr(item, "PatientID", "another"))


@case(
    "a slice of another frame of reference", "ct-inconsistent-slices", "005.dcm", "FrameOfReferenceUID", "1.2.3 against"
)
def other_frame_of_reference(folder):
    return _odd_one(folder, lambda item: setattr(item, "FrameOfReferenceUID", "1.2.3"))


@case("a slice of another slope", "ct-inconsistent-slices", "005.dcm has slope 2", "against slope 1, intercept -1024")
def other_slope(folder):
    return _odd_one(folder, lambda item: setattr(item, "RescaleSlope", 2))


@case("a slice of another intercept", "ct-inconsistent-slices", "005.dcm has slope 1, intercept 0 and", "HU away")
def other_intercept(folder):
    return _odd_one(folder, lambda item: setattr(item, "RescaleIntercept", 0))


@case("a slice that is turned", "ct-inconsistent-slices", "005.dcm has orientation (0.98", "against (1.0")
def turned_slice(folder):
    return _odd_one(folder, lambda item: setattr(item, "ImageOrientationPatient", [0.98, 0.199, 0, -0.199, 0.98, 0]))


@case("a slice of another pixel spacing", "ct-inconsistent-slices", "005.dcm has pixel spacing (0.9, 0.75)")
def other_pixel_spacing(folder):
    return _odd_one(folder, lambda item: setattr(item, "PixelSpacing", [0.9, 0.75]))


@case("compressed pixels whose HighBit is not that of BitsStored", "ct-damaged", "12 bits stored up to bit 15")
def compressed_high_bit(folder):
    items = make.dicom_slices(make.chest_hu((12, 40, 48)))
    for item in make.encoded(items, JPEGLSLossless):
        item.BitsStored, item.HighBit = 12, 15
    return make.save_series(folder / "series", items)


@case("a PixelRepresentation that is none", "ct-damaged", "005.dcm has PixelRepresentation 7")
def pixel_representation(folder):
    return _odd_one(folder, lambda item: setattr(item, "PixelRepresentation", 7))


def _all(folder: Path, **values) -> Path:
    """The series with some elements of other values."""

    def alter(items):
        for item in items:
            for name, value in values.items():
                setattr(item, name, value)
        return items

    return slices(folder, alter)


@case("nothing but scouts", "ct-not-3d", "is a scout image: ImageType ORIGINAL/PRIMARY/LOCALIZER")
def scouts_alone(folder):
    return _all(folder, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])


@case("nothing but maximum intensity projections", "ct-not-hu", "is a projection", "AXIAL/CT_SOM5 MIP")
def projections_alone(folder):
    return _all(folder, ImageType=["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"])


@case("a map of iodine instead of HU", "ct-not-hu", "RescaleType MGML")
def iodine_alone(folder):
    return _all(folder, RescaleType="MGML")


def _two_kernels(folder: Path) -> Path:
    items = []
    for number, kernel in enumerate(("B31f", "B70f"), start=1):
        for item in make.dicom_slices(make.chest_hu(seed=number)):
            item.SOPInstanceUID += f".{number}"
            item.AcquisitionNumber, item.ConvolutionKernel, item.AcquisitionTime = number + 2, kernel, "101530.25"
            items.append(item)
    return make.save_series(folder / "series", items)


@case("a series of two volumes", "ct-several-acquisitions", "holds 2 volumes in one series",
      "--acquisition 3 (kernel B31f, 28 x 32 x 12, 2.5 mm apart, at 10:15:30)", "--acquisition 4 (kernel")  # fmt: skip
def several_acquisitions(folder):
    return _two_kernels(folder)


@case("an acquisition that is not there", "ct-unknown-acquisition", "no number 1", "--acquisition 3 (", acquisition=1)
def unknown_acquisition(folder):
    return _two_kernels(folder)


@case("an acquisition of a file that has none", "acquisition-not-dicom", "no acquisition 1", acquisition=1, exit_code=2)
def acquisition_not_dicom(folder):
    return make.write(folder / "scan.nii.gz")


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


@case("DICOM slices 7.5 mm apart", "ct-slice-spacing", "7.5 mm")
def dicom_thick(folder):
    return make.save_series(folder / "series", make.dicom_slices(spacing=(0.75, 0.8, 7.5)))


def _two_series(folder: Path) -> Path:
    path = make.save_series(folder / "study" / "a", make.dicom_slices(description="lung 2.5")).parent
    thin = make.dicom_slices(make.chest_hu((20, 24, 24)), series=2, description="soft tissue")
    make.save_series(path / "b", thin)
    return path


@case("a folder of several series", "ct-several-series",
      f"{make.UID_ROOT}.1 (CT, 'lung 2.5', 28 x 32 x 12, 2.5 mm apart)",
      f"{make.UID_ROOT}.2 (CT, 'soft tissue', 24 x 24 x 20, 2.5 mm apart)")  # fmt: skip
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


@case("a folder with a DICOM object that is not an image", "ct-no-dicom", "looked at: 1")
def dicom_not_image(folder):
    item = make.dicom_slices()[0]
    item.SOPClassUID = SegmentationStorage
    item.Modality = "SEG"
    del item.PixelData, item.Rows, item.Columns
    return make.save_series(folder / "series", [item])
