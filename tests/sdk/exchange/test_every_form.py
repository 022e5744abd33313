"""The same nodules in every form are the same positions: points to 1e-4 mm, centroids within 0.5 mm."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CoordinateError, UsageError
from nodule_diag.exchange import open_positions, read_positions

POINTS = (
    *("lps.csv", "comma.csv", "list.json", "lines.jsonl", "lps.mrk.json", "ras.mrk.json", "new.fcsv", "old.fcsv"),
    *("luna16.csv", "luna25.csv", "challenge.json", "sr point", "sr pixel", "sr circle", "sr ellipsoid"),
)
CENTROIDS = (
    *("rtstruct", "seg binary", "seg fractional", "seg label map", "seg fractional rle", "seg label map rle"),
    *("sr polygon", "sr outlines", "sr segment", "sr segment frame", "chest cad"),
)
STATED = {
    "lps.csv": None,
    "comma.csv": None,
    "list.json": None,
    "ras.mrk.json": "ras",
    "old.fcsv": "ras",
}
"""The frame that a file states; LPS where it is not listed."""
NAMES = {"lps.csv": ["n0", "n1"], "luna25.csv": ["1_0_19990102", "1_1_19990102"], "challenge.json": ["1_0", "1_1"]}


def test_every_file_is_compared(straight):
    assert sorted(straight.files) == sorted([*POINTS, *CENTROIDS])


@pytest.mark.parametrize("name", [*POINTS, *CENTROIDS])
def test_the_same_position(every, name):
    found = read_positions(every.files[name], ct=every.ct)
    assert len(found) == 3 if name == "rtstruct" else 2
    within = 1e-4 if name in POINTS else 0.5
    for position, expected in zip(found, (every.marked.xyz, every.marked.other), strict=False):
        assert np.abs(np.subtract(position.xyz_lps_mm, expected)).max() <= within


def test_a_point_of_an_rtstruct(every):
    *_, point = read_positions(every.files["rtstruct"], ct=every.ct)
    assert (point.id, point.xyz_lps_mm) == ("click", pytest.approx(every.marked.xyz, abs=1e-4))


@pytest.mark.parametrize("name", [*POINTS, *CENTROIDS])
def test_what_a_file_states(straight, name):
    file = open_positions(straight.files[name])
    assert file.space == STATED.get(name, "lps")
    ids = [position.id for position in file.on(straight.ct)][:2]
    if name in CENTROIDS and name != "chest cad":
        assert ids == ["left", "right"]
    elif name in NAMES:
        assert ids == NAMES[name]
    assert {position.id for position in file.on(straight.ct)} <= set(file.possible_ids())


@pytest.mark.parametrize("name", [*POINTS, *CENTROIDS])
def test_the_name_of_a_file_does_not_matter(straight, name, tmp_path):
    """But for the pair of SR and SEG, which must lie together, and JSON Lines, which begin as any JSON."""
    if name.startswith("sr segment") or name == "lines.jsonl":
        pytest.skip("needs its name")
    copied = shutil.copy(straight.files[name], tmp_path / "positions")
    assert [position.xyz_lps_mm for position in read_positions(copied, ct=straight.ct)] == [
        position.xyz_lps_mm for position in read_positions(straight.files[name], ct=straight.ct)
    ]


@pytest.mark.parametrize("name", ["seg binary", "rtstruct", "sr point", "sr segment"])
def test_another_frame_of_reference_is_refused(straight, name):
    other = _with(straight.ct, frame_of_reference_uid="1.2.3")
    with pytest.raises(CoordinateError) as caught:
        read_positions(straight.files[name], ct=other)
    assert (caught.value.code, caught.value.exit_code) == ("coordinate-other-frame", 3)
    assert straight.marked.frame in str(caught.value)
    assert "1.2.3" in str(caught.value)


@pytest.mark.parametrize("name", ["seg binary", "rtstruct", "sr point", "sr segment"])
def test_a_ct_without_a_frame_of_reference_takes_them(straight, name):
    assert read_positions(straight.files[name], ct=_without_dicom(straight.ct))
    assert read_positions(straight.files[name])
    assert read_positions(straight.files[name], ct=_with(straight.ct, frame_of_reference_uid=""))


@pytest.mark.parametrize("name", ["sr pixel", "sr outlines", "chest cad"])
def test_graphics_on_images_need_the_series(straight, name):
    for ct in (None, _without_dicom(straight.ct)):
        with pytest.raises(UsageError, match="is drawn on DICOM images"):
            read_positions(straight.files[name], ct=ct)
    with pytest.raises(CoordinateError, match="which is not a slice of the CT") as caught:
        read_positions(straight.files[name], ct=_with(straight.ct, slices=straight.ct.dicom.slices[:2]))
    assert caught.value.code == "coordinate-other-series"


def test_graphics_on_frames_of_one_image(straight, tmp_path):
    """An Enhanced CT is one file: its slices are told apart by their frames."""
    slices = straight.ct.dicom.slices
    framed = [replace(one, sop_uid="1.2.3", frame=number) for number, one in enumerate(slices, start=1)]
    data = pydicom.dcmread(straight.files["sr pixel"])
    for element in data.iterall():
        if element.keyword == "ReferencedSOPSequence":
            names = [one.sop_uid for one in slices]
            for reference in element.value:
                reference.ReferencedFrameNumber = names.index(reference.ReferencedSOPInstanceUID) + 1
                reference.ReferencedSOPInstanceUID = "1.2.3"
    data.save_as(tmp_path / "sr.dcm")
    found = read_positions(tmp_path / "sr.dcm", ct=_with(straight.ct, slices=tuple(framed)))
    assert found[0].xyz_lps_mm == pytest.approx(straight.marked.xyz, abs=1e-4)
    assert found[1].xyz_lps_mm == pytest.approx(straight.marked.other, abs=1e-4)
    with pytest.raises(CoordinateError, match=r"frame 10 of image 1\.2\.3, which is not a slice"):
        read_positions(tmp_path / "sr.dcm", ct=_with(straight.ct, slices=tuple(framed[:5])))


def test_another_space_is_refused(straight):
    for name in (*POINTS, *CENTROIDS):
        stated = STATED.get(name, "lps")
        for space in ("lps", "ras", "voxel"):
            if stated in (None, space):
                assert open_positions(straight.files[name]).on(straight.ct, space=space)
            else:
                with pytest.raises(UsageError, match=rf"{stated.upper()} mm, not {space}"):
                    open_positions(straight.files[name]).on(straight.ct, space=space)


def test_what_was_passed_over_is_said(straight):
    assert open_positions(straight.files["chest cad"]).warnings == (
        "finding 3 is not for presentation and was passed over",
    )


def test_pydicom_is_enough(straight, monkeypatch):
    """Only the test's maker needs highdicom."""
    monkeypatch.setitem(sys.modules, "highdicom", None)
    for name in CENTROIDS:
        assert open_positions(straight.files[name]).marks


def _with(ct: CTVolume, **changes) -> CTVolume:
    return replace(ct, dicom=replace(ct.dicom, **changes))


def _without_dicom(ct: CTVolume) -> CTVolume:
    return replace(ct, dicom=None, path="1.2.826.0.1.3680043.8.498.1.nii.gz")
