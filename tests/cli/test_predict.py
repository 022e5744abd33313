"""``predict`` from end to end, on the phantom and the tiny bundle."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import SimpleITK as sitk

from bundle_factory import tiny_cases
from nodule_diag.ct.phantom import Phantom

FIRST = ("--xyz", "-72", "-18", "-135")
THREE = (*FIRST, "--xyz", "119.1", "22", "-190", "--xyz", "-84", "38.5", "-2.05e2")


def closed(schema: Any) -> Any:
    """The schema without room for properties that it does not describe."""
    if isinstance(schema, dict):
        inner = {name: closed(part) for name, part in schema.items()}
        return inner | {"additionalProperties": False} if "properties" in schema else inner
    return [closed(part) for part in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="session")
def validate(repo_root: Path) -> Any:
    """Check against the published schema, and that it describes every property there is."""
    schema = json.loads((repo_root / "docs" / "prediction.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(closed(schema)).validate


def test_published_schema_is_the_shipped_one(repo_root: Path) -> None:
    shipped = resources.files("nodule_diag") / "schemas" / "prediction-1.json"
    assert (repo_root / "docs" / "prediction.schema.json").read_bytes() == shipped.read_bytes()


def test_schema_refuses(validate: Any, command: Any, phantom_ct: Path, tiny_bundle: Path) -> None:
    """A schema that accepts everything proves nothing."""
    document = command("predict", phantom_ct, *FIRST, "--bundle", tiny_bundle, "--json").document
    for spoil in (
        lambda d: d.pop("ct"),
        lambda d: d["nodules"][0].update(malignancy=1.2),
        lambda d: d["nodules"][0]["diagnosis"].pop("expert"),
        lambda d: d["nodules"][0]["similar"]["machine"][0].update(label=2),
        lambda d: d["nodules"][0].update(id=1),
        lambda d: d["timing_ms"].pop("patch"),
        lambda d: d.update(schema="nodule-diag/prediction/2"),
        lambda d: d.update(surprise=1),
    ):
        spoiled = json.loads(json.dumps(document))
        spoil(spoiled)
        with pytest.raises(jsonschema.ValidationError):
            validate(spoiled)


def test_json_document(command: Any, validate: Any, phantom_ct: Path, tiny_bundle: Path) -> None:
    ended = command("predict", phantom_ct, *FIRST, "--bundle", tiny_bundle, "--json", "--k", "7")
    assert ended.code == 0
    document = ended.document
    validate(document)
    assert document["ct"]["path"] == str(phantom_ct)
    assert document["bundle"]["name"] == "tiny"
    (nodule,) = document["nodules"]
    assert nodule["id"] == "1"
    assert nodule["xyz_lps_mm"] == [-72.0, -18.0, -135.0]
    assert nodule["in_lung"] is True
    assert [len(cases) for cases in nodule["similar"].values()] == [7, 7, 7]


def test_three_nodules_in_one_call_equal_three_calls(command: Any, phantom_ct: Path, tiny_bundle: Path) -> None:
    options = ("--bundle", tiny_bundle, "--json")
    together = command("predict", phantom_ct, *THREE, *options).document["nodules"]
    assert len(together) == 3
    for at, nodule in enumerate(together):
        (alone,) = command("predict", phantom_ct, *THREE[4 * at : 4 * at + 4], *options).document["nodules"]
        assert _near(alone, nodule)


def _near(one: Any, other: Any) -> bool:
    """Equal but for rounding in numbers, and for ids."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_near(one[key], other[key]) for key in one if key != "id")
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_near, one, other))
    return one == pytest.approx(other, abs=1e-5) if isinstance(one, float) else one == other


@pytest.mark.parametrize("space", ["lps", "ras", "voxel"])
def test_spaces(command: Any, phantom: Phantom, phantom_ct: Path, tiny_bundle: Path, space: str) -> None:
    lps = np.array([-71.6, -18.2, -135.4])  # clear of the middle between two voxels
    voxel = (lps - phantom.ct.origin_xyz_mm) / phantom.ct.spacing_xyz_mm
    xyz = {"lps": lps, "ras": lps * (-1, -1, 1), "voxel": voxel}[space]
    ended = command("predict", phantom_ct, "--xyz", *xyz, "--space", space, "--bundle", tiny_bundle, "--json")
    (nodule,) = ended.document["nodules"]
    assert nodule["xyz_lps_mm"] == pytest.approx(lps.tolist())
    assert nodule["voxel_xyz"] == np.rint(voxel).astype(int).tolist()


