"""``nodule-diag cases`` and ``predict --cases``."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from bundle_factory import make_tiny_bundle, tiny_base, tiny_cases, tiny_model
from case_tables import phantom_table
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.cases import judging
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


def hospital(tmp_path: Path, count: int = 20) -> Path:
    (tmp_path / "cts").mkdir()
    return phantom_table(tmp_path / "cts", count)


def test_twenty_phantoms_from_table_to_evaluation(command: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    table, out = hospital(tmp_path), tmp_path / "h.sqlite"
    lines = table.read_text().splitlines()
    broken = [*lines, "bad,p99,1,biopsy,60,absent.nii,0,0,0", "far,p00,1,biopsy,60,ct00.nii,0,0,9000"]
    table.write_text("\n".join(broken) + "\n")
    built = command(
        "cases", "build", table, "--out", out, "--bundle", tiny_bundle, "--column", "age", "--pictures", "--json"
    )
    document = built.document
    assert (document["count"], document["added"], document["there"], document["malignant"]) == (40, 40, 0, 20)
    assert {one["case_id"]: one["code"] for one in document["failed"]} == {
        "bad": "ct-missing-path", "far": "coordinate-outside"
    }  # fmt: skip
    base = CaseBase.open(out)
    pictures = [base.pictures(case.case_id)["axial"] for case in base]
    assert max(map(len, pictures)) < 60_000
    assert {int.from_bytes(picture[at : at + 4]) for picture in pictures for at in (16, 20)} == {192}
    assert command("cases", "verify", out, "--bundle", tiny_bundle).code == 0

    evaluated = command("cases", "evaluate", out, "--json").document
    assert [row["method"] for row in evaluated["rows"] if row["form"] == "plain"] == [
        "malignancy", "machine", "expert", "machine+expert"
    ]  # fmt: skip
    assert (evaluated["patients"], evaluated["base_rate"], evaluated["k"]) == (20, 0.5, 20)
    shown = command("cases", "evaluate", out, "--where", "age < 60", "--k", 3)
    assert shown.code == 0
    assert "20 cases of 10 patients" in shown.out
    assert all(len(line) <= 80 for line in shown.out.splitlines())

    listed = command("cases", "list", out, "--where", "age >= 60 and label = 1", "--json").document
    assert [case["case_id"] for case in listed["cases"]] == [
        case.case_id for case in base if case.columns["age"] >= 60 and case.label == 1
    ]
    shown = command("cases", "list", out, "--limit", 3)
    assert "40 cases, 20 malignant; the first 3 are shown" in shown.out
    assert ("n01-0" in shown.out, "n01-1" in shown.out) == (True, False)
    assert "age 50" in shown.out


def test_predict_where(command: Any, phantom: Phantom, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Base rate, counts and retrieval are of the cases that match alone."""
    cases = [
        case.model_copy(update={"columns": {"age": 40 + number, "sex": "FM"[number % 2]}})
        for number, case in enumerate(tiny_cases())
    ]
    tiny_base(cases, model_sha256=Bundle.open(tiny_bundle).model_sha256).save(tmp_path / "c.sqlite")
    arguments = ("predict", phantom_ct, "--xyz", *point(phantom), "--bundle", tiny_bundle, "--cases")
    where = "age > 60 and sex = 'F'"
    kept = [case for case in cases if case.columns["age"] > 60 and case.columns["sex"] == "F"]  # type: ignore[operator]
    document = command(*arguments, tmp_path / "c.sqlite", "--where", where, "--json").document
    malignant = sum(case.label for case in kept)
    whole = CaseBase.open(tmp_path / "c.sqlite").sha256
    assert document["cases"] == {
        "name": "tiny cases", "sha256": whole, "count": len(kept), "malignant": malignant, "where": where
    }  # fmt: skip
    (nodule,) = document["nodules"]
    assert nodule["base_rate"] == malignant / len(kept)
    assert nodule["retrieval"]["cases"] == len(kept)
    for space, similar in nodule["similar"].items():
        assert {case["case_id"] for case in similar} <= {case.case_id for case in kept}
        m, b = (sum(case["label"] == label for case in similar) for label in (1, 0))
        assert nodule["diagnosis"][space] == m / len(similar)
        balanced = (m / malignant) / (m / malignant + b / (len(kept) - malignant))
        assert abs(nodule["diagnosis_balanced"][space] - balanced) < 1e-12
    assert (
        f"{len(kept)} of tiny cases where {where}" in command(*arguments, tmp_path / "c.sqlite", "--where", where).out
    )
    redacted = command(*arguments, tmp_path / "c.sqlite", "--where", "sex = 'F'", "--redact", "--json").document
    assert redacted["cases"]["where"] == "sex = [redacted]"
    for text, code, words in (
        ("weight > 60", "where", "weight"), ("age >", "where", "age >"),
        ("age > 900", "where-matches-none", "age > 900"),
    ):  # fmt: skip
        ended = command(*arguments, tmp_path / "c.sqlite", "--where", text, "--json")
        assert (ended.code, ended.document["error"]["code"]) == (2, code)
        assert words in ended.document["error"]["message"]
    own = command(*arguments[:-1], "--where", "label = 1", "--json").document
    assert own["cases"]["count"] == own["cases"]["malignant"] == sum(case.label for case in tiny_cases())
    assert own["nodules"][0]["diagnosis_balanced"]["machine"] is None


