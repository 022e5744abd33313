"""The case base: whose patches, in which order, with which labels, and how it replaces another."""

from __future__ import annotations

import hashlib
import json
from itertools import product

import numpy as np
import pytest
from typer.testing import CliRunner

from bundle_factory import tiny_base, tiny_cases
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.errors import BundleError, CaseBaseError, UsageError
from nodule_diag_export.bundle.case_base import open_any, read_cases, replace_case_base
from nodule_diag_export.bundle.index import cases_of
from nodule_diag_export.bundle.model_card import CaseCounts
from nodule_diag_export.cli import app
from nodule_diag_export.errors import ExportError
from nodule_diag_export.parity.backends import record_parity
from nodule_diag_export.parity.onnx import random_patches
from nodule_diag_export.parity.real_patches import diagnosed_nodules, diagnosed_patches
from nodule_diag_training.data.lidc import diagnosed as lidc
from nodule_diag_training.data.lidc.diagnosed import load_nodules
from nodule_diag_training.data.training_data import TrainingData


class Brightness:
    """A network whose answer is the mean of the patch."""

    def run(self, patches: np.ndarray) -> dict[str, np.ndarray]:
        mean = patches.mean(axis=(1, 2, 3, 4))
        return {"malignancy": mean, "expert_score": 1.0 + 4.0 * mean}


@pytest.mark.usefixtures("diagnosed")
def test_the_cases_are_the_diagnosed_vois_in_the_order_of_their_ids(tiny_lidc):
    entries = list(diagnosed_patches(TrainingData.of(tiny_lidc)))
    assert [entry.nodule.case_id for entry in entries] == ["P0_R_1", "P1_R_1", "P2_R_1"]
    assert [entry.sure.malignant for entry in entries] == [1, 0, 1]
    assert all(entry.patch.shape == (2, 64, 64, 64) and entry.patch.dtype == np.float32 for entry in entries)
    assert all(np.isfinite(entry.patch).all() for entry in entries)


@pytest.mark.usefixtures("diagnosed")
def test_a_nodule_that_is_a_cube_too_is_seen_with_its_own_surroundings(tiny_lidc):
    entries = list(diagnosed_patches(TrainingData.of(tiny_lidc)))
    assert [entry.from_cube for entry in entries] == [True, False, False]
    with np.load(tiny_lidc / "lidc_cubes" / "cube0.npz") as cube:
        lung = (np.clip(cube["hu"], -1000, 400) + 1000.0) / 1400.0
    # The cube's voxels lie on every other one of the patch's. Its centre falls between two of them, so the patch starts
    # at 9 mm or at 9.5 mm along each axis.
    gaps = []
    for z, y, x in product((0, 1), repeat=3):
        seen = entries[0].patch[0, z::2, y::2, x::2]
        gaps.append(np.abs(seen - lung[9 + z : 41 + z, 9 + y : 41 + y, 9 + x : 41 + x]).max())
    assert min(gaps) < 1e-3  # training keeps float16


@pytest.mark.usefixtures("diagnosed")
def test_the_patches_are_the_same_in_every_run_and_do_not_depend_on_the_other_nodules(tiny_lidc):
    first, second = (list(diagnosed_patches(TrainingData.of(tiny_lidc))) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.patch, b.patch)
    data = TrainingData.of(tiny_lidc)
    fewer = TrainingData([n for n in data.nodules if n.is_cube or n.case_id == second[1].nodule.case_id])
    (alone,) = (entry for entry in diagnosed_patches(fewer) if entry.nodule.case_id == second[1].nodule.case_id)
    np.testing.assert_array_equal(alone.patch, first[1].patch)


@pytest.mark.usefixtures("diagnosed")
def test_a_case_holds_the_networks_answer_and_what_is_known(tiny_lidc):
    entries = list(diagnosed_patches(TrainingData.of(tiny_lidc)))
    cases = cases_of(Brightness(), entries)
    assert [case.label_source for case in cases] == [
        "biopsy",
        "two years of stability on imaging",
        "surgical resection",
    ]
    assert [case.patient_id for case in cases] == ["P0", "P1", "P2"]
    assert cases[1].reader_scores == (2.0, 2.0, 3.0)
    assert [case.diameter_mm for case in cases] == [10.0, 12.0, 14.0]
    assert cases[2].malignancy == pytest.approx(float(entries[2].patch.mean()), abs=1e-6)
    assert {case.label_certainty for case in cases} == {"nodule"}
    base = CaseBase.of(cases, name="tiny", model_sha256=64 * "0")
    assert CaseCounts.of(base) == CaseCounts(cases=3, malignant=2, patients=3, certain=3, certain_malignant=2)


