"""Makes small CTs in memory and on disk, in every supported format, for the tests of all packages."""

import struct
import zipfile
from collections.abc import Callable, Sequence
from itertools import permutations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import nibabel
import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGLosslessSV1

from nodule_diag.ct.volume import CTVolume

SPACING_XYZ = (0.75, 0.8, 2.5)
ORIGIN_XYZ = (-20.5, 11.25, -130.0)
UID_ROOT = "1.2.826.0.1.3680043.8.498"

ORIENTATIONS = tuple(
    "".join(pair[flip] for pair, flip in zip(order, flips, strict=True))
    for order in permutations(("LR", "PA", "SI"))
    for flips in product((0, 1), repeat=3)
)
"""All 48 ways to store a volume, named by where its axes run to, fastest first."""


def chest_hu(shape_zyx: tuple[int, int, int] = (12, 32, 28), seed: int = 0) -> np.ndarray:
    """A crude chest, int16 HU: a body in air with one large and one small lung, so that no two orientations agree."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape_zyx), indexing="ij")
    hu = np.full(shape_zyx, -1000.0)
    hu[x**2 + (y / 0.9) ** 2 < 0.9] = 40
    hu[((x - 0.35) / 0.3) ** 2 + (y / 0.5) ** 2 + ((z - 0.1) / 1.2) ** 2 < 1] = -850
    hu[((x + 0.4) / 0.2) ** 2 + ((y + 0.1) / 0.4) ** 2 < 1] = -820
    noise = np.random.default_rng(seed).normal(0, 15, shape_zyx)
    return np.maximum(np.rint(hu + noise), -1024).astype(np.int16)


def image(hu: np.ndarray | None = None, *, spacing=SPACING_XYZ, origin=ORIGIN_XYZ, direction=None) -> sitk.Image:
    """A SimpleITK image of a chest."""
    result = sitk.GetImageFromArray(chest_hu() if hu is None else hu)
    result.SetSpacing(spacing)
    result.SetOrigin(origin)
    if direction is not None:
        result.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
    return result


def write(path: Path, what: sitk.Image | None = None, *, compress: bool = False) -> Path:
    """Write an image by its extension."""
    sitk.WriteImage(image() if what is None else what, str(path), useCompression=compress)
    return path


def nifti(hu_zyx: np.ndarray | None = None, affine_ras: np.ndarray | None = None, *, cls=nibabel.Nifti1Image):
    """A nibabel image: the tool that is not SimpleITK."""
    hu = chest_hu() if hu_zyx is None else hu_zyx
    return cls(hu.T, ras_affine() if affine_ras is None else affine_ras)


def ras_affine(spacing=SPACING_XYZ, origin=ORIGIN_XYZ, direction=None) -> np.ndarray:
    """(4, 4) index to RAS mm, as nibabel wants it."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if direction is None else np.asarray(direction)) * np.asarray(spacing)
    affine[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def patched(path: Path, offset: int, layout: str, *values: float) -> Path:
    """Overwrite header fields of a file."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, offset, *values)
    path.write_bytes(data)
    return path


def dicom_slices(
    hu_zyx: np.ndarray | None = None,
    *,
    spacing: Sequence[float] = SPACING_XYZ,
    origin: Sequence[float] = ORIGIN_XYZ,
    row: Sequence[float] = (1, 0, 0),
    column: Sequence[float] = (0, 1, 0),
    series: int = 1,
    modality: str = "CT",
    description: str = "chest",
    intercept: int = -1024,
) -> list[Dataset]:
    """One data set for each slice, stacked along the normal."""
    hu = chest_hu() if hu_zyx is None else hu_zyx
    normal = np.cross(row, column)
    slices = []
    for number, plane in enumerate(hu):
        item = Dataset()
        item.SOPClassUID = CTImageStorage
        item.SOPInstanceUID = f"{UID_ROOT}.{series}.{number + 1}"
        item.SeriesInstanceUID = f"{UID_ROOT}.{series}"
        item.StudyInstanceUID = UID_ROOT
        item.FrameOfReferenceUID = f"{UID_ROOT}.0"
        item.Modality = modality
        item.SeriesDescription = description
        item.SeriesNumber = series
        item.InstanceNumber = len(hu) - number
        item.PatientID = "phantom"
        item.ImagePositionPatient = [float(v) for v in np.asarray(origin) + number * spacing[2] * normal]
        item.ImageOrientationPatient = [*map(float, row), *map(float, column)]
        item.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        item.SliceThickness = float(spacing[2])
        item.Rows, item.Columns = plane.shape
        item.SamplesPerPixel = 1
        item.PhotometricInterpretation = "MONOCHROME2"
        item.BitsAllocated = item.BitsStored = 16
        item.HighBit = 15
        item.PixelRepresentation = 1
        item.RescaleSlope = 1
        item.RescaleIntercept = intercept
        item.PixelData = (plane.astype(np.int32) - intercept).astype("<i2").tobytes()
        slices.append(item)
    return slices


def encoded(slices: list[Dataset], syntax: str) -> list[Dataset]:
    """The same slices in another transfer syntax, by pydicom; JPEG Lossless, which it cannot write, by GDCM."""
    for item in slices:
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        if syntax == JPEGLosslessSV1:
            item.PixelData = encapsulate([_jpeg_lossless(item)])
            item["PixelData"].is_undefined_length = True
        elif UID(syntax).is_compressed and not UID(syntax).is_deflated:
            item.compress(syntax, generate_instance_uid=False)
        elif syntax == ExplicitVRBigEndian:
            kind = np.dtype(f"i{item.BitsAllocated // 8}")
            item.PixelData = (
                np.frombuffer(item.PixelData, kind.newbyteorder("<")).astype(kind.newbyteorder(">")).tobytes()
            )
            item["PixelData"].VR = "OW"
        item.file_meta.TransferSyntaxUID = syntax
    return slices


def _jpeg_lossless(item: Dataset) -> bytes:
    """A JPEG Lossless code stream of unsigned pixels."""
    stored = np.frombuffer(item.PixelData, "<u2").reshape(item.Rows, item.Columns)
    with TemporaryDirectory() as folder:
        writer = sitk.ImageFileWriter()
        writer.SetFileName(f"{folder}/slice.dcm")
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(stored))
        written = dcmread(f"{folder}/slice.dcm")
    assert written.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    return next(generate_frames(written.PixelData, number_of_frames=1))


def save_slice(item: Dataset, path: Path | BinaryIO) -> None:
    """Write one data set as a DICOM file."""
    if not hasattr(item, "file_meta"):
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
    item.save_as(path, enforce_file_format=True)


def save_series(folder: Path, slices: list[Dataset], *, name: Callable[[int], str] = "{:03d}.dcm".format) -> Path:
    """Write data sets into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, item in enumerate(slices):
        save_slice(item, folder / name(number))
    return folder


def zipped(folder: Path, target: Path) -> Path:
    """Pack a folder, with its own name in front as most tools do."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder.parent).as_posix())
    return target


def assert_same(ct: CTVolume, expected: sitk.Image, *, atol: float = 1e-4) -> None:
    """A volume equals an ITK image that is already in LPS order."""
    np.testing.assert_array_equal(ct.hu, sitk.GetArrayViewFromImage(expected))
    np.testing.assert_allclose(ct.spacing_xyz_mm, expected.GetSpacing(), atol=atol)
    np.testing.assert_allclose(ct.origin_xyz_mm, expected.GetOrigin(), atol=atol)
    np.testing.assert_allclose(ct.direction.ravel(), expected.GetDirection(), atol=1e-6)
