"""``--out``: what is written, where it lies, and what is refused."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nodule_diag.ct.phantom import Phantom
from nodule_diag.errors import OutputError, UsageError
from nodule_diag_cli.out import file_stem, opened

NODULE = ("--xyz", "-72", "-18", "-135")
OTHER = ("--xyz", "119.1", "22", "-190")


def maps(out: Path, nodule: int = 0) -> dict[str, Path]:
    """The maps that the document in a folder names."""
    document = json.loads((out / "prediction.json").read_text())
    return {kind: out / name for kind, name in document["nodules"][nodule]["maps"].items()}


def whole(out: Path) -> set[str]:
    """The files of the one result in a folder: every map is what its name says, and nothing else of ours is there."""
    document = json.loads((out / "prediction.json").read_text())
    names = {name for nodule in document["nodules"] for name in nodule["maps"].values()}
    for name in names:
        digest = hashlib.sha256((out / name).read_bytes()).hexdigest()
        assert name.endswith(f"-{digest[:16]}.nii.gz"), name
    there = {path.name for path in out.iterdir()}
    assert {name for name in there if name.endswith(".nii.gz") or name.startswith(".")} == names
    return {*names, "prediction.json"}


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
    assert {file.name for file in out.iterdir()} == whole(out)
    assert json.loads((out / "prediction.json").read_text()) == ended.document

    segmentation = sitk.ReadImage(str(maps(out)["segmentation"]))
    assert segmentation.GetSize() == stored.GetSize()
    labels = sitk.LabelShapeStatisticsImageFilter()
    labels.Execute(segmentation)
    assert labels.GetLabels() == (1,)
    center = phantom.nodules[0].center_xyz_mm
    np.testing.assert_allclose(labels.GetCentroid(1), center, atol=1.5)
    expected_mm3 = ended.document["nodules"][0]["segmentation"]["volume_mm3"]
    assert labels.GetPhysicalSize(1) == pytest.approx(expected_mm3, abs=6 * 10.0)  # six voxels of 10 mm3

    cam = nib.load(maps(out)["cam"])
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
    assert {file.name for file in tmp_path.iterdir()} == {*whole(tmp_path), "notes.txt"}


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
    for ids, named in ((["a/b", "a_b"], "'a/b' and 'a_b'"), (["a", "A"], "'a' and 'A'")):
        with pytest.raises(UsageError, match=named), opened(tmp_path, ids):
            pass
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file(command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    ended = command("predict", phantom_ct, *NODULE, "--bundle", tiny_bundle, "--json", "--out", path)
    assert ended.code == 1
    assert ended.document["error"]["code"] == "output-failed"
    assert path.read_text() == "mine"
    with pytest.raises(OutputError, match="cannot make the folder"), opened(path / "below", ["1"]):
        pass


def test_the_old_result_stands_until_the_new_one_is_whole(
    command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run into a folder fails after its first map."""
    assert command("predict", phantom_ct, *NODULE, "--bundle", tiny_bundle, "--out", tmp_path).code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OutputError("No space left on device", hint="")

    monkeypatch.setattr("nodule_diag.results.write_segmentation", full)
    call = ("predict", phantom_ct, *OTHER, "--bundle", tiny_bundle, "--out", tmp_path)
    assert command(*call).code == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    assert command(*call).code == 0
    assert {file.name for file in tmp_path.iterdir()} == whole(tmp_path)


def test_maps_of_an_earlier_run_do_not_stay(command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Three nodules, then one; an edited copy of a map is the user's."""
    call = ("predict", phantom_ct, "--bundle", tiny_bundle, "--out", tmp_path)
    assert command(*call, *NODULE, *OTHER).code == 0
    segmentation = maps(tmp_path)["segmentation"]
    edited = tmp_path / f"segmentation_edited-{16 * '0'}.nii.gz"
    edited.write_bytes(segmentation.read_bytes())
    copied = tmp_path / "mine.nii.gz"
    copied.write_bytes(segmentation.read_bytes())
    assert command(*call, *NODULE).code == 0
    assert {path for path in (edited, copied) if path.exists()} == {edited, copied}
    edited.unlink()
    copied.unlink()
    assert len(whole(tmp_path)) == 3


def test_maps_of_version_0_2_do_not_stay(command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """That version called a map by its nodule alone, and named none in the document."""
    call = ("predict", phantom_ct, "--bundle", tiny_bundle, "--out", tmp_path, *NODULE)
    assert command(*call, *OTHER).code == 0
    document = json.loads((tmp_path / "prediction.json").read_text())
    for nodule in document["nodules"]:
        for kind, name in nodule.pop("maps").items():
            (tmp_path / name).rename(tmp_path / f"{kind}_{nodule['id']}.nii.gz")
    (tmp_path / "prediction.json").write_text(json.dumps(document))
    users = tmp_path / "cam_2.nii.gz"
    users.write_bytes(gzip.compress(b"of another program" * 100))
    assert command(*call).code == 0
    users.unlink()
    assert {file.name for file in tmp_path.iterdir()} == whole(tmp_path)


def test_a_second_writer_is_refused(command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """At once, before it has computed anything; and the first is not disturbed."""
    call = ("predict", phantom_ct, *NODULE, "--bundle", tiny_bundle, "--json", "--out", tmp_path)
    with opened(tmp_path, ["1"]) as first:
        (first.work / "cam.nii.gz").write_bytes(b"in work")
        ended = command(*call)
        assert (ended.code, ended.document["error"]["code"]) == (1, "output-busy")
        assert (first.work / "cam.nii.gz").read_bytes() == b"in work"
    assert list(tmp_path.iterdir()) == []
    assert command(*call).code == 0


def test_a_link_in_the_place_of_the_work_folder_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".nodule-diag").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match="is a link"), opened(tmp_path / "out", ["1"]):
        pass
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_a_document_that_cannot_be_read_loses_no_maps(
    command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which maps are its own is not known then."""
    call = ("predict", phantom_ct, *NODULE, "--bundle", tiny_bundle, "--json", "--out", tmp_path)
    assert command(*call).code == 0
    before = {path.name for path in tmp_path.iterdir()}
    read = Path.read_bytes

    def denied(path: Path) -> bytes:
        if path.name == "prediction.json":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert command(*call).document["error"]["code"] == "output-failed"
    assert {path.name for path in tmp_path.iterdir()} == before


def test_leftovers_of_a_killed_run_are_cleaned_by_the_next(
    command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Also when that one fails."""
    call = ("predict", phantom_ct, "--bundle", tiny_bundle, "--out", tmp_path)
    assert command(*call, *NODULE).code == 0
    stray = b"a map that no document names"
    (tmp_path / f"cam_9-{hashlib.sha256(stray).hexdigest()[:16]}.nii.gz").write_bytes(stray)
    work = tmp_path / ".nodule-diag"
    (work / "folder").mkdir(parents=True)
    (work / ".0123.cam.nii.gz").write_bytes(b"half")
    (work / "lock").touch()
    assert command(*call, "--xyz", 0, 0, 9999).code == 3
    assert {file.name for file in tmp_path.iterdir()} == whole(tmp_path)


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
