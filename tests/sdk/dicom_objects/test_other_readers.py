"""The DICOM objects as others read them: dciodvfy judges their form, dcmqi says where each voxel lies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from dicom_in_every_position import LYING, predicted, series
from nodule_diag.ct.volume import CTVolume
from nodule_diag.dicom_objects.writing import write_dicom_objects

pytestmark = pytest.mark.slow

Saved = Callable[[list[Any]], CTVolume]


def program(name: str, package: str) -> str:
    """A program of another project; CI must have it."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        if os.environ.get("NODULE_DIAG_TOOLS") == "required":
            pytest.fail(f"CI has no {name}: .ci/run installs {package}")
        pytest.skip(f"no {name}: install {package}")
    return found


def run(*command: object) -> str:
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def points_of(image: sitk.Image) -> np.ndarray:
    """(N, 3) LPS mm of an image's voxels, z slowest."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in image.GetSize()), indexing="ij"), axis=-1)
    index = index.transpose(2, 1, 0, 3).reshape(-1, 3)
    direction = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    return np.array(image.GetOrigin()) + index @ direction.T


@pytest.mark.parametrize("lying", LYING)
def test_dciodvfy_finds_no_error(saved: Saved, tmp_path: Path, lying: str) -> None:
    judge = program("dciodvfy", "dicom3tools (apt)")
    ct = saved(series(lying))
    for file in write_dicom_objects(tmp_path / "objects", ct, predicted(ct)):
        ended = subprocess.run([judge, str(file)], capture_output=True, text=True, check=False, timeout=60)
        errors = [line for line in ended.stderr.splitlines() if line.startswith("Error")]
        assert errors == [], file.name


@pytest.mark.parametrize("lying", LYING)
def test_dcmqi_finds_every_voxel_in_its_place(saved: Saved, tmp_path: Path, lying: str) -> None:
    reader = program("segimage2itkimage", "dcmqi (pip)")
    ct = saved(series(lying))
    prediction = predicted(ct)
    write_dicom_objects(tmp_path / "objects", ct, prediction)
    read = tmp_path / "read"
    read.mkdir()

    run(reader, "--inputDICOM", tmp_path / "objects/segmentation.dcm", "--outputDirectory", read)
    for number, diagnosis in enumerate(prediction.diagnoses, start=1):
        image = sitk.ReadImage(str(read / f"{number}.nrrd"))
        voxels = sitk.GetArrayFromImage(image).ravel() > 0
        wanted = diagnosis.segmentation.holds(points_of(image))
        # A voxel whose centre lies on a face of the 0.5 mm grid may fall to either side by rounding.
        certain = np.ones(len(wanted), dtype=bool)
        for shift in np.vstack([np.eye(3), -np.eye(3)]) * 1e-3:
            certain &= diagnosis.segmentation.holds(points_of(image) + shift) == wanted
        assert voxels.sum() > 50
        assert np.count_nonzero(voxels[certain] != wanted[certain]) == 0

    for number, diagnosis in enumerate(prediction.diagnoses, start=1):
        run(
            program("paramap2itkimage", "dcmqi (pip)"),
            "--inputDICOM", tmp_path / f"objects/cam_{number}.dcm", "--outputDirectory", read,
        )  # fmt: skip
        image = sitk.ReadImage(str(read / "pmap.nrrd"))
        values = sitk.GetArrayFromImage(image).ravel()
        assert image.GetSize() == (16, 16, 16)
        np.testing.assert_allclose(values, diagnosis.cam.sample(points_of(image)), atol=1e-4)


def test_dcmqi_reads_the_same_numbers(saved: Saved, tmp_path: Path) -> None:
    ct = saved(series())
    prediction = predicted(ct)
    write_dicom_objects(tmp_path, ct, prediction)
    run(
        program("tid1500reader", "dcmqi (pip)"),
        "--inputDICOM", tmp_path / "measurements.dcm", "--outputMetadata", tmp_path / "read.json",
    )  # fmt: skip
    groups = json.loads((tmp_path / "read.json").read_text())["Measurements"]
    assert [group["TrackingIdentifier"] for group in groups] == ["Nodule n0", "Nodule n1"]
    for group, diagnosis in zip(groups, prediction.diagnoses, strict=True):
        said = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in group["measurementItems"]}
        assert said["Probability of cancer"] == pytest.approx(100 * diagnosis.malignancy)
        assert said["Malignancy"] == pytest.approx(diagnosis.expert_score)
        assert said["Diameter"] == pytest.approx(diagnosis.segmentation.diameter_mm)
        assert said["Volume"] == pytest.approx(diagnosis.segmentation.volume_mm3)
        assert said["Share of malignant cases in the case base"] == pytest.approx(diagnosis.base_rate)
