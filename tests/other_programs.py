"""Programs of other projects, which read the files that are written here: independent judges."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nodule_diag.results.diagnosis import Diagnosis


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


def dciodvfy_errors(file: Path) -> list[str]:
    """What dicom3tools finds wrong in a DICOM object."""
    judge = program("dciodvfy", "dicom3tools (apt)")
    ended = subprocess.run([judge, str(file)], capture_output=True, text=True, check=False, timeout=60)
    return [line for line in ended.stderr.splitlines() if line.startswith("Error")]


def points_of(image: sitk.Image) -> np.ndarray:
    """(N, 3) LPS mm of an image's voxels, z slowest."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in image.GetSize()), indexing="ij"), axis=-1)
    index = index.transpose(2, 1, 0, 3).reshape(-1, 3)
    direction = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    return np.array(image.GetOrigin()) + index @ direction.T


def assert_segments(file: Path, diagnoses: Sequence[Diagnosis], scratch: Path) -> None:
    """dcmqi finds every voxel of every nodule in its place, and no other."""
    run(program("segimage2itkimage", "dcmqi (pip)"), "--inputDICOM", file, "--outputDirectory", scratch)
    for number, diagnosis in enumerate(diagnoses, start=1):
        image = sitk.ReadImage(str(scratch / f"{number}.nrrd"))
        voxels, points = sitk.GetArrayFromImage(image).ravel() > 0, points_of(image)
        wanted = diagnosis.segmentation.holds(points)
        # A voxel whose centre lies on a face of the 0.5 mm grid may fall to either side by rounding.
        certain = np.ones(len(wanted), dtype=bool)
        for shift in np.vstack([np.eye(3), -np.eye(3)]) * 1e-3:
            certain &= diagnosis.segmentation.holds(points + shift) == wanted
        assert voxels.sum() > 50
        assert np.count_nonzero(voxels[certain] != wanted[certain]) == 0


def assert_cam(file: Path, diagnosis: Diagnosis, scratch: Path) -> None:
    """dcmqi finds every cell of the CAM in its place."""
    run(program("paramap2itkimage", "dcmqi (pip)"), "--inputDICOM", file, "--outputDirectory", scratch)
    image = sitk.ReadImage(str(scratch / "pmap.nrrd"))
    assert image.GetSize() == (16, 16, 16)
    values = sitk.GetArrayFromImage(image).ravel()
    np.testing.assert_allclose(values, diagnosis.cam.sample(points_of(image)), atol=1e-4)
