"""One diagnosis a nodule, however its CT is stored: two LIDC-IDRI CTs in every format and orientation."""

from __future__ import annotations

import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from nodule_diag.bundle.bundle import Bundle
from nodule_diag.ct.reading import read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import BundleError
from nodule_diag.results.diagnosis import Diagnosis

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

ADENOCARCINOMA = (-56.94, 131.27, -520.6)
"""LIDC-IDRI-0314."""
SPICULATED = (56.17, 86.20, -115.86)
"""LIDC-IDRI-0001."""
FORMATS = [("LPS", ".nii"), ("LPS", ".mha"), ("LPS", ".nrrd")]
FLIPS = [(code, ".nii") for code in ("RAS", "RPS", "LAS", "LPI", "RAI", "RPI", "LAI")]
PERMUTATIONS = [("PSL", ".mha"), ("SLP", ".nrrd"), ("IRA", ".nii"), ("PLS", ".nii"), ("SPL", ".nii"), ("LSP", ".nii")]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def diagnoser(tiny_bundle: Path) -> Diagnoser:
    """With the packaged bundle where there is one."""
    try:
        return Diagnoser.load(Bundle.default(), device="cpu")
    except BundleError as error:
        assert error.code == "bundle-missing"
        return Diagnoser.load(tiny_bundle, device="cpu")


@pytest.fixture(scope="module")
def image_0314(data_root: Path) -> sitk.Image:
    return sitk.ReadImage(str(data_root / "ct" / "LIDC-IDRI-0314.nii.gz"))


@pytest.fixture(scope="module")
def result_0314(diagnoser: Diagnoser, data_root: Path) -> Diagnosis:
    return diagnoser.predict(read_ct(data_root / "ct" / "LIDC-IDRI-0314.nii.gz"), [ADENOCARCINOMA])[0]


def same(first: Diagnosis, second: Diagnosis) -> None:
    assert first.malignancy == pytest.approx(second.malignancy, abs=TOLERANCE)
    assert first.expert_score == pytest.approx(second.expert_score, abs=TOLERANCE)
    assert first.in_lung
    assert second.in_lung
    assert first.diagnosis == second.diagnosis


@pytest.mark.parametrize(("orientation", "suffix"), [*FORMATS, *FLIPS, *PERMUTATIONS])
def test_0314_in_every_storage(
    diagnoser: Diagnoser,
    image_0314: sitk.Image,
    result_0314: Diagnosis,
    tmp_path: Path,
    orientation: str,
    suffix: str,
) -> None:
    stored = sitk.DICOMOrient(image_0314, orientation)
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(stored, str(path))
    again = diagnoser.predict(read_ct(path), [ADENOCARCINOMA])[0]
    same(again, result_0314)
    nearest = stored.TransformPhysicalPointToIndex(ADENOCARCINOMA)  # by ITK, from the file's own header
    assert again.voxel_xyz == nearest


def test_three_nodules_in_one_call_equal_three_calls(diagnoser: Diagnoser, data_root: Path) -> None:
    ct = read_ct(data_root / "ct" / "LIDC-IDRI-0314.nii.gz")
    points = [ADENOCARCINOMA, (-70.0, 120.0, -560.0), (80.0, 110.0, -500.0)]
    for point, together in zip(points, diagnoser.predict(ct, points), strict=True):
        alone = diagnoser.predict(ct, [point])[0]
        assert alone.malignancy == pytest.approx(together.malignancy, abs=1e-6)
        assert alone.expert_score == pytest.approx(together.expert_score, abs=1e-5)


def test_0001_as_zip_folder_and_converted_elsewhere(diagnoser: Diagnoser, data_root: Path, tmp_path: Path) -> None:
    """The NIfTI is made from pydicom's pixels and nibabel's header: no code in common with the SDK's readers."""
    archive = data_root / "ct" / "LIDC-IDRI-0001_dicom.zip"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "folder")
    converted = tmp_path / "converted.nii.gz"
    nifti_by_other_tools(tmp_path / "folder", converted)
    expected, *others = (
        diagnoser.predict(read_ct(path), [SPICULATED])[0] for path in (archive, tmp_path / "folder", converted)
    )
    for other in others:
        same(other, expected)


def nifti_by_other_tools(folder: Path, target: Path) -> None:
    slices = [pydicom.dcmread(path) for path in folder.rglob("*.dcm")]
    slices.sort(key=lambda item: float(item.ImagePositionPatient[2]))
    hu = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices], axis=-1)
    first, last = (np.array(item.ImagePositionPatient, float) for item in (slices[0], slices[-1]))
    along_row, along_column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    row_mm, column_mm = (float(value) for value in slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = along_column * row_mm  # nibabel array axes: row, column, slice
    affine[:3, 1] = along_row * column_mm
    affine[:3, 2] = (last - first) / (len(slices) - 1)
    affine[:3, 3] = first
    nib.save(nib.Nifti1Image(hu.astype(np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine), target)
