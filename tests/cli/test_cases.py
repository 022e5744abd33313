"""``nodule-diag cases`` and ``predict --cases``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bundle_factory import make_tiny_bundle, tiny_base, tiny_cases, tiny_model
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.cases.base import CaseBase
from nodule_diag.ct.phantom import Phantom


def point(phantom: Phantom) -> list[str]:
    return [str(value) for value in phantom.nodules[0].center_xyz_mm]


def test_from_a_table_of_places_to_a_prediction(
    command: Any, phantom: Phantom, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    table, out = tmp_path / "hospital.csv", tmp_path / "hospital.sqlite"
    rows = [
        f"n{number},p{number},benign,{phantom_ct},{','.join(map(str, nodule.center_xyz_mm))},{60 + number}"
        for number, nodule in enumerate(phantom.nodules)
    ]
    table.write_text("\n".join(["case_id,patient,label,path,x,y,z,age", *rows]))
    built = command(
        "cases", "build", table, "--out", out, "--bundle", tiny_bundle, "--device", "cpu", "--column", "age"
    )
    assert built.code == 0, built.err
    assert f"{len(rows)} cases, 0 malignant" in " ".join(built.out.split())
    assert [case.columns for case in CaseBase.open(out)] == [{"age": 60 + n} for n in range(len(rows))]

    shown = command("cases", "info", out, "--json").document
    assert (shown["schema"], shown["name"], shown["count"]) == ("nodule-diag/cases/1", "hospital", len(rows))
    assert (shown["base_rate"], shown["columns"]) == (0.0, ["age"])
    assert shown["model_sha256"] == Bundle.open(tiny_bundle).model_sha256
    told = command("cases", "info", out)
    assert told.code == 0
    assert shown["digest"] in "".join(told.out.split())

    arguments = ("predict", phantom_ct, "--xyz", *point(phantom), "--bundle", tiny_bundle, "--device", "cpu", "--json")
    document = command(*arguments, "--cases", out).document
    assert document["cases"] == {
        "name": "hospital", "sha256": shown["sha256"], "count": len(rows), "malignant": 0, "where": None,
    }  # fmt: skip
    assert document["nodules"][0]["similar"]["machine+expert"][0]["case_id"] == "n0"
    assert command(*arguments).document["cases"]["name"] == "tiny cases"


def test_the_bundles_own(command: Any, tiny_bundle: Path) -> None:
    shown = command("cases", "info", "--bundle", tiny_bundle, "--json").document
    assert (shown["count"], shown["patients"], shown["diagnosed_themselves"]) == (60, 30, 60)
    assert shown["sha256"] == Bundle.open(tiny_bundle).manifest.files["index/cases.sqlite"]
    both = command("cases", "info", "x.sqlite", "--bundle", tiny_bundle)
    assert both.code == 2


def test_what_is_refused(command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    for arguments in (("cases", "info", tmp_path / "absent"), ("predict", "x", "--xyz", 0, 0, 0, "--cases", "absent")):
        ended = command(*arguments, "--json")
        assert (ended.code, ended.document["error"]["code"]) == (4, "case-base-missing")
    other = make_tiny_bundle(tmp_path / "other", model=tiny_model(nan=True))
    CaseBase.of_bundle(other).save(tmp_path / "other.sqlite")
    ended = command(
        "predict", phantom_ct, "--xyz", 0, 0, 0, "--bundle", tiny_bundle, "--cases", tmp_path / "other.sqlite", "--json"
    )
    assert (ended.code, ended.document["error"]["code"]) == (4, "case-base-other-model")
    table = tmp_path / "t.json"
    table.write_text(json.dumps([{"case_id": "a"}]))
    ended = command("cases", "build", table, "--out", tmp_path / "new.sqlite", "--json")
    assert ended.code == 2
    assert not (tmp_path / "new.sqlite").exists()


def test_nothing_is_overwritten_and_no_half_is_left(command: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "old.sqlite"
    tiny_base().save(out)
    before = out.read_bytes()
    table = tmp_path / "t.json"
    table.write_text(json.dumps([case.model_dump(mode="json") for case in tiny_cases(3)]))
    assert command("cases", "build", table, "--out", out, "--bundle", tiny_bundle).code == 2
    assert out.read_bytes() == before
    broken = tmp_path / "b.csv"
    broken.write_text("case_id,patient,label,path,x,y,z\na,p,1,absent.nii,0,0,0\n")
    ended = command("cases", "build", broken, "--out", tmp_path / "new.sqlite", "--bundle", tiny_bundle)
    assert ended.code == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.csv", "old.sqlite", "t.json"]
