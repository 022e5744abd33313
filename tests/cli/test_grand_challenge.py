"""``grand-challenge`` as its container runs it; ``--nodules`` and ``--positions-out`` of ``predict``."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
import typer

from nodule_diag.ct.phantom import Phantom
from nodule_diag_cli.main import app

NAME = "lung-nodule-malginancy-likelihoods.json"


def make_job(folder: Path, ct: Path, *points: tuple[float, ...]) -> Path:
    images = folder / "input" / "images" / "chest-ct"
    images.mkdir(parents=True)
    sitk.WriteImage(sitk.ReadImage(str(ct)), str(images / "1.2.3.mha"), useCompression=True)
    entries = [{"name": f"9_{n}_19990102", "point": list(point)} for n, point in enumerate(points, start=1)]
    document = {"name": "Points of interest", "type": "Multiple points", "points": entries}
    (folder / "input" / "nodule-locations.json").write_text(json.dumps(document))
    (folder / "input" / "clinical-information-lung-ct.json").write_text("{}")
    (folder / "output").mkdir()
    return folder


def folders(job: Path) -> tuple[object, ...]:
    return "grand-challenge", "--input", job / "input", "--output", job / "output"


def test_phantom(command: Any, phantom: Phantom, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    places = [nodule.center_xyz_mm for nodule in phantom.nodules]
    job = make_job(tmp_path, phantom_ct, *places, (0.0, 0.0, 9999.0))
    ended = command(*folders(job), "--bundle", tiny_bundle)
    assert ended.code == 0, ended.err
    assert ended.err.startswith(f"warning: point {len(places) + 1}: point (0, 0, 9999) mm LPS is outside the CT")
    points = json.loads((job / "output" / NAME).read_text())["points"]
    *told, outside = [point["probability"] for point in points]
    assert outside == 0.5
    words = [word for place in places for word in ("--xyz", *place)]
    expected = command("predict", phantom_ct, *words, "--bundle", tiny_bundle, "--json").document["nodules"]
    assert told == pytest.approx([nodule["malignancy"] for nodule in expected], abs=1e-6)


def test_refused(command: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    ended = command("grand-challenge", "--input", tmp_path, "--output", tmp_path, "--bundle", tiny_bundle)
    assert ended.code == 2
    assert "nodule-locations.json" in ended.err
    assert command("grand-challenge", "--bundle", tmp_path).code == 4


def test_in_a_container_without_a_home(
    program: Any, phantom: Phantom, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Its input is read-only, there is no home, and nothing but the answer is written."""
    job = make_job(tmp_path / "job", phantom_ct, phantom.nodules[0].center_xyz_mm)
    for path in [*(job / "input").rglob("*"), job / "input"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(tmp_path.rglob("*"))
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR"), "/nonexistent")
    ended = program(*folders(job), "--bundle", tiny_bundle, **nowhere)
    assert ended.code == 0, ended.err
    assert sorted(tmp_path.rglob("*")) == sorted([*before, job / "output" / NAME])


@pytest.mark.real_data
@pytest.mark.slow
def test_a_real_ct(program: Any, data_root: Path, tmp_path: Path) -> None:
    """The adenocarcinoma of LIDC-IDRI-0314 by the packaged model, and a point that fails."""
    point = (-56.94, 131.27, -520.6)
    ct = data_root / "ct" / "LIDC-IDRI-0314.nii.gz"
    job = make_job(tmp_path / "job", ct, point, (0.0, 0.0, 0.0))
    ended = program(*folders(job))
    assert ended.code == 0, ended.err
    document = json.loads((job / "output" / NAME).read_text())
    assert [(one["name"], one["point"]) for one in document["points"]] == [
        ("9_1_19990102", list(point)),
        ("9_2_19990102", [0.0, 0.0, 0.0]),
    ]
    told = program("predict", ct, "--xyz", *point, "--json").document["nodules"][0]["malignancy"]
    assert document["points"][0]["probability"] == pytest.approx(told, abs=1e-4)
    assert document["points"][1]["probability"] == 0.5
    assert "point 2" in ended.err


def test_the_dockerfile(repo_root: Path) -> None:
    """It is not root, needs no network to run, and calls the command with options that it has."""
    text = (repo_root / "examples" / "grand-challenge" / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^FROM --platform=linux/amd64 python:3\.\d+-slim", text, re.MULTILINE)
    (user,) = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert user not in ("0", "root")
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)
    program, name, *words = json.loads(entry)
    assert program == "nodule-diag"
    command = typer.main.get_command(app).commands[name]
    context = command.context_class(command, info_name=name)
    _, left, _ = command.make_parser(context).parse_args(words)
    assert left == []
    assert not re.search(r"^CMD", text, re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("RUN"):
            assert shlex.split(line[3:])


def test_slicer_and_back(command: Any, phantom: Phantom, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """A nodule clicked in 3D Slicer, its answer, and that answer asked again: one position."""
    x, y, z = phantom.nodules[0].center_xyz_mm
    control = {"label": "click", "position": [-x, -y, z], "positionStatus": "defined"}
    markup = {"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": [control]}
    path = tmp_path / "F.mrk.json"
    path.write_text(json.dumps({"markups": [markup]}))
    common = ("predict", phantom_ct, "--bundle", tiny_bundle, "--json")
    first = command(*common, "--nodules", path, "--positions-out", tmp_path / "out.mrk.json")
    (nodule,) = first.document["nodules"]
    assert nodule["id"] == "click"
    assert nodule["xyz_lps_mm"] == pytest.approx([x, y, z])
    again = command(*common, "--nodules", tmp_path / "out.mrk.json").document["nodules"]
    assert (again[0]["id"], again[0]["malignancy"]) == ("click", nodule["malignancy"])
    # Each of them states its frame: another one is a contradiction, the same is not.
    assert command(*common, "--nodules", path, "--space", "ras").document["nodules"] == first.document["nodules"]
    refused = command(*common, "--nodules", tmp_path / "out.mrk.json", "--space", "ras")
    assert (refused.code, refused.document["error"]["code"]) == (2, "usage")
    assert "LPS mm, not ras" in refused.document["error"]["message"]
    both = command(*common, "--xyz", -x, -y, z, "--nodules", tmp_path / "out.mrk.json", "--space", "ras").document
    assert [one["id"] for one in both["nodules"]] == ["1", "click"]
    assert both["nodules"][0]["xyz_lps_mm"] == pytest.approx(both["nodules"][1]["xyz_lps_mm"])


def test_positions_out(command: Any, phantom: Phantom, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    words = ("predict", phantom_ct, "--xyz", *phantom.nodules[0].center_xyz_mm, "--bundle", tiny_bundle)
    refused = command(*words, "--positions-out", tmp_path / "out.txt")
    assert refused.code == 2
    ended = command(*words, "--positions-out", tmp_path / "out.csv")
    assert ended.code == 0, ended.err
    assert f"Wrote {tmp_path / 'out.csv'}" in ended.out.replace("\n", "")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out.csv"]


def test_a_list_of_another_series(command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "annotations.csv"
    head = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    path.write_text(head + "1.3.6,0,0,0,5\nchest,-72,-18,-135,8\nchest,-84,38.5,-205,8\n")
    words = ("predict", phantom_ct, "--nodules", path, "--bundle", tiny_bundle, "--json", "--out", tmp_path / "out")
    ended = command(*words)
    assert ended.code == 0, ended.err
    assert [nodule["id"] for nodule in ended.document["nodules"]] == ["1", "2"]
    assert len(list((tmp_path / "out").glob("cam_2*.nii.gz"))) == 1
    path.write_text(head + "1.3.6,0,0,0,5\n")
    refused = command(*words)
    assert (refused.code, refused.document["error"]["code"]) == (3, "coordinate-other-series")
