"""The files that the fuzzer starts from: every format that is read, small, made by code, the same bytes each time."""

from __future__ import annotations

import bz2
import gzip
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

import ct_files as make
from bundle_factory import tiny_base, tiny_cases, tiny_parts
from fuzz.seed import Files, Seed, zipped
from fuzz.seeds_cases import filters, tables
from fuzz.seeds_pacs import answers
from fuzz.seeds_positions import marks, texts
from nodule_diag.bundle import MANIFEST_NAME
from nodule_diag.bundle.bundle import seal

SHAPE_ZYX = (6, 40, 36)
"""Large enough for OpenJPEG's encoder, which needs 32 pixels a side, and no two axes alike."""
CASES = 12


def all_seeds() -> list[Seed]:
    """Every one of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scans = [*_nifti(folder), *_metaimage(folder), *_nrrd(folder), *_dicom(folder)]
        return [*scans, *_bundles(), *texts(), *marks(folder), *tables(), *filters(), *answers(folder)]


def _ct(name: str, form: str, files: Files, ways: str, rule: str, heads: dict[str, int]) -> Seed:
    return Seed(name, form, "ct", next(iter(files)), files, tuple(ways.split()), rule, heads)


def _hu() -> np.ndarray:
    return make.chest_hu(SHAPE_ZYX)


def _written(path: Path, *, compress: bool = False) -> bytes:
    return make.write(path, make.image(_hu()), compress=compress).read_bytes()


def _nifti(folder: Path) -> list[Seed]:
    one, two = folder / "one.nii", folder / "two.nii"
    make.nifti(_hu()).to_filename(one)
    make.nifti(_hu(), cls=nibabel.Nifti2Image).to_filename(two)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.float32)
    nibabel.Nifti1Image(_hu().T.astype(np.float32), make.ras_affine(), header).to_filename(folder / "big.nii")
    plain = "bytes bytes nifti nifti"
    packed = 3 * "bytes bytes gzip gzip gzip-nifti gzip-nifti " + "bomb"

    def both(name: str, data: bytes, head: int) -> list[Seed]:
        return [
            _ct(name, "NIfTI, plain", {"scan.nii": data}, plain, "nifti", {"scan.nii": head}),
            _ct(f"{name}-gzip", "NIfTI, gzip", {"scan.nii.gz": gzip.compress(data, 6, mtime=0)}, packed, "nifti", {}),
        ]

    return [
        *both("nifti", one.read_bytes(), 352),
        *both("nifti2", two.read_bytes(), 544),
        *both("nifti-big-endian-float", (folder / "big.nii").read_bytes(), 352),
    ]


def _metaimage(folder: Path) -> list[Seed]:
    found = []
    for name, compress in (("plain", False), ("zlib", True)):
        form = f"MetaImage, {name}"
        whole = _written(folder / f"{name}.mha", compress=compress)
        head = whole.index(b"LOCAL\n") + 6
        ways = "bytes bytes text text" + 3 * " bytes text payload payload" * compress + " bomb" * compress
        found.append(_ct(f"mha-{name}", form, {"scan.mha": whole}, ways, "metaimage", {"scan.mha": head}))
        header = whole[:head].replace(b"LOCAL", b"scan.raw")
        files = {"scan.mhd": header, "scan.raw": whole[head:]}
        heads = {"scan.mhd": len(header)}
        found.append(_ct(f"mhd-{name}", form, files, ways, "metaimage", heads))
    return found


def _nrrd(folder: Path) -> list[Seed]:
    whole = _written(folder / "scan.nrrd")
    head = whole.index(b"\n\n") + 2
    header, voxels = whole[:head], whole[head:]
    packers: dict[str, Callable[[bytes], bytes]] = {
        "raw": bytes,
        "gzip": lambda data: gzip.compress(data, 6, mtime=0),
        "bzip2": bz2.compress,
    }
    found = []
    for name, pack in packers.items():
        said = re.sub(rb"encoding: \w+", b"encoding: " + name.encode(), header)
        packed = name != "raw"
        ways = "bytes bytes text text" + 3 * " bytes text payload payload" * packed + " bomb" * packed
        form = f"NRRD, {name}"
        files = {"scan.nrrd": said + pack(voxels)}
        found.append(_ct(f"nrrd-{name}", form, files, ways, "nrrd", {"scan.nrrd": len(said)}))
        detached = said[:-1] + b"data file: scan.raw\n\n"
        files = {"scan.nhdr": detached, "scan.raw": pack(voxels)}
        found.append(_ct(f"nhdr-{name}", form, files, ways, "nrrd", {"scan.nhdr": len(detached)}))
    return found


def _dicom(folder: Path) -> list[Seed]:
    syntaxes = {
        "explicit": ExplicitVRLittleEndian,
        "implicit": ImplicitVRLittleEndian,
        "deflated": DeflatedExplicitVRLittleEndian,
        "rle": RLELossless,
        "jpeg": JPEGLosslessSV1,
        "jpeg-ls": JPEGLSLossless,
        "jpeg-2000": JPEG2000Lossless,
    }
    found, series = [], {}
    for name, syntax in syntaxes.items():
        items = make.encoded(make.dicom_slices(_hu(), intercept=-1024), syntax)
        for item in items:
            item.PixelRepresentation = 0  # as most scanners write it, and as JPEG Lossless needs it here
        made = make.save_series(folder / name, items)
        files = {f"series/{path.name}": path.read_bytes() for path in sorted(made.iterdir())}
        series[name] = files
        ways = "bytes bytes elements elements elements files" + _INNER.get(name, "")
        head = next(iter(files.values())).find(b"\xe0\x7f\x10\x00") + 12
        heads = dict.fromkeys(files, head) if name not in ("deflated",) else {}
        form = f"DICOM, {name}"
        found.append(Seed(f"dicom-{name}", form, "ct", "series", files, tuple(ways.split()), "dicom", heads))
    for name in ("explicit", "rle"):
        data = {"scan.zip": zipped(series[name])}
        found.append(_ct(f"zip-{name}", "DICOM in a zip", data, 3 * "bytes zip zip member member " + "bomb", "zip", {}))
    path = folder / "enhanced" / "ct.dcm"
    make.save_slice(enhanced(_hu()), path)
    data = path.read_bytes()
    files, heads = {"series/ct.dcm": data}, {"series/ct.dcm": data.rfind(b"\xe0\x7f\x10\x00") + 12}
    ways = ("bytes", "bytes", "elements", "elements")
    found.append(Seed("dicom-enhanced", "DICOM, Enhanced CT", "ct", "series", files, ways, "dicom", heads))
    return found


_INNER = {
    "deflated": 2 * " deflated deflated elements" + " bomb",
    **dict.fromkeys(("rle", "jpeg", "jpeg-ls", "jpeg-2000"), " frame frame"),
}


def enhanced(hu_zyx: np.ndarray) -> Dataset:
    """The whole volume as one Enhanced CT of as many frames (DICOM PS3.3, A.38)."""
    slices = make.dicom_slices(hu_zyx)
    item = slices[0]
    item.SOPClassUID = EnhancedCTImageStorage
    item.NumberOfFrames = len(slices)
    item.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared, measures, orientation, values = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = item.PixelSpacing, item.SliceThickness
    orientation.ImageOrientationPatient = item.ImageOrientationPatient
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = item.RescaleSlope, item.RescaleIntercept, "HU"
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelValueTransformationSequence = [values]
    item.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number, plane in enumerate(slices, start=1):
        position, content, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = plane.ImagePositionPatient
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", number, [1, number]
        group.PlanePositionSequence, group.FrameContentSequence = [position], [content]
        groups.append(group)
    item.PerFrameFunctionalGroupsSequence = groups
    item.PixelData = b"".join(plane.PixelData for plane in slices)
    for word in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(item, word)
    for word in ("RescaleSlope", "RescaleIntercept"):
        delattr(item, word)
    return item


def _bundles() -> list[Seed]:
    cases = tiny_cases(CASES)
    content = seal(*tiny_parts(cases=cases))
    files = {f"bundle/{name}": data for name, data in content.items()}
    base = tiny_base(cases).to_bytes()
    heads = {f"bundle/{MANIFEST_NAME}": len(content[MANIFEST_NAME])}
    archive, rows = {"bundle.zip": zipped(content)}, {"cases.sqlite": base}
    ways, packed_ways = ("bytes", "manifest", "manifest", "files"), ("bytes", "zip", "member") * 6 + ("bomb",)
    return [
        Seed("bundle", "Bundle, folder", "bundle", "bundle", files, ways, "bundle", heads),
        Seed("bundle-zip", "Bundle, zip", "bundle", "bundle.zip", archive, packed_ways, "bundle", {}),
        Seed("model", "Bundle, hashes made right", "model", "bundle", files, ("rehashed",), "model", {}),
        Seed("cases", "Case base", "cases", "cases.sqlite", rows, ("bytes", "pages", "sql"), "cases", {}),
    ]