def test_add_and_remove(command: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    table, out = hospital(tmp_path, 3), tmp_path / "h.sqlite"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:3]) + "\n")
    common = ("--bundle", tiny_bundle, "--column", "age")
    assert command("cases", "build", table, "--out", out, *common).code == 0
    table.write_text("\n".join(lines) + "\n")
    added = command("cases", "add", out, table, *common, "--json").document
    assert (added["added"], added["there"], added["count"]) == (4, 2, 6)
    again = command("cases", "add", out, table, *common, "--json").document
    assert (again["added"], again["there"]) == (0, 6)
    command("cases", "build", table, "--out", tmp_path / "whole.sqlite", "--name", "table", *common)
    whole = CaseBase.open(tmp_path / "whole.sqlite")
    assert CaseBase.open(out).digest() == whole.digest()

    table.write_text("\n".join([lines[0], lines[1].replace(",biopsy,", ",follow-up,")]) + "\n")
    ended = command("cases", "add", out, table, *common, "--json")
    assert (ended.code, ended.document["error"]["code"]) == (2, "case-table")
    assert "'n00-0' is there with another label_source" in ended.document["error"]["message"]

    assert b"p02" in out.read_bytes()
    removed = command("cases", "remove", out, "n00-1", "--patient", "p02")
    assert removed.code == 0, removed.err
    assert [case.case_id for case in CaseBase.open(out)] == ["n00-0", "n01-0", "n01-1"]
    assert b"p02" not in out.read_bytes(), "what is removed is gone from the file"
    for words in (("n01-0", "absent"), ("n01-0", "--patient", "p02"), ()):
        assert command("cases", "remove", out, *words).code == 2
    assert len(CaseBase.open(out)) == 3