def test_without_any_diagnosis_there_is_no_case_base(tiny_lidc, monkeypatch):
    monkeypatch.setattr(lidc, "read_diagnoses", lambda _: {})
    with pytest.raises(ExportError, match="no nodule") as caught:
        list(diagnosed_patches(TrainingData.of(tiny_lidc)))
    assert caught.value.code == "index-no-cases"


@pytest.mark.real_data
def test_the_diagnosed_lidc_nodules_are_those_of_the_data_description(data_root):
    nodules = diagnosed_nodules(load_nodules(data_root))
    certain = [sure for _, sure in nodules if sure.certainty == "nodule"]
    assert (len(nodules), sum(sure.malignant for _, sure in nodules)) == (142, 113)
    assert (len(certain), sum(sure.malignant for sure in certain)) == (45, 29)


def test_the_command_says_that_auto_has_lost_its_figures(tiny_bundle, tmp_path):
    old = record_parity(Bundle.open(tiny_bundle), random_patches(2, seed=1), out=tmp_path / "old", threads=1)
    assert old.manifest.parity
    cases = tmp_path / "cases.sqlite"
    cases.write_bytes(old.read(old.manifest.retrieval.cases))
    for source, told in ((tmp_path / "old", True), (tmp_path / "new-True", False)):
        out = tmp_path / f"new-{told}"
        ended = CliRunner().invoke(app, ["cases", str(source), "--cases", str(cases), "--out", str(out)])
        assert ended.exit_code == 0, ended.output
        assert ("export parity" in ended.stderr) is told
    same = ["cases", str(tmp_path / "old"), "--cases", str(cases), "--same", "--out", str(tmp_path / "same")]
    assert CliRunner().invoke(app, same).exit_code == 0
    assert Bundle.open(tmp_path / "same").sha256 == old.sha256


def test_another_case_base_leaves_the_network_alone(tiny_bundle, tmp_path):
    """And no figures of what was retrieved from the old one."""
    old = Bundle.open(tiny_bundle)
    old = record_parity(old, random_patches(2, seed=1), out=tmp_path / "measured", threads=1)
    assert old.manifest.parity
    cases = tiny_cases(7, seed=3)
    mine = tiny_base(cases, model_sha256=old.model_sha256)
    new = replace_case_base(old, mine, out=tmp_path / "mine", source="our hospital", k=5)
    assert new.read("model.onnx") == old.read("model.onnx")
    assert new.manifest.preprocessing == old.manifest.preprocessing
    assert new.manifest.retrieval.k == 5
    assert new.manifest.parity == ()
    index = CaseIndex(new)
    assert [case.case_id for case in index.cases] == sorted(case.case_id for case in cases)
    assert index.base_rate == pytest.approx(np.mean([case.label for case in cases]))
    card = new.read("MODEL_CARD.md").decode()
    assert card.startswith("# Tiny")
    assert "7 nodules of 4 patients" in card
    nine = tiny_base(tiny_cases(9), model_sha256=old.model_sha256)
    again = replace_case_base(new, nine, out=tmp_path / "again.zip", source="another")
    assert again.read("MODEL_CARD.md").decode().count("## Case base of this copy") == 1
    assert "our hospital" not in again.read("MODEL_CARD.md").decode()
    assert len(CaseIndex(again)) == 9


def test_cases_of_another_model_are_refused(tiny_bundle, tmp_path):
    with pytest.raises(CaseBaseError, match="of the model with sha256 0000"):
        replace_case_base(Bundle.open(tiny_bundle), tiny_base(), out=tmp_path / "x", source="elsewhere")
    assert not (tmp_path / "x").exists()


