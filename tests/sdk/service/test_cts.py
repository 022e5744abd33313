"""CTs that are sent, named and held: the same volume as from a disk, and pictures that show it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

import ct_files as make
from nodule_diag.ct.reading import read_ct
from nodule_diag.service.uploads import Received

NAMES = ("scan.nii", "scan.nii.gz", "scan.mha", "scan.mhd", "scan.nrrd", "scan.nhdr", "series.zip", "series")


def written(name: str, folder: Path) -> list[Path]:
    """A made-up CT in one of the formats, and all its files."""
    if name.startswith("series"):
        series = make.save_series(folder / "series", make.dicom_slices())
        return [make.zipped(series, folder / name)] if name.endswith(".zip") else sorted(series.iterdir())
    make.write(folder / name)
    return sorted(folder.iterdir(), key=lambda path: path.name != name)


@pytest.mark.parametrize("name", NAMES)
def test_every_format_as_an_upload(name, running, tmp_path):
    files = written(name, tmp_path)
    parts = [("file", (path.name, path.read_bytes())) for path in files]
    answer = running.client.post("/v1/cts", files=parts)
    assert answer.status_code == 201, answer.text
    document = answer.json()
    assert answer.headers["location"] == f"/v1/cts/{document['id']}"
    held = running.service.store.get(document["id"]).read.ct
    wanted = read_ct(files[0].parent if name == "series" else files[0])
    np.testing.assert_array_equal(held.hu, wanted.hu)
    assert held.direction.tolist() == wanted.direction.tolist()
    assert document["size_xyz"] == [28, 32, 12]
    np.testing.assert_allclose(document["spacing_xyz_mm"], make.SPACING_XYZ, atol=1e-6)
    np.testing.assert_allclose(document["origin_lps_mm"], make.ORIGIN_XYZ, atol=1e-5)
    assert document["axes"] == np.eye(3).tolist()
    assert (document["orientation"], document["warnings"], document["suggested"]) == ("LPS", [], [])
    assert document["name"] == files[0].name
    assert 0 < document["expires_s"] <= 1800
    assert running.client.get(f"/v1/cts/{document['id']}").json()["id"] == document["id"]


def test_a_raw_body_says_its_name_in_a_header(running, scan):
    for name in ('filename="scan.nii.gz"', "filename*=UTF-8''scan.nii.gz"):
        headers = {"Content-Disposition": f"attachment; {name}", "Content-Type": "application/octet-stream"}
        answer = running.client.post("/v1/cts", content=scan.read_bytes(), headers=headers)
        assert answer.status_code == 201, answer.text
        assert answer.json()["name"] == "scan.nii.gz"
    answer = running.client.post("/v1/cts", content=scan.read_bytes())
    assert (answer.status_code, answer.json()["code"]) == (400, "body-unnamed")


def test_a_form_larger_than_what_others_spool(running, tmp_path):
    """Sent in many chunks, and with every byte value in it."""
    hu = make.chest_hu((40, 200, 200))
    path = make.write(tmp_path / "large.nii", make.image(hu))
    document = running.add(path)
    np.testing.assert_array_equal(running.service.store.get(document["id"]).read.ct.hu, hu)


def test_slices_of_two_folders_with_one_name_are_both_taken(running, tmp_path):
    slices = make.dicom_slices()
    for half, part in enumerate((slices[::2], slices[1::2])):
        make.save_series(tmp_path / str(half), part)
    parts = [("file", (path.name, path.read_bytes())) for path in sorted(tmp_path.rglob("*.dcm"))]
    answer = running.client.post("/v1/cts", files=parts)
    assert answer.status_code == 201, answer.text
    assert answer.json()["size_xyz"] == [28, 32, 12]


def test_a_name_with_a_number_in_front_may_be_taken_too():
    received = Received()
    for name in ("IM1", "3-IM1", "IM1", "3-IM1"):
        received.add_file(name, name.encode())
    assert list(received.files.values()) == [b"IM1", b"3-IM1", b"IM1", b"3-IM1"]


def test_a_series_of_several_is_chosen_by_the_query(running, tmp_path):
    for number in (1, 2):
        make.save_series(tmp_path / "both" / str(number), make.dicom_slices(make.chest_hu(seed=number), series=number))
    archive = make.zipped(tmp_path / "both", tmp_path / "both.zip")
    several = running.client.post("/v1/cts", files={"file": ("both.zip", archive.read_bytes())})
    assert (several.status_code, several.json()["code"]) == (422, "ct-several-series")
    document = running.add(archive, series=f"{make.UID_ROOT}.2")
    np.testing.assert_array_equal(running.service.store.get(document["id"]).read.ct.hu, make.chest_hu(seed=2))


def test_a_path_below_the_root(start, scan, series, tmp_path):
    running = start(root=scan.parent)
    answer = running.client.post("/v1/cts", json={"path": scan.name})
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == scan.name
    np.testing.assert_array_equal(running.service.store.get(answer.json()["id"]).read.ct.hu, read_ct(scan).hu)
    missing = running.client.post("/v1/cts", json={"path": "none.nii"})
    assert (missing.status_code, missing.json()["code"]) == (404, "ct-missing-path")
    assert str(scan.parent) not in missing.text


def test_deleted_and_unknown(running, scan):
    document = running.add(scan)
    place = f"/v1/cts/{document['id']}"
    assert document["id"] in {one["id"] for one in running.client.get("/v1/cts").json()["cts"]}
    assert running.client.delete(place).status_code == 204
    for answer in (running.client.get(place), running.client.delete(place), running.ask(document["id"])):
        assert (answer.status_code, answer.json()["code"]) == (404, "ct-expired-or-unknown")
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_slice_shows_the_hu_the_way_radiologists_look(plane, running, scan):
    images = pytest.importorskip("PIL.Image")
    document = running.add(scan)
    hu = read_ct(scan).hu.astype(float)
    index = 7
    wanted = {"axial": hu[index], "coronal": hu[::-1, index], "sagittal": hu[::-1, :, index]}[plane]
    place = f"/v1/cts/{document['id']}/slices/{plane}/{index}.png"
    answer = running.client.get(place, params={"center": 40, "width": 400})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "private, max-age=3600"
    grey = np.asarray(images.open(io.BytesIO(answer.content)))
    np.testing.assert_allclose(grey, np.clip((wanted + 160) / 400 * 255, 0, 255), atol=0.51)
    again = running.client.get(
        place, params={"center": 40, "width": 400}, headers={"If-None-Match": answer.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("place", "status", "code"),
    [
        ("axial/12.png", 400, "slice-outside"),
        ("axial/-1.png", 400, "slice-outside"),
        ("oblique/1.png", 400, "request-invalid"),
        ("axial/x.png", 400, "request-invalid"),
        ("axial/1.png?width=0", 400, "window"),
        ("axial/1.png?center=nan", 400, "window"),
        ("axial/1.jpg", 404, "no-such-route"),
    ],
)
def test_slices_that_there_are_not(place, status, code, running, scan):
    document = running.add(scan)
    answer = running.client.get(f"/v1/cts/{document['id']}/slices/{place}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