def test_rebuild_for_another_model(command: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    table, old, new = hospital(tmp_path, 2), tmp_path / "old.sqlite", tmp_path / "new.sqlite"
    assert command("cases", "build", table, "--out", old, "--bundle", tiny_bundle, "--column", "age").code == 0
    other = make_tiny_bundle(tmp_path / "other", model=tiny_model(input_shape=("N", 2, 64, 64, 64)))
    for words in (("add", old, table), ("verify", old)):
        refused = command("cases", *words, "--bundle", other.path, "--json")
        assert refused.code == 4
    rebuilt = command("cases", "rebuild", old, table, "--out", new, "--bundle", other.path)
    assert rebuilt.code == 0, rebuilt.err
    before, after = CaseBase.open(old), CaseBase.open(new).of_model(other)
    assert list(before) == list(after)  # the same network by another hash
    assert after.name == before.name
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    ended = command("cases", "rebuild", old, table, "--out", tmp_path / "x.sqlite", "--json")
    assert (ended.code, ended.document["error"]["code"]) == (2, "case-table")
    assert "n01-1" in ended.document["error"]["message"]


def test_identity_is_refused_and_pseudonyms_are_made(command: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "t.csv", tmp_path / "h.sqlite"
    head = "case_id,patient,label,malignancy,expert_score,name"
    table.write_text(f"{head}\na,DOE^JANE,1,0.5,3,Jane\nb,DOE^JANE,0,0.5,3,Jane\n")
    common = ("cases", "build", table, "--out", out, "--bundle", tiny_bundle)
    for more in ((), ("--patient-key", tmp_path / "key", "--column", "name")):
        ended = command(*common, *more, "--json")
        assert (ended.code, ended.document["error"]["code"]) == (2, "case-identity")
        assert "JANE" not in ended.out.upper().replace("'NAME'", "")
        assert not out.exists()
    assert command(*common, "--patient-key", tmp_path / "key").code == 0
    first, second = CaseBase.open(out)
    assert first.patient_id == second.patient_id
    assert len(first.patient_id) == 32
    assert b"DOE" not in out.read_bytes()
    out.unlink()
    insisted = ("--allow-identity", "patient", "--allow-identity", "name", "--column", "name")
    assert command(*common, *insisted).code == 0
    assert next(iter(CaseBase.open(out))).columns == {"name": "Jane"}


def test_who_is_interrupted_is_told_how_to_go_on(
    command: Any, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = hospital(tmp_path, 3), tmp_path / "h.sqlite"
    common = ("cases", "build", table, "--out", out, "--bundle", tiny_bundle)
    read = judging.read_ct

    def interrupted(path: Path) -> object:
        if path.name == "ct02.nii":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(judging, "read_ct", interrupted)
    ended = command(*common)
    assert ended.code == 130
    assert "the same command goes on from there" in ended.err
    assert not out.exists()
    monkeypatch.undo()
    document = command(*common, "--json").document
    assert (document["added"], document["there"]) == (2, 4)


ADD = "import sys; sys.argv[0] = 'nodule-diag'; from nodule_diag_cli.main import main; main()"


def test_two_writers(tiny_bundle: Path, tmp_path: Path) -> None:
    """Two programs add at once: one waits for the other, and all cases are there."""
    table, out = hospital(tmp_path, 6), tmp_path / "h.sqlite"
    head, *lines = table.read_text().splitlines()
    CaseBase.create(out, name="h", model_sha256=Bundle.open(tiny_bundle).model_sha256).close()
    programs = []
    for number in (0, 1):
        part = table.with_name(f"part{number}.csv")
        part.write_text("\n".join([head, *lines[number * 6 : number * 6 + 6]]) + "\n")
        words = ("cases", "add", str(out), str(part), "--bundle", str(tiny_bundle), "--json")
        programs.append(subprocess.Popen([sys.executable, "-c", ADD, *words], stdout=subprocess.PIPE))
    told = [json.loads(program.communicate()[0]) for program in programs]
    assert [document["added"] for document in told] == [6, 6]
    base = CaseBase.open(out)
    base.verify()
    assert len(base) == 12


def test_the_commands_of_the_page(
    command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/case-base.md: its table and its commands, in their order."""
    page = (Path(__file__).parents[2] / "docs" / "case-base.md").read_text(encoding="utf-8")
    blocks = page.partition("## Build a case base of your own")[2].partition("\n## ")[0].split("```")[1::2]
    (table,) = (block for block in blocks if block.lstrip().startswith("case_id"))
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("nodule-diag ")]
    assert {line.split()[2] for line in lines if line.split()[1] == "cases"} == {
        "build", "add", "remove", "list", "info", "verify", "rebuild", "evaluate"
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("cts").mkdir()
    for name in ("cts/a.nii.gz", "cts/b.nii.gz", "scan.nii"):
        sitk.WriteImage(sitk.ReadImage(phantom_ct), name)
    make_tiny_bundle(tmp_path / "NEW", model=tiny_model(input_shape=("N", 2, 64, 64, 64)))
    monkeypatch.setattr(Bundle, "default", classmethod(lambda cls: cls.open(tiny_bundle)))
    Path("hospital.csv").write_text(table.strip() + "\n")
    for line in lines:
        if " add " in line:
            Path("hospital.csv").write_text(table.strip() + "\nC-1,q1w8,benign,biopsy,70,F,cts/b.nii.gz,30,0,-100\n")
        ended = command(*shlex.split(line)[1:])
        assert ended.code == 0, (line, ended.err)
    assert [case.case_id for case in CaseBase.open("new.sqlite")] == ["B-1", "C-1"]