def test_nodule_list(command: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "nodules.csv"
    path.write_text("id;x;y;z\nupper;-72;-18;-135\n;-84;38.5;-205\n")
    ended = command("predict", phantom_ct, *FIRST, "--nodules", path, "--bundle", tiny_bundle, "--json")
    assert [nodule["id"] for nodule in ended.document["nodules"]] == ["1", "upper", "3"]
    assert ended.document["nodules"][0]["malignancy"] == ended.document["nodules"][1]["malignancy"]


def test_outside_the_lungs_is_a_warning(command: Any, phantom_ct: Path, tiny_bundle: Path) -> None:
    ended = command("predict", phantom_ct, "--xyz", "0", "62", "-180", "--bundle", tiny_bundle, "--json")
    assert ended.code == 0
    (nodule,) = ended.document["nodules"]
    assert nodule["in_lung"] is False
    assert any("lung" in warning for warning in nodule["warnings"])


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_text_fits_the_width(program: Any, phantom_ct: Path, tiny_bundle: Path, columns: int, tmp_path: Path) -> None:
    if columns == 60:
        (tmp_path / "chest.nii").symlink_to(phantom_ct)
    ended = program("predict", phantom_ct, *THREE, "--bundle", tiny_bundle, COLUMNS=str(columns))
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert max(map(len, ended.out.splitlines())) <= min(columns, 120)
    assert "\x1b" not in ended.out
    for text in (
        "Malignancy, 0..1",
        "if half were malignant",
        "1 unlikely, 5 suspicious",
        "Volume, mm3",
        "malignant, 0.50 is neutral",
        f"of 20, {np.mean([case.label for case in tiny_cases()]):.2f} is neutral",
        "Not a medical device",
        "119.10",
    ):
        assert text in ended.out
    if columns >= 80:
        assert ended.out.count("Malignancy, 0..1") == 1, "three nodules stand side by side"
    assert ended.out.splitlines()[2].startswith("Malignancy"), "what a reader needs first"


def test_prevalence(command: Any, validate: Any, phantom_ct: Path, tiny_bundle: Path) -> None:
    words = ("predict", phantom_ct, *FIRST, "--bundle", tiny_bundle)
    before, after = command(*words, "--json").document, command(*words, "--prevalence", "0.05", "--json").document
    validate(after)
    assert (before["prevalence"], after["prevalence"]) == (None, 0.05)
    p, moved = (document["nodules"][0].pop("malignancy") for document in (before, after))
    assert moved == pytest.approx(p * 0.05 / (p * 0.05 + (1 - p) * 0.95))
    assert before["nodules"] == after["nodules"]
    assert "if 5 % were malignant" in command(*words, "--prevalence", "0.05").out


@pytest.mark.parametrize("prevalence", ["0", "1", "-0.2", "5", "nan"])
def test_no_prevalence(command: Any, phantom_ct: Path, tiny_bundle: Path, prevalence: str) -> None:
    ended = command("predict", phantom_ct, *FIRST, "--bundle", tiny_bundle, "--prevalence", prevalence, "--json")
    assert (ended.code, ended.document["error"]["code"]) == (2, "usage")
    assert "prevalence" in ended.document["error"]["message"]


def test_one_thread(
    command: Any, phantom: Phantom, phantom_ct: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    point = phantom.nodules[0].center_xyz_mm
    ended = command("predict", phantom_ct, "--xyz", *point, "--bundle", tiny_bundle, "--backend", "onnxruntime")
    assert ended.code == 0, ended.err
    assert "onnxruntime on cpu, fp32, 1 thread, " in ended.out


def test_no_lung_check(command: Any, validate: Any, phantom_ct: Path, tiny_bundle: Path) -> None:
    words = ("predict", phantom_ct, *FIRST, "--bundle", tiny_bundle, "--no-lung-check")
    document = command(*words, "--json").document
    validate(document)
    assert document["nodules"][0]["in_lung"] is None
    assert document["timing_ms"]["lung_mask"] == 0
    assert "not checked" in command(*words).out


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_text_in_any_encoding(program: Any, phantom_ct: Path, tiny_bundle: Path, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "nodules.csv"
    path.write_text("id,x,y,z\nLünge [bold]oben links,-72,-18,-135\n", encoding="utf-8")
    options = ("--nodules", path, "--bundle", tiny_bundle)
    ended = program("predict", phantom_ct, *options, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert ended.code == 0, ended.err
    assert ("L\\xfcnge" if encoding == "ascii" else "Lünge ..") in ended.out
    parsed = program("predict", phantom_ct, *options, "--json", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert parsed.document["nodules"][0]["id"] == "Lünge [bold]oben links"


def test_stdout_holds_one_document_and_stderr_nothing(program: Any, phantom_ct: Path, tiny_bundle: Path) -> None:
    ended = program("predict", phantom_ct, *FIRST, "--bundle", tiny_bundle, "--json")
    assert ended.code == 0
    assert ended.document["schema"] == "nodule-diag/prediction/1"
    assert ended.err == ""


@pytest.mark.real_data
def test_first_command_of_the_readme(
    command: Any, validate: Any, data_root: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    path = data_root / "ct" / "LIDC-IDRI-0314.nii.gz"
    words = ("--xyz", "-56.94", "131.27", "-520.6", "--bundle", tiny_bundle, "--json", "--out", tmp_path)
    ended = command("predict", path, *words)
    assert ended.code == 0, ended.err
    validate(ended.document)
    (nodule,) = ended.document["nodules"]
    assert nodule["in_lung"] is True
    ct, cam = (sitk.ReadImage(str(name)) for name in (path, tmp_path / nodule["maps"]["cam"]))
    assert cam.GetSize() == ct.GetSize()
    point = (-56.94, 131.27, -520.6)
    np.testing.assert_allclose(
        cam.TransformPhysicalPointToContinuousIndex(point), ct.TransformPhysicalPointToContinuousIndex(point), atol=1e-3
    )
    assert list(ct.TransformPhysicalPointToIndex(point)) == nodule["voxel_xyz"]
