"""``demo``: offline, without data, through the same path as a patient's CT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nodule_diag.ct.phantom import Phantom


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch, phantom: Phantom) -> None:
    """The coarse phantom, made once."""
    monkeypatch.setattr("nodule_diag.ct.phantom.chest_phantom", lambda: phantom)


def test_json(command: Any, repo_root: Path, tiny_bundle: Path, phantom: Phantom) -> None:
    ended = command("demo", "--json", "--bundle", tiny_bundle)
    assert ended.code == 0, ended.out
    schema = json.loads((repo_root / "docs" / "prediction.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(ended.document)
    found, known = ended.document["nodules"], ended.document["phantom"]["nodules"]
    assert [nodule["id"] for nodule in found] == [nodule["id"] for nodule in known]
    assert all(nodule["in_lung"] for nodule in found), "juxta-pleural ones too"
    for one, other in zip(found, known, strict=True):
        assert one["xyz_lps_mm"] == pytest.approx(other["center_xyz_lps_mm"])
    assert ended.document["ct"]["path"] == "<phantom>", "it is never a file"


def test_text_and_files(command: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    ended = command("demo", "--out", tmp_path / "demo", "--bundle", tiny_bundle)
    assert ended.code == 0, ended.err
    assert "known mm" in ended.out
    assert "juxta-pleural" in ended.out
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    nodules = json.loads((tmp_path / "demo" / "prediction.json").read_text())["nodules"]
    maps = {name for nodule in nodules for name in nodule["maps"].values()}
    assert names == {"phantom.nii", "prediction.json", *maps}
    assert len(maps) == 6
