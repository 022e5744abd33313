"""From a checkpoint with random weights to a bundle that the SDK opens, runs and refuses when it was touched."""

from __future__ import annotations

import hashlib
import json
import shutil
from base64 import b64decode, b64encode
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nodule_diag.backends import create_backend, golden_patches, infer_all
from nodule_diag.backends.golden import read_golden
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.ct.made_up import made_up_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import BundleError, OutputError
from nodule_diag.results import FeatureDistance
from nodule_diag_export.bundle import building as bundle_module
from nodule_diag_export.bundle.building import BundleOptions, export_bundle
from nodule_diag_export.bundle.network import Identity
from nodule_diag_export.cli import app
from nodule_diag_export.errors import ExportError
from nodule_diag_export.parity.real_patches import diagnosed_patches
from nodule_diag_training.data.lidc import diagnosed as lidc
from nodule_diag_training.data.training_data import TrainingData

FILES = {
    "MODEL_CARD.md",
    "index/cases.sqlite",
    "model.onnx",
    "model.winograd-kernels.onnx",
    "model.winograd.onnx",
}


@pytest.fixture(scope="module", autouse=True)
def few_golden_tries():
    """Random weights put all nodules on one side of P = 0.5: a hundred tries would only take their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nodule_diag_export.parity.golden.MOST_SEEDS", 1)
        yield


@pytest.fixture
def ready(exported, diagnosed, monkeypatch):
    """The export has been done and measured (test_onnx_graph.py): take its outcome."""
    monkeypatch.setattr(bundle_module, "export_model", lambda *_, **__: exported.model)


@pytest.fixture(scope="module")
def built(exported, tiny_lidc, results_json, tmp_path_factory) -> Bundle:
    """A bundle of the tiny folder: do not write to it."""
    table = {"P0": ([2], [2]), "P1": ([1, 1], [1, 1]), "P2": ([3], [3])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lidc, "read_diagnoses", lambda _: table)
        patch.setattr(bundle_module, "export_model", lambda *_, **__: exported.model)
        return export_bundle(
            exported.checkpoint,
            results=results_json,
            out=tmp_path_factory.mktemp("built") / "random",
            data=TrainingData.of(tiny_lidc),
            options=BundleOptions(identity=Identity(name="random", version="1.2.3"), k=2, threads=2),
        )


def test_the_bundle_opens_and_says_what_it_is(built, exported):
    opened = Bundle.open(built.path)
    manifest = opened.manifest
    assert (manifest.name, manifest.version, manifest.retrieval.k) == ("random", "1.2.3", 2)
    assert manifest.preprocessing.masked_input is False
    assert set(manifest.files) == FILES
    assert opened.read("model.onnx") == exported.model.data
    assert manifest.training["data"] == {"nodules": 12, "patients": 5}
    assert manifest.training["case_base"]["cases"] == 3
    assert manifest.training["parity"]["random_patches"] == 6
    assert CaseIndex(opened).base_rate == pytest.approx(2 / 3)


def test_the_case_base_holds_what_the_sdk_predicts_for_the_same_patches(built, tiny_lidc, diagnosed):
    backend = create_backend(built, name="onnxruntime", device="cpu", precision="fp32", threads=2)
    entries = list(diagnosed_patches(TrainingData.of(tiny_lidc)))
    outputs = backend.infer(np.stack([entry.patch for entry in entries]))
    cases = CaseIndex(built).cases
    assert [case.case_id for case in cases] == [entry.nodule.case_id for entry in entries]
    np.testing.assert_allclose([case.malignancy for case in cases], outputs.malignancy, atol=1e-5)
    np.testing.assert_allclose([case.expert_score for case in cases], outputs.expert_score, atol=1e-4)


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_altered_file_is_refused(built, tmp_path, name):
    copy = shutil.copytree(built.path, tmp_path / "copy")
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=name) as caught:
        Bundle.open(copy)
    assert caught.value.code == "bundle-hash-mismatch"


@pytest.mark.usefixtures("ready")
def test_the_command_writes_a_zip_of_the_same(built, exported, tiny_lidc, results_json, tmp_path):
    arguments = [
        "bundle",
        str(exported.checkpoint),
        "--results",
        str(results_json),
        "--out",
        str(tmp_path / "b"),
        "--zip",
    ]
    arguments += ["--data", str(tiny_lidc), "--masked-input", "--name", "other", "--k", "3", "--threads", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "3 cases" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]
    zipped = Bundle.open(tmp_path / "b.zip")
    assert (zipped.manifest.name, zipped.manifest.retrieval.k) == ("other", 3)
    assert zipped.manifest.preprocessing.masked_input is True
    assert zipped.read("index/cases.sqlite") == built.read("index/cases.sqlite")
    assert str(tmp_path) not in zipped.read("MODEL_CARD.md").decode()


@pytest.mark.usefixtures("ready")
def test_what_is_said_of_lung_goes_into_manifest_and_card(built, exported, tiny_lidc, results_json, tmp_path):
    fitted = {"scale": 1.5, "shift": -0.25, "warn_below": 0.125}
    rows = [{"metric": "Lung: nothing found", "value": 0.75, "n": 4}]
    report = {"sections": [{"title": "Lung of L1", "rows": rows}], "command": "train lung f", "presence": fitted}
    (tmp_path / "lung.json").write_text(json.dumps(report))
    arguments = [str(exported.checkpoint), "--results", str(results_json), "--lung", str(tmp_path / "lung.json")]
    arguments += ["--out", str(tmp_path / "b"), "--data", str(tiny_lidc), "--threads", "2"]
    result = CliRunner().invoke(app, ["bundle", *arguments])
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest.presence is not None
    assert bundle.manifest.presence.model_dump() == fitted
    assert " --lung lung.json " in str(bundle.manifest.training["command"])
    card = bundle.read("MODEL_CARD.md").decode()
    assert card.index("nodule-diag train evaluate") < card.index("### Lung of L1") < card.index("train lung f")
    assert "| Lung: nothing found | 0.750 |" in card
    assert built.manifest.presence is None
    assert '"presence"' not in (built.path / "manifest.json").read_text(), "versions before would refuse it"


@pytest.mark.usefixtures("ready")
def test_golden_answers_are_in_it(exported, tiny_lidc, results_json, tmp_path, monkeypatch):
    """Those of its own network, as the self-test reads them."""

    def chosen(bundle, *, threads):
        backend = create_backend(bundle, name="onnxruntime", device="cpu", precision="fp32", threads=threads)
        patches = golden_patches(range(8))
        return tuple(range(8)), patches, infer_all(backend, patches)

    monkeypatch.setattr("nodule_diag_export.parity.golden.choose_golden", chosen)
    bundle = export_bundle(
        exported.checkpoint, results=results_json, out=tmp_path / "b", data=TrainingData.of(tiny_lidc)
    )
    assert set(bundle.manifest.files) == {*FILES, "golden.f32"}
    _, answers = read_golden(Bundle.open(tmp_path / "b"))
    assert len(answers.malignancy) == 8


@pytest.mark.usefixtures("ready")
def test_without_golden_answers_it_is_said(exported, tiny_lidc, results_json, tmp_path, caplog):
    bundle = export_bundle(
        exported.checkpoint, results=results_json, out=tmp_path / "b", data=TrainingData.of(tiny_lidc)
    )
    assert bundle.manifest.golden is None
    assert "without golden answers: of 1 made-up nodules" in caplog.text


@pytest.mark.usefixtures("ready")
def test_a_folder_that_is_no_bundle_is_left_alone(exported, tiny_lidc, results_json, tmp_path):
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(OutputError, match="is not a bundle"):
        export_bundle(exported.checkpoint, results=results_json, out=tmp_path, data=TrainingData.of(tiny_lidc))
    assert (tmp_path / "thesis.tex").read_text() == "irreplaceable"


@pytest.mark.usefixtures("ready")
def test_a_failure_on_the_way_leaves_nothing(exported, tiny_lidc, results_json, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nodule_diag.bundle.bundle.write_bytes", fail)
    with pytest.raises(OutputError, match="No space left"):
        export_bundle(exported.checkpoint, results=results_json, out=tmp_path / "b", data=TrainingData.of(tiny_lidc))
    assert not list(tmp_path.iterdir())


def test_unusable_results_are_refused_before_any_work(exported, tmp_path):
    results = tmp_path / "results.json"
    results.write_text('{"sections": [], "command": "x"}')
    with pytest.raises(ExportError, match="sections") as caught:
        export_bundle(exported.checkpoint, results=results, out=tmp_path / "b", data=TrainingData([]))
    assert caught.value.code == "results-unreadable"
    assert not (tmp_path / "b").exists()


def test_a_checkpoint_that_is_none_is_refused(tmp_path, results_json, tiny_lidc, diagnosed):
    broken = tmp_path / "model.safetensors"
    broken.write_bytes(b"not tensors")
    with pytest.raises(lidc.TrainingDataError, match="not a checkpoint"):
        export_bundle(broken, results=results_json, out=tmp_path / "b", data=TrainingData.of(tiny_lidc))


@pytest.mark.slow
@pytest.mark.usefixtures("diagnosed")
def test_the_command_does_it_all(checkpoint, tiny_lidc, results_json, tmp_path):
    arguments = ["bundle", str(checkpoint), "--results", str(results_json), "--out", str(tmp_path / "b")]
    result = CliRunner().invoke(app, [*arguments, "--data", str(tiny_lidc), "--threads", "2"])
    assert result.exit_code == 0, result.output
    training = Bundle.open(tmp_path / "b").manifest.training
    assert training["parity"]["nodule_patches"] == 2  # the cubes
    difference = training["parity"]["difference"]
    assert max(value for name, value in difference.items() if name != "logit") <= 1e-4


def distance_report(checkpoint: Path) -> dict[str, object]:
    """What ``train distance`` writes, of made-up features."""
    rng = np.random.default_rng(0)
    fitted = FeatureDistance.fit(rng.normal(size=(40, 256)), components=4)
    found = {
        "components": 4,
        "rest_variance": fitted.rest_variance,
        "warn_above": 20.0,
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "data": b64encode(fitted.to_bytes()).decode(),
    }
    rows = [{"metric": "Warned of: noise", "value": 1.0, "n": 4}]
    sections = [{"title": "Distance", "rows": rows}]
    return {"sections": sections, "command": "train distance f", "feature_distance": found}


def invoked(exported, results_json, data: Path, folder: Path, **reports: dict[str, object]):
    arguments = [str(exported.checkpoint), "--results", str(results_json), "--out", str(folder / "b"), "--threads", "2"]
    for name, report in reports.items():
        (folder / f"{name}.json").write_text(json.dumps(report))
        arguments += [f"--{name}", str(folder / f"{name}.json")]
    return CliRunner().invoke(app, ["bundle", *arguments, "--data", str(data)])


@pytest.mark.usefixtures("ready")
def test_calibration_distance_and_spread_go_into_the_bundle(built, exported, tiny_lidc, results_json, tmp_path):
    rows = [{"metric": "Brier score of P, after", "value": 0.25, "n": 4}]
    calibration = {
        "sections": [{"title": "P calibrated", "rows": rows}],
        "command": "train calibrate e",
        "calibration": {"slope": 0.25, "intercept": -0.5},
    }
    spread = {
        "sections": [{"title": "Spread", "rows": [{"metric": "Spread of P, mean", "value": 0.1, "n": 4}]}],
        "command": "train spread f",
        "spread": {"views": 8, "warn_above": 0.125},
    }
    distance = distance_report(exported.checkpoint)
    result = invoked(
        exported, results_json, tiny_lidc, tmp_path, calibration=calibration, distance=distance, spread=spread
    )
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest.calibration.model_dump() == calibration["calibration"]
    assert bundle.manifest.spread.model_dump() == spread["spread"]
    assert bundle.manifest.feature_distance.file == "features.f32"
    assert bundle.read("features.f32") == b64decode(distance["feature_distance"]["data"])
    assert bundle.manifest.model.outputs.features.shape == ("B", 256)
    command = str(bundle.manifest.training["command"])
    assert " --calibration calibration.json --distance distance.json --spread spread.json --out b " in command
    card = bundle.read("MODEL_CARD.md").decode()
    for said in (
        "### P calibrated",
        "### Distance",
        "### Spread",
        "calibrated** on the diagnosed nodules",
        "train spread f",
    ):
        assert said in card
    # Calibration changes no case: the case base is what it is without.
    assert bundle.read("index/cases.sqlite") == built.read("index/cases.sqlite")
    assert bundle.read("model.onnx") == built.read("model.onnx")
    loaded = Diagnoser.load(bundle, device="cpu", threads=2)
    (nodule,) = loaded.predict(made_up_ct(), [(0.0, 0.0, 0.0)])
    assert nodule.malignancy == pytest.approx(1 / (1 + np.exp(0.5 - 0.25 * nodule.logit)), abs=1e-6)
    assert nodule.feature_distance is not None


@pytest.mark.usefixtures("ready")
def test_the_evaluation_says_where_the_map_is_cut(built, exported, tiny_lidc, results_json, tmp_path):
    assert built.manifest.segmentation is None
    judged = json.loads(results_json.read_text()) | {"segmentation": {"threshold": 0.35}}
    (tmp_path / "judged.json").write_text(json.dumps(judged))
    assert invoked(exported, tmp_path / "judged.json", tiny_lidc, tmp_path).exit_code == 0
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest.segmentation.threshold == 0.35
    loaded = Diagnoser.load(bundle, device="cpu", threads=2)
    assert loaded.predict(made_up_ct(), [(0.0, 0.0, 0.0)])[0].segmentation.threshold == 0.35


@pytest.mark.usefixtures("ready")
def test_a_spread_that_was_not_found_is_told_and_warns_of_nothing(exported, tiny_lidc, results_json, tmp_path):
    rows = [{"metric": "Spread of P, mean", "value": 0.1, "n": 4}]
    spread = {"sections": [{"title": "Spread", "rows": rows}], "command": "train spread f", "spread": None}
    result = invoked(exported, results_json, tiny_lidc, tmp_path, spread=spread)
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest.spread is None
    assert "### Spread" in bundle.read("MODEL_CARD.md").decode()


@pytest.mark.usefixtures("ready")
def test_reports_of_something_else_are_refused(exported, tiny_lidc, results_json, tmp_path):
    plain = json.loads(results_json.read_text())
    for name, what in (("calibration", "calibration"), ("distance", "feature_distance"), ("lung", "presence")):
        result = invoked(exported, results_json, tiny_lidc, tmp_path, **{name: plain})
        assert isinstance(result.exception, ExportError)
        assert f"says nothing of {what}" in str(result.exception)
    other = distance_report(exported.checkpoint)
    other["feature_distance"]["checkpoint_sha256"] = 64 * "0"
    result = invoked(exported, results_json, tiny_lidc, tmp_path, distance=other)
    assert result.exception.code == "distance-of-another"
    short = distance_report(exported.checkpoint)
    short["feature_distance"]["data"] = b64encode(b"1234").decode()
    result = invoked(exported, results_json, tiny_lidc, tmp_path, distance=short)
    assert result.exception.code == "results-unreadable"
    assert not (tmp_path / "b").exists()
