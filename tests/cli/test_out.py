"""``--out``: what is written, where it lies, and what is refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nodule_diag.ct.phantom import Phantom
from nodule_diag.errors import OutputError, UsageError
from nodule_diag_cli.out import file_stem, prepare

NODULE = ("--xyz", "-72", "-18", "-135")
FILES = ["cam_1.nii.gz", "prediction.json", "segmentation_1.nii.gz"]


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SLA"])
def test_overlays_lie_on_the_nodule(
    command: Any, phantom: Phantom, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path, orientation: str
) -> None:
    """The tiny bundle segments what is dense: seen from the nodule's centre, the nodule itself."""
    stored = sitk.DICOMOrient(sitk.ReadImage(str(phantom_ct)), orientation)
    path = tmp_path / "stored.nii"
    sitk.WriteImage(stored, str(path))
    out = tmp_path / "new" / "results"
    ended = command("predict", path, *NODULE, "--bundle", tiny_bundle, "--json", "--out", out)
    assert ended.code == 0, ended.out
    assert sorted(file.name for file in out.iterdir()) == FILES
    assert json.loads((out / "prediction.json").read_text()) == ended.document

    segmentation = sitk.ReadImage(str(out / "segmentation_1.nii.gz"))
    assert segmentation.GetSize() == stored.GetSize()
    labels = sitk.LabelShapeStatisticsImageFilter()
    labels.Execute(segmentation)
    assert labels.GetLabels() == (1,)
    center = phantom.nodules[0].center_xyz_mm
    np.testing.assert_allclose(labels.GetCentroid(1), center, atol=1.5)
    expected_mm3 = ended.document["nodules"][0]["segmentation"]["volume_mm3"]
    assert labels.GetPhysicalSize(1) == pytest.approx(expected_mm3, abs=6 * 10.0)  # six voxels of 10 mm3

    cam = nib.load(out / "cam_1.nii.gz")
    assert nib.aff2axcodes(cam.affine) == nib.aff2axcodes(nib.load(path).affine)
    np.testing.assert_allclose(cam.affine, nib.load(path).affine, atol=1e-4)
    values = cam.get_fdata()
    assert values.min() >= 0
    assert values.max() <= 1
    ras = np.array(center) * (-1, -1, 1)
    voxel = np.rint(np.linalg.inv(cam.affine) @ [*ras, 1])[:3].astype(int)
    # The tiny network is benign where there is air, so its CAM is lowest in the nodule.
    ball = values[tuple(slice(index - 1, index + 2) for index in voxel)]
    cube = values[values > 0]
    assert ball.mean() < cube.mean() - 0.3


def test_out_replaces_older_results(command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "prediction.json").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    assert command("predict", phantom_ct, *NODULE, "--bundle", tiny_bundle, "--out", tmp_path).code == 0
    assert json.loads((tmp_path / "prediction.json").read_text())["nodules"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*FILES, "notes.txt"])


@pytest.mark.parametrize(
    ("nodule_id", "stem"),
    [
        ("1", "1"),
        ("left-upper_2.a", "left-upper_2.a"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("/absolute", "_absolute"),
        ("a b\\c:d\x00\n", "a_b_c_d__"),
        ("..", "_"),
        ("Lünge", "L_nge"),
        ("x" * 300, "x" * 80),
    ],
)
def test_ids_never_leave_the_folder(nodule_id: str, stem: str) -> None:
    assert file_stem(nodule_id) == stem


def test_ids_that_would_share_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'a/b' and 'a_b'"):
        prepare(tmp_path, ["a/b", "a_b"])
    with pytest.raises(UsageError, match="'a' and 'A'"):
        prepare(tmp_path, ["a", "A"])


def test_folder_that_is_a_file(command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    ended = command("predict", phantom_ct, *NODULE, "--bundle", tiny_bundle, "--json", "--out", path)
    assert ended.code == 1
    assert ended.document["error"]["code"] == "output-failed"
    assert path.read_text() == "mine"
    with pytest.raises(OutputError, match="cannot make the folder"):
        prepare(path / "below", ["1"])


def test_a_summary_stands_for_its_own_maps_only(
    command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run into a folder fails after its first map: the first run's summary must not stand beside it."""
    call = ("predict", phantom_ct, *NODULE, "--bundle", tiny_bundle, "--json", "--out", tmp_path)
    assert command(*call).code == 0

    def full(*_: object) -> None:
        raise OutputError("No space left on device", hint="")

    monkeypatch.setattr("nodule_diag.results.write_segmentation", full)
    assert command(*call).code == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cam_1.nii.gz", "segmentation_1.nii.gz"]


def test_full_disk(
    command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up in the middle of the first overlay: an error, and no half file."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nodule_diag.results.overlay._slices", full)
    ended = command("predict", phantom_ct, *NODULE, "--bundle", tiny_bundle, "--json", "--out", tmp_path)
    assert ended.code == 1
    assert "No space left" in ended.document["error"]["message"]
    assert list(tmp_path.iterdir()) == []