def test_the_search_of_a_new_case_base_is_that_of_numpy(tiny_bundle, tmp_path):
    """Eq. 13."""
    cases = sorted(tiny_cases(40, seed=5), key=lambda case: case.case_id)
    points = np.array([[case.malignancy, (case.expert_score - 1.0) / 4.0] for case in cases], dtype=np.float32)
    opened = Bundle.open(tiny_bundle)
    base = tiny_base(cases, model_sha256=opened.model_sha256)
    new = replace_case_base(opened, base, out=tmp_path / "new", source="tests")
    query = np.array([0.5, 0.25], dtype=np.float32)
    distance = np.sqrt(((points.astype(np.float64) - query) ** 2).sum(axis=1))
    expected = [cases[i].case_id for i in np.lexsort((np.arange(40), distance))[:6]]
    found = CaseIndex(new).search("machine+expert", malignancy=0.5, expert_score=2.0, k=6)
    assert [case.case_id for case in found] == expected


def test_a_bundle_of_ones_own_cases(tiny_bundle, tmp_path):
    cases, out = tmp_path / "cases.json", tmp_path / "mine"
    entries = [case.model_dump(mode="json") for case in tiny_cases(4)]
    cases.write_text(json.dumps({"cases": entries}))
    built = CliRunner().invoke(
        app, ["cases", str(tiny_bundle), "--cases", str(cases), "--out", str(out), "--k", "3", "--name", "own"]
    )
    assert built.exit_code == 0, built.output
    assert "4 cases" in built.output
    opened = Bundle.open(out)
    assert opened.manifest.retrieval.k == 3
    assert (len(CaseIndex(opened)), CaseIndex(opened).identity.name) == (4, "own")


def as_first_schema(bundle, path):
    """What nodule-diag 0.1.0 would have written of the same bundle."""
    files = {name: bundle.read(name) for name in bundle.manifest.files if name != "index/cases.sqlite"}
    cases = [case.model_dump(mode="json", exclude={"columns"}) for case in CaseBase.of_bundle(bundle)]
    files["index/cases.json"] = json.dumps({"cases": cases}).encode()
    spaces = {}
    for space, dim in (("machine", 1), ("expert", 1), ("machine+expert", 2)):
        file = f"index/{space.replace('+', '_')}.hnsw"
        files[file] = space.encode()
        spaces[space] = {"file": file, "dim": dim}
    document = bundle.manifest.model_dump(mode="json")
    document |= {"schema_version": "nodule-diag/bundle/1", "threshold": 0.5}
    document["retrieval"] = {
        "k": 20,
        "cases": "index/cases.json",
        "spaces": spaces,
        "exact_up_to": 10,
        "base_rate": 0.5,
    }
    document["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    for name, data in {**files, "manifest.json": json.dumps(document).encode()}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def test_a_bundle_of_the_first_schema_becomes_one_of_this(tiny_bundle, tmp_path):
    new = Bundle.open(tiny_bundle)
    old = as_first_schema(new, tmp_path / "old")
    command = ["cases", str(old), "--cases", str(old / "index/cases.json"), "--same", "--name", "tiny cases"]
    ended = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "new")])
    assert ended.exit_code == 0, ended.output
    assert Bundle.open(tmp_path / "new").sha256 == new.sha256  # to the last byte
    (old / "model.onnx").write_bytes(b"exchanged")
    with pytest.raises(BundleError) as caught:
        open_any(old)
    assert caught.value.code == "bundle-hash-mismatch"
    document = json.loads((old / "manifest.json").read_text())
    for spoil in ({"retrieval": 3}, {"files": []}, {"model": {}}):
        (old / "manifest.json").write_text(json.dumps(document | spoil))
        with pytest.raises(BundleError, match=r"manifest\.json is invalid"):
            open_any(old)
    (old / "manifest.json").write_text(json.dumps(document | {"schema_version": "nodule-diag/bundle/9"}))
    with pytest.raises(BundleError, match="bundle/9"):
        open_any(old)


def test_cases_that_cannot_be_read_are_refused(tiny_bundle, tmp_path):
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(UsageError, match="cannot read"):
        read_cases(tmp_path / "absent.json", bundle=bundle)
    wrong = tmp_path / "cases.json"
    wrong.write_text('{"cases": [{"case_id": "a", "label": 2}]}')
    with pytest.raises(UsageError, match=r"cases\.json cannot be used"):
        read_cases(wrong, bundle=bundle)
    places = tmp_path / "places.csv"
    places.write_text("case_id,patient,label,path,x,y,z\na,p,1,ct.nii,0,0,0\n")
    with pytest.raises(UsageError, match="lacks P and score") as caught:
        read_cases(places, bundle=bundle)
    assert "cases build" in caught.value.hint
