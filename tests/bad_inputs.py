"""Every input that must be refused, with the code it must be refused with: for the SDK's and the CLI's tests alike.

``CASES`` are files that `read_ct` refuses, ``POINTS`` are points that the geometry refuses in the CT of `point_ct`.
"""

import gzip
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless, SegmentationStorage

import ct_files as make


@dataclass(frozen=True)
class BadInput:
    """A file that must be refused.

    Attributes:
        name: Short name, for test ids.
        title: For people: what is wrong with it.
        code: The error code it must give.
        build: Makes it in an empty folder and returns its path.
        says: What the message must name.
        series: What to pass as ``series``.
        exit_code: The command line's exit code.
    """

    name: str
    title: str
    code: str
    build: Callable[[Path], Path]
    says: tuple[str, ...] = ()
    series: str | None = None
    exit_code: int = 3


CASES: list[BadInput] = []


def case(title: str, code: str, *says: str, series: str | None = None, exit_code: int = 3):
    """Register the decorated builder."""

    def register(build: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CASES.append(BadInput(build.__name__, title, code, build, says, series, exit_code))
        return build

    return register


def _slices(folder: Path, keep=lambda items: items) -> Path:
    """A DICOM folder of 12 slices, after ``keep`` has had its way with them."""
    return make.save_series(folder / "series", keep(make.dicom_slices()))


def _cut(path: Path, count: int) -> Path:
    path.write_bytes(path.read_bytes()[:count])
    return path


# --- paths and formats ------------------------------------------------------------------------------------------


@case("a path that does not exist", "ct-missing-path", "scan.nii.gz")
def missing_path(folder):
    return folder / "scan.nii.gz"


@case("a file of another kind", "ct-unsupported-format", ".docx")
def unsupported_extension(folder):
    path = folder / "report.docx"
    path.write_bytes(b"PK")
    return path


@case("one DICOM file instead of its folder", "ct-single-dicom-file", "000.dcm")
def single_dicom_file(folder):
    return _slices(folder) / "000.dcm"


@case("`--series` for a file that is not DICOM", "series-not-dicom", "1.2.3", series="1.2.3", exit_code=2)
def series_of_nifti(folder):
    return make.write(folder / "scan.nii.gz")


@case("an empty file", "ct-empty", "scan.nii")
def empty_file(folder):
    path = folder / "scan.nii"
    path.touch()
    return path


@case("an empty archive file", "ct-empty", "scan.zip")
def empty_zip(folder):
    path = folder / "scan.zip"
    path.touch()
    return path


@case("an empty MetaImage", "ct-empty", "scan.mha")
def empty_mha(folder):
    path = folder / "scan.mha"
    path.touch()
    return path


# --- truncated and damaged --------------------------------------------------------------------------------------


@case("NIfTI cut off in its header", "ct-truncated", "100 of 348 bytes")
def nifti_header_only(folder):
    return _cut(make.write(folder / "scan.nii"), 100)


@case("NIfTI cut off in its voxels", "ct-truncated", "21,504 bytes", "15,000 bytes")
def nifti_truncated(folder):
    return _cut(make.write(folder / "scan.nii"), 15000)


@case("gzipped NIfTI cut off in its voxels", "ct-truncated", "21,504 bytes", "could be read")
def nifti_gz_truncated(folder):
    plain = make.write(folder / "scan.nii").read_bytes()
    path = folder / "scan.nii.gz"
    # Level 0 stores, so the message does not depend on the compressor.
    path.write_bytes(gzip.compress(plain, 0, mtime=0)[:15000])
    return path


@case("gzipped NIfTI cut off in its checksum", "ct-truncated", "before their checksum")
def nifti_gz_no_checksum(folder):
    path = folder / "scan.nii.gz"
    path.write_bytes(gzip.compress(make.write(folder / "scan.nii").read_bytes(), 0, mtime=0)[:-8])
    return path


@case("gzipped NIfTI with a flipped bit", "ct-damaged", "Incorrect checksum")
def nifti_gz_corrupt(folder):
    data = bytearray(gzip.compress(make.write(folder / "scan.nii").read_bytes(), 0, mtime=0))
    data[9000] ^= 4
    path = folder / "scan.nii.gz"
    path.write_bytes(data)
    return path


@case("a file that only has the name of a NIfTI", "ct-damaged", "not a NIfTI")
def nifti_junk(folder):
    path = folder / "scan.nii"
    path.write_bytes(b"hello world " * 1000)
    return path


@case("NIfTI with 300 dimensions", "ct-damaged", "300 dimensions")
def nifti_dimensions(folder):
    return make.patched(make.write(folder / "scan.nii"), 40, "<h", 300)


@case("NIfTI with a negative size", "ct-damaged", "-28 x 32 x 12")
def nifti_negative_size(folder):
    return make.patched(make.write(folder / "scan.nii"), 42, "<h", -28)


@case("MetaImage cut off in its voxels", "ct-truncated", "21,504 bytes")
def mha_truncated(folder):
    return _cut(make.write(folder / "scan.mha"), 15000)


@case("compressed MetaImage with a flipped bit", "ct-damaged", "Incorrect checksum")
def mha_corrupt(folder):
    data = make.write(folder / "scan.mha").read_bytes()
    header, _, voxels = data.partition(b"ElementDataFile = LOCAL\n")
    packed = bytearray(zlib.compress(voxels, 0))
    packed[9000] ^= 4
    header = header.replace(b"CompressedData = False", b"CompressedData = True")
    (folder / "scan.mha").write_bytes(header + b"ElementDataFile = LOCAL\n" + packed)
    return folder / "scan.mha"


@case("MetaImage header without data", "ct-damaged", "ElementDataFile")
def mha_header_only(folder):
    return _cut(make.write(folder / "scan.mha"), 100)


@case("`.mhd` without its `.raw`", "ct-missing-data-file", "scan.raw")
def mhd_without_raw(folder):
    path = make.write(folder / "scan.mhd")
    (folder / "scan.raw").unlink()
    return path


@case("`.mhd` that reads a file outside its folder", "ct-detached-data", "../secret.raw")
def mhd_escape(folder):
    (folder / "sub").mkdir()
    path = make.write(folder / "sub" / "scan.mhd")
    (folder / "sub" / "scan.raw").rename(folder / "secret.raw")
    path.write_bytes(path.read_bytes().replace(b"= scan.raw", b"= ../secret.raw"))
    return path


@case("NRRD cut off in its voxels", "ct-truncated", "21,504 bytes")
def nrrd_truncated(folder):
    return _cut(make.write(folder / "scan.nrrd"), 15000)


@case("a file that only has the name of an NRRD", "ct-damaged", "NRRD000")
def nrrd_junk(folder):
    path = folder / "scan.nrrd"
    path.write_bytes(b"hello world " * 1000)
    return path


@case("NRRD header that points to another file", "ct-detached-data", "another file")
def nrrd_detached(folder):
    path = make.write(folder / "scan.nrrd")
    path.write_bytes(path.read_bytes().replace(b"encoding: raw", b"encoding: raw\ndata file: other.raw"))
    return path


@case("DICOM slice cut off in its pixels", "ct-truncated", "004.dcm")
def dicom_truncated(folder):
    series = _slices(folder)
    _cut(series / "004.dcm", 1500)
    return series


@case("DICOM slice with fewer pixels than its header says", "ct-truncated", "004.dcm", "1,792 bytes", "1,592 bytes")
def dicom_short_pixels(folder):
    def shorten(items):
        items[4].PixelData = items[4].PixelData[:-200]
        return items

    return _slices(folder, shorten)


@case("compressed DICOM slice cut off in its pixels", "ct-truncated", "004.dcm")
def dicom_compressed_truncated(folder):
    series = _slices(folder, lambda items: make.encoded(items, RLELossless))
    path = series / "004.dcm"
    return _cut(path, path.stat().st_size - 200).parent


@case("DICOM slices whose bits contradict each other", "ct-damaged", "000.dcm", "bits up to 11 of 8 hold 12")
def dicom_bits(folder):
    def contradict(items):
        for item in items:
            item.BitsAllocated, item.BitsStored, item.HighBit = 8, 12, 11
        return items

    return _slices(folder, contradict)


@case("empty DICOM slice", "ct-empty", "011.dcm")
def dicom_empty_slice(folder):
    series = _slices(folder)
    (series / "011.dcm").write_bytes(b"")
    return series


@case("archive cut off", "ct-truncated", "scan.zip")
def zip_truncated(folder):
    return _cut(make.zipped(_slices(folder), folder / "scan.zip"), 5000)


@case("archive with a flipped bit", "ct-damaged", "series/003.dcm", "CRC")
def zip_corrupt(folder):
    path = folder / "scan.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for item in sorted(_slices(folder).iterdir()):
            archive.write(item, f"series/{item.name}")
        offset = archive.getinfo("series/003.dcm").header_offset
    data = bytearray(path.read_bytes())
    data[offset + 1500] ^= 4
    path.write_bytes(data)
    return path


@case("archive compressed by LZMA", "ct-archive-compression", "series/000.dcm", "other than deflate")
def zip_lzma(folder):
    path = folder / "scan.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for item in sorted(_slices(folder).iterdir()):
            archive.write(item, f"series/{item.name}")
    return path


@case("archive whose directory points before its beginning", "ct-truncated", "before its beginning")
def zip_before_its_beginning(folder):
    path = _zip(folder, {"1.dcm": b"x"})
    data = bytearray(path.read_bytes())
    offset = data.rindex(b"PK\x05\x06") + 16  # of the directory, in the record at the archive's end
    data[offset] += 100
    path.write_bytes(data)
    return path


@case("archive with a damaged file name", "ct-truncated", "scan.zip")
def zip_bad_name(folder):
    path = _zip(folder, {"h\u00e4.dcm": b"x"})
    path.write_bytes(path.read_bytes().replace("h\u00e4".encode(), b"h\xff\xff"))
    return path


# --- absurd sizes -----------------------------------------------------------------------------------------------


@case("NIfTI header of 32000 x 32000 x 32000", "ct-too-large", "32000 x 32000 x 32000")
def nifti_absurd(folder):
    return make.patched(make.write(folder / "scan.nii"), 42, "<3h", 32000, 32000, 32000)


@case("MetaImage header of 100000 x 100000 x 100000", "ct-too-large", "100000 x 100000 x 100000")
def mha_absurd(folder):
    path = make.write(folder / "scan.mha")
    path.write_bytes(path.read_bytes().replace(b"DimSize = 28 32 12", b"DimSize = 100000 100000 100000"))
    return path


@case("NRRD header of 100000 x 100000 x 100000", "ct-too-large", "100000 x 100000 x 100000")
def nrrd_absurd(folder):
    path = make.write(folder / "scan.nrrd")
    path.write_bytes(path.read_bytes().replace(b"sizes: 28 32 12", b"sizes: 100000 100000 100000"))
    return path


@case("gzipped NIfTI whose few bytes cannot hold what it claims", "ct-truncated", "536,870,912 bytes")
def nifti_gz_absurd(folder):
    data = bytearray(make.write(folder / "scan.nii").read_bytes())
    struct.pack_into("<3h", data, 42, 512, 512, 1024)
    path = folder / "scan.nii.gz"
    path.write_bytes(gzip.compress(bytes(data), 0, mtime=0))
    return path


@case("DICOM slices of 60000 x 60000 pixels", "ct-truncated", "7,200,000,000 bytes", "000.dcm")
def dicom_absurd(folder):
    def enlarge(items):
        for item in items:
            item.Rows = item.Columns = 60000
        return items

    return _slices(folder, enlarge)


@case("deflated DICOM whose header inflates to 128 MiB (bomb)", "ct-truncated", "000.dcm", "no pixel data")
def dicom_deflated_bomb(folder):
    item = make.dicom_slices()[0]
    item.private_block(0x0019, "nodule-diag", create=True).add_new(0x01, "OB", bytes(128 * 2**20))
    return make.save_series(folder / "series", make.encoded([item], DeflatedExplicitVRLittleEndian))


# --- not a volume, not a CT -------------------------------------------------------------------------------------


@case("two-dimensional NIfTI", "ct-not-3d", "28 x 32")
def nifti_2d(folder):
    path = folder / "scan.nii"
    make.nifti(make.chest_hu()[5]).to_filename(path)
    return path


@case("four-dimensional NIfTI", "ct-not-3d", "28 x 32 x 12 x 3")
def nifti_4d(folder):
    path = folder / "scan.nii.gz"
    make.nifti(np.stack([make.chest_hu()] * 3)).to_filename(path)
    return path


@case("MetaImage of one slice", "ct-not-3d", "28 x 32 x 1")
def mha_one_slice(folder):
    return make.write(folder / "scan.mha", make.image(make.chest_hu()[5:6]))


@case("DICOM folder of one slice", "ct-not-3d", "single slice")
def dicom_one_slice(folder):
    return _slices(folder, lambda items: items[:1])


@case("colour NIfTI", "ct-not-scalar", "type 128")
def nifti_colour(folder):
    path = folder / "scan.nii"
    colour = np.zeros((28, 32, 12), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    make.nifti(colour.T).to_filename(path)
    return path


@case("MetaImage that says it is MR", "ct-not-ct", "MET_MOD_MR")
def mha_mr(folder):
    path = make.write(folder / "scan.mha")
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", b"Modality = MET_MOD_MR\nNDims = 3"))
    return path


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

    return _slices(folder, merge)


@case("DICOM images without a position", "ct-no-orientation", "ImagePositionPatient", "002.dcm")
def dicom_no_position(folder):
    def strip(items):
        del items[2].ImagePositionPatient
        return items

    return _slices(folder, strip)


@case("NIfTI that does not say how the scan lies in the patient", "ct-no-orientation", "both 0")
def nifti_no_orientation(folder):
    return make.patched(make.write(folder / "scan.nii"), 252, "<2h", 0, 0)


@case("NRRD without an origin", "ct-no-orientation", "no space origin")
def nrrd_no_origin(folder):
    path = make.write(folder / "scan.nrrd")
    path.write_bytes(re.sub(rb"space origin:[^\n]*\n", b"", path.read_bytes()))
    return path


@case("NRRD without a patient space", "ct-no-orientation", "scanner-xyz")
def nrrd_no_orientation(folder):
    path = make.write(folder / "scan.nrrd")
    path.write_bytes(path.read_bytes().replace(b"left-posterior-superior", b"scanner-xyz"))
    return path


# --- geometry ---------------------------------------------------------------------------------------------------

SHEAR = [[1, 0, 0], [0, 1, 0.2], [0, 0, 0.98]]


@case("sheared NIfTI", "ct-sheared", "axes 1 and 2", "78.47 degrees")
def nifti_sheared(folder):
    path = folder / "scan.nii.gz"
    make.nifti(affine_ras=make.ras_affine(direction=SHEAR)).to_filename(path)
    return path


@case("sheared MetaImage", "ct-sheared", "axes 1 and 2", "78.47 degrees")
def mha_sheared(folder):
    return make.write(folder / "scan.mha", make.image(direction=SHEAR))


@case("sheared NRRD", "ct-sheared", "axes 1 and 2", "78.47 degrees")
def nrrd_sheared(folder):
    return make.write(folder / "scan.nrrd", make.image(direction=SHEAR))


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
    return _slices(folder, lambda items: items[:5] + items[6:])


@case(
    "missing slices in two places",
    "ct-missing-slices",
    "3 missing slices",
    "-127.50 and -120.00",
    "-110.00 and -105.00",
)
def missing_slices(folder):
    return _slices(folder, lambda items: items[:2] + items[4:9] + items[10:])


@case("two slices at one position", "ct-duplicate-slices", "005.dcm and 012.dcm", "-117.50 mm")
def duplicate_position(folder):
    def repeat(items):
        again = make.dicom_slices()[5]
        again.SOPInstanceUID += ".1"
        return [*items, again]

    return _slices(folder, repeat)


@case("the same slice twice, under two names", "ct-duplicate-slices", "005.dcm", "copy.dcm")
def duplicate_copy(folder):
    series = _slices(folder)
    (series / "copy.dcm").write_bytes((series / "005.dcm").read_bytes())
    return series


@case("uneven slice gaps", "ct-uneven-gaps", "2.5 mm is usual", "3.7 mm between -117.50 and -113.80 mm")
def uneven_gaps(folder):
    def shift(items):
        items[6].ImagePositionPatient = [-20.5, 11.25, -113.8]
        return items

    return _slices(folder, shift)


@case("a slice shifted sideways", "ct-inconsistent-slices", "007.dcm", "6.00 mm")
def shifted_slice(folder):
    def shift(items):
        items[7].ImagePositionPatient = [-14.5, 11.25, -112.5]
        return items

    return _slices(folder, shift)


@case("a slice of another matrix size", "ct-inconsistent-slices", "008.dcm", "14 x 16 pixels against 28 x 32")
def other_matrix(folder):
    def shrink(items):
        items[8].Rows, items[8].Columns = 16, 14
        items[8].PixelData = items[8].PixelData[: 2 * 16 * 14]
        return items

    return _slices(folder, shrink)


@case("a scout image among the slices", "ct-inconsistent-slices", "000.dcm has orientation")
def scout_inside(folder):
    def turn(items):
        items[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        return items

    return _slices(folder, turn)


@case("NIfTI with slices 6 mm apart", "ct-slice-spacing", "6 mm", "0.75 x 0.8 x 6 mm")
def nifti_thick(folder):
    return make.write(folder / "scan.nii.gz", make.image(spacing=(0.75, 0.8, 6.0)))


@case("DICOM slices 7.5 mm apart", "ct-slice-spacing", "7.5 mm")
def dicom_thick(folder):
    return make.save_series(folder / "series", make.dicom_slices(spacing=(0.75, 0.8, 7.5)))


@case("MetaImage with a spacing of zero", "ct-bad-spacing", "0.75 x 0.8 x 0 mm")
def mha_zero_spacing(folder):
    path = make.write(folder / "scan.mha")
    data = path.read_bytes()
    start = data.index(b"ElementSpacing = ")
    end = data.index(b"\n", start)
    path.write_bytes(data[:start] + b"ElementSpacing = 0.75 0.8 0" + data[end:])
    return path


# --- intensities ------------------------------------------------------------------------------------------------


def _float_chest(value: float) -> np.ndarray:
    hu = make.chest_hu().astype(np.float32)
    hu[4, 3, 2] = value
    return hu


@case("NaN among the voxels", "ct-not-finite", "nan", "(2, 3, 4)")
def nan_voxel(folder):
    return make.write(folder / "scan.nii.gz", make.image(_float_chest(np.nan)))


@case("infinity among the voxels", "ct-not-finite", "inf", "(2, 3, 4)")
def infinite_voxel(folder):
    return make.write(folder / "scan.mha", make.image(_float_chest(np.inf)))


def _rescaled(low: float, high: float, dtype: type) -> np.ndarray:
    hu = make.chest_hu().astype(np.float64)
    return (low + (hu - hu.min()) / (hu.max() - hu.min()) * (high - low)).astype(dtype)


@case("an 8-bit picture of a CT", "ct-not-hu", "0 to 255")
def eight_bit(folder):
    return make.write(folder / "scan.nii.gz", make.image(_rescaled(0, 255, np.uint8)))


@case("a CT normalised to 0..1", "ct-not-hu", "0 to 1")
def normalised(folder):
    return make.write(folder / "scan.nrrd", make.image(_rescaled(0, 1, np.float32)))


@case("a CT without its rescale intercept (0..4095)", "ct-not-hu", "0 to 4095")
def no_intercept(folder):
    return make.write(folder / "scan.mha", make.image(_rescaled(0, 4095, np.int16)))


@case("a 16-bit picture", "ct-not-hu", "65535")
def sixteen_bit(folder):
    return make.write(folder / "scan.mha", make.image(_rescaled(0, 65535, np.uint16)))


@case("a constant volume", "ct-not-hu", "-1000 to -1000")
def constant(folder):
    return make.write(folder / "scan.nii.gz", make.image(np.full((12, 32, 28), -1000, np.int16)))


@case("a segmentation instead of the CT", "ct-not-hu", "0 to 1")
def label_map(folder):
    return make.write(folder / "mask.nii.gz", make.image((make.chest_hu() > -500).astype(np.uint8)))


# --- series -----------------------------------------------------------------------------------------------------


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


# --- archives ---------------------------------------------------------------------------------------------------


def _zip(folder: Path, names: dict[str, bytes]) -> Path:
    path = folder / "scan.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in names.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def _claiming(path: Path, unpacked_bytes: int) -> Path:
    """Make the archive's directory claim that each file unpacks to so much."""
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<I", data, at + 24, unpacked_bytes)
        at = data.find(b"PK\x01\x02", at + 46)
    path.write_bytes(data)
    return path


@case("an archive that writes outside its folder", "ct-archive-path-escape", "../../escaped.dcm")
def zip_escape(folder):
    return _zip(folder, {"a/1.dcm": b"x", "../../escaped.dcm": b"x"})


@case("an archive with an absolute path", "ct-archive-path-escape", "/etc/escaped.dcm")
def zip_absolute(folder):
    return _zip(folder, {"/etc/escaped.dcm": b"x"})


@case("an archive with a Windows path", "ct-archive-path-escape", "escaped.dcm")
def zip_windows(folder):
    return _zip(folder, {"C:\\escaped.dcm": b"x"})


@case("an archive with a symbolic link", "ct-archive-link", "link.dcm")
def zip_link(folder):
    path = folder / "scan.zip"
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/hostname")
    return path


@case("an archive with one huge file (zip bomb)", "ct-archive-too-large", "3,840 MiB")
def zip_bomb(folder):
    return _claiming(_zip(folder, {"a.dcm": b"x"}), 0xF0000000)


@case("an archive that unpacks to too much (zip bomb)", "ct-archive-too-large", "5.0 GiB")
def zip_bomb_many(folder):
    return _claiming(_zip(folder, {f"{i}.dcm": b"x" for i in range(20)}), 256 * 2**20)


@case("an archive of too many files", "ct-archive-too-many-files", "20,001 files")
def zip_too_many(folder):
    return _zip(folder, {f"{i}.dcm": b"" for i in range(20_001)})


@case("an encrypted archive", "ct-archive-encrypted", "a.dcm")
def zip_encrypted(folder):
    path = _zip(folder, {"a.dcm": b"x"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return path


@case("an archive without DICOM images", "ct-no-dicom", "looked at: 2")
def zip_no_dicom(folder):
    return _zip(folder, {"a.txt": b"hello", "b.nii": b"hello"})


@case("an archive of a series with a missing slice", "ct-missing-slices", "series/004.dcm, series/005.dcm")
def zip_missing_slice(folder):
    return make.zipped(_slices(folder, lambda items: items[:5] + items[6:]), folder / "scan.zip")


# --- points -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BadPoint:
    """A point that must be refused for the CT of `point_ct`.

    Attributes:
        name: Short name, for test ids.
        title: For people: what is wrong with it.
        code: The error code it must give.
        xyz: The point.
        says: What the message or the hint must name.
        in_lung: What the lung mask says about any point that it is asked for.
    """

    name: str
    title: str
    code: str
    xyz: tuple[float, float, float]
    says: tuple[str, ...]
    in_lung: bool = False


POINTS = (
    BadPoint("outside", "a point outside the volume", "coordinate-outside", (0.0, 300.0, -120.0),
             ("(0, 300, -120)", "x -20.88 to 0.12, y 10.85 to 36.45, z -131.25 to -101.25")),
    BadPoint("mirrored", "RAS coordinates given as LPS", "coordinate-outside", (10.0, -20.0, -120.0),
             ("(10, -20, -120)", "(-10, 20, -120)", "--space ras"), in_lung=True),
    BadPoint("mirrored_outside_lung", "the same, where the mirrored point is in the volume but not in the lungs",
             "coordinate-outside", (10.0, -20.0, -120.0), ("--space ras or --space voxel",)),
    BadPoint("nan", "a coordinate that is not a number", "coordinate-not-finite", (float("nan"), 20.0, -120.0),
             ("nan", "20", "-120")),
    BadPoint("infinite", "an infinite coordinate", "coordinate-not-finite", (0.0, float("inf"), -120.0), ("inf",)),
)  # fmt: skip


def point_ct(folder: Path) -> Path:
    """The CT the points are refused for: x -20.5 to -0.25, y 11.25 to 36.05, z -130 to -102.5 mm, LPS."""
    return make.write(folder / "scan.nii.gz")
