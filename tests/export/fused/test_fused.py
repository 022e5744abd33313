"""The fused graph: the SDK's preprocessing inside ONNX, against the SDK, and as a vendor would call it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bundle_factory import make_tiny_bundle, tiny_model, tiny_model_in_numpy
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.bundle.calibration import CalibrationSpec, PresenceSpec, SegmentationSpec
from nodule_diag.bundle.manifest import ModelSpec, Preprocessing
from nodule_diag.ct.points import lps_from_index
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import OutputError, UsageError
from nodule_diag.preprocessing.mask import LungMask
from nodule_diag.preprocessing.patch import extract_patches
from nodule_diag.results import UNCALIBRATED
from nodule_diag_export.cli import app
from nodule_diag_export.errors import ExportError, ParityError
from nodule_diag_export.fused import file as fused_file
from nodule_diag_export.fused import graph as fused_graph
from nodule_diag_export.fused.file import Source, export_fused, fuse_model, open_source
from nodule_diag_export.fused.graph import fuse, preprocessing_graph
from nodule_diag_export.fused.parity import fused_inputs, open_session

TOLERANCE = 1e-4
PATCH_TOLERANCE = 1e-5
"""Two chains of float32 products, of values to 1; a shift of one HU moves them by 7e-4."""
ADENOCARCINOMA, SPICULATED = (-56.94, 131.27, -520.6), (56.17, 86.20, -115.86)
"""In LIDC-IDRI-0314 and -0001."""


def noise_ct(shape=(30, 50, 60), spacing=(2.5, 0.8, 0.7), *, dtype=np.int16, seed=3) -> CTVolume:
    """Uncorrelated HU beyond the ends of both windows; past the checks that a chest must pass."""
    hu = np.random.default_rng(seed).uniform(-1024, 600, shape).astype(dtype)
    return CTVolume(hu, spacing, (-120.0, 35.5, -300.25), np.eye(3), path="<test>")


def at_index(ct: CTVolume, *index_xyz) -> np.ndarray:
    return lps_from_index(ct, np.array(index_xyz, dtype=float))


def preprocessing_session(*, masked=False, hu_type="float32"):
    graph = preprocessing_graph(Preprocessing(masked_input=masked), opset=18, ir_version=10, hu_type=hu_type)
    onnx.checker.check_model(graph, full_check=True)
    return open_session(graph.SerializeToString(), threads=1)


@pytest.fixture(scope="module")
def plain():
    return preprocessing_session()


@pytest.fixture(scope="module")
def tiny_fused(tiny_bundle, tmp_path_factory):
    """The file of the tiny bundle."""
    path = tmp_path_factory.mktemp("fused") / "fused.onnx"
    export_fused(open_source(tiny_bundle), path, threads=1)
    return path


@pytest.mark.parametrize("index_xyz", [(30.0, 25.0, 15.0), (-0.5, 46.2, 1.1), (59.5, 49.5, 29.5), (0.0, 0.0, 0.0)])
@pytest.mark.parametrize("spacing", [(2.5, 0.8, 0.7), (0.6, 1.1, 3.0)])
def test_the_patch_is_the_sdks_also_at_the_border(plain, index_xyz, spacing):
    ct = noise_ct(spacing=spacing)
    points = at_index(ct, index_xyz)
    (patch,) = plain.run(None, fused_inputs(ct, points))
    np.testing.assert_allclose(patch, extract_patches(ct, points), atol=PATCH_TOLERANCE)


@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
    place=st.tuples(*[st.floats(0.0, 1.0)] * 3),
)
@example(shape=(1, 1, 1), spacing=(0.375, 1.0, 1.0), place=(0.0, 0.0, 0.5))  # a slice between two voxels of the cube
@settings(max_examples=15)
def test_any_volume_and_any_place_in_it(plain, shape, spacing, place):
    ct = noise_ct(shape, spacing)
    points = at_index(ct, [u * n - 0.5 for u, n in zip(place, shape[::-1], strict=True)])
    (patch,) = plain.run(None, fused_inputs(ct, points))
    np.testing.assert_allclose(patch, extract_patches(ct, points), atol=PATCH_TOLERANCE)


def test_what_fills_a_batch_up_does_not_count(plain):
    """Regions of three sizes; the padding is as bright as metal."""
    ct = noise_ct((40, 90, 90), (1.0, 0.8, 0.7))
    points = at_index(ct, (45, 45, 20), (2, 88, 3), (89, 0, 39))
    inputs = fused_inputs(ct, points)
    weightless = [~inputs[name].any(axis=1) for name in fused_graph.MATRICES]
    padding = weightless[0][:, :, None, None] | weightless[1][:, None, :, None] | weightless[2][:, None, None, :]
    assert padding.any()
    inputs["hu"][padding] = 3071.0
    (patches,) = plain.run(None, inputs)
    np.testing.assert_allclose(patches, extract_patches(ct, points), atol=PATCH_TOLERANCE)


def test_int16_in_gives_the_same_and_float_hu_do_not_pass_for_it(plain):
    ct = noise_ct()
    points = at_index(ct, (30, 25, 15))
    (patch,) = preprocessing_session(hu_type="int16").run(None, fused_inputs(ct, points, hu_type="int16"))
    np.testing.assert_array_equal(patch, plain.run(None, fused_inputs(ct, points))[0])
    with pytest.raises(TypeError, match="safe"):
        fused_inputs(noise_ct(dtype=np.float32), points, hu_type="int16")


@pytest.mark.parametrize("inside", [1, 255])
def test_outside_the_mask_is_air(inside):
    ct = noise_ct()
    points = at_index(ct, (30, 25, 15), (12, 12, 7))
    mask = np.random.default_rng(1).random(ct.hu.shape) < 0.5
    lungs = LungMask.from_array(ct, mask)
    inputs = fused_inputs(ct, points, lungs=lungs)
    inputs["lung_mask"] *= np.uint8(inside)
    (patches,) = preprocessing_session(masked=True).run(None, inputs)
    np.testing.assert_allclose(patches, extract_patches(ct, points, lung_mask=lungs), atol=PATCH_TOLERANCE)


def test_the_file_says_what_it_is_and_takes(tiny_bundle, tiny_fused):
    proto = onnx.load(tiny_fused)
    onnx.checker.check_model(proto, full_check=True)
    (opset,) = proto.opset_import
    assert opset.version == 17  # the network's
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    bundle = Bundle.open(tiny_bundle)
    assert metadata["contract"] == "nodule-diag/fused/1"
    assert metadata["source_model_sha256"] == hashlib.sha256(bundle.read("model.onnx")).hexdigest()
    assert metadata["source_bundle_sha256"] == bundle.sha256
    assert json.loads(metadata["preprocessing"])["windows_hu"] == [[-1000.0, 400.0], [-160.0, 240.0]]
    assert json.loads(metadata["inputs"]) == {
        "hu": {"type": "float32", "shape": ["B", "z", "y", "x"]},
        "along_z": {"type": "float32", "shape": ["B", 64, "z"]},
        "along_y": {"type": "float32", "shape": ["B", 64, "y"]},
        "along_x": {"type": "float32", "shape": ["B", 64, "x"]},
    }
    assert json.loads(metadata["outputs"])["cam"] == {"type": "float32", "shape": ["B", 16, 16, 16]}
    measured = json.loads(metadata["fused_parity"])
    assert measured["nodules"] >= 4
    assert 0 < max(measured["difference"].values()) <= measured["tolerance"] == TOLERANCE


def test_the_file_has_the_bundles_numbers(tmp_path):
    bundle = make_tiny_bundle(
        tmp_path / "b",
        segmentation=SegmentationSpec(threshold=0.35),
        calibration=CalibrationSpec(slope=0.6, intercept=-0.25),
        presence=PresenceSpec(scale=0.7, shift=1.3, warn_below=0.9),
    )
    assert open_source(bundle.path).figures == {
        "segmentation_threshold": "0.35", "calibration_slope": "0.6", "calibration_intercept": "-0.25",
        "presence_scale": "0.7", "presence_shift": "1.3", "presence_warn_below": "0.9",
    }  # fmt: skip


def test_the_networks_own_metadata_stay():
    network = tiny_model()
    onnx.helper.set_model_props(network, {"name": "tiny", "license": "Apache-2.0"})
    fused = fuse(network, ModelSpec(opset=17), Preprocessing(masked_input=False), hu_type="float32")
    assert {entry.key: entry.value for entry in fused.metadata_props} == {"name": "tiny", "license": "Apache-2.0"}
    assert list(fused.graph.output) == list(network.graph.output)
    names = {"zero", "half", "eight"}
    kept = {tensor.name: tensor.raw_data for tensor in fused.graph.initializer if tensor.name in names}
    assert kept == {tensor.name: tensor.raw_data for tensor in network.graph.initializer if tensor.name in names}


def test_a_masked_bundle_asks_for_the_mask_and_uses_it(tmp_path):
    bundle = make_tiny_bundle(tmp_path / "masked", masked_input=True)
    fused = fuse_model(open_source(bundle.path), hu_type="int16", threads=1)
    assert fused.inputs["lung_mask"] == {"type": "uint8", "shape": ["B", "z", "y", "x"]}
    assert fused.inputs["hu"]["type"] == "int16"
    ct = noise_ct()
    points = at_index(ct, (30, 25, 15))
    lungs = LungMask.from_array(ct, np.indices(ct.hu.shape)[2] < 30)
    session = open_session(fused.data, threads=1)
    (logit,) = session.run(["logit"], fused_inputs(ct, points, lungs=lungs, hu_type="int16"))
    wanted = tiny_model_in_numpy(extract_patches(ct, points, lung_mask=lungs)[0])["logit"]
    assert logit[0] == pytest.approx(wanted, abs=1e-5)
    assert abs(tiny_model_in_numpy(extract_patches(ct, points)[0])["logit"] - wanted) > 0.1


def test_a_file_that_misses_the_gate_is_not_written(tiny_bundle, monkeypatch, tmp_path):
    def shifted(*arguments, **options):
        """A window that is 3 HU off."""
        graph = original(*arguments, **options)
        for tensor in graph.graph.initializer:
            if tensor.name.endswith("window_low"):
                wrong = onnx.numpy_helper.to_array(tensor) + np.float32(3)
                tensor.CopyFrom(onnx.numpy_helper.from_array(wrong, tensor.name))
        return graph

    original = fused_graph.preprocessing_graph
    monkeypatch.setattr(fused_graph, "preprocessing_graph", shifted)
    with pytest.raises(ParityError, match=r"logit \d.*nothing was written"):
        export_fused(open_source(tiny_bundle), tmp_path / "fused.onnx", threads=1)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_fused_is_named(tiny_bundle, tmp_path):
    spec, preprocessing = ModelSpec(opset=17), Preprocessing(masked_input=False)
    with pytest.raises(UsageError, match="says itself"):
        open_source(tiny_bundle, masked_input=True)
    with pytest.raises(ExportError, match="cannot be read"):
        open_source(tmp_path / "absent.onnx")
    for content in (b"no model at all", b""):
        (tmp_path / "broken.onnx").write_bytes(content)
        with pytest.raises(ExportError, match="not an ONNX model"):
            open_source(tmp_path / "broken.onnx")
    unknown = tiny_model()
    unknown.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match="cannot load the graph"):
        open_session(unknown.SerializeToString())
    old = tiny_model()
    old.opset_import[0].version = 12
    with pytest.raises(ExportError, match="opset 12"):
        fuse(old, spec, preprocessing, hu_type="float32")
    clashing = tiny_model()
    clashing.graph.node[0].output[0] = clashing.graph.node[1].input[0] = clashing.graph.node[2].input[0] = "hu"
    with pytest.raises(ExportError, match="of its own called hu"):
        fuse(clashing, spec, preprocessing, hu_type="float32")
    other = Source(
        network=tiny_model(renamed={"cam": "map_c"}).SerializeToString(), spec=spec, preprocessing=preprocessing
    )
    with pytest.raises(ValueError, match="no output 'cam'"):
        fuse_model(other, threads=1)


def test_the_command(tmp_path, monkeypatch, tiny_bundle):
    """A bare ONNX file, fused as the bundle that it is in."""
    done = fuse_model(open_source(tiny_bundle), threads=1)
    asked = {}
    monkeypatch.setattr(
        fused_file, "fuse_model", lambda source, **options: asked.update(source=source, **options) or done
    )
    model, out = tmp_path / "model.onnx", tmp_path / "fused.onnx"
    model.write_bytes(tiny_model().SerializeToString())
    arguments = ["fused", str(model), "--out", str(out), "--hu-type", "int16", "--masked-input", "--threads", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert out.read_bytes() == done.data
    assert "inputs hu, along_z, along_y, along_x" in result.output
    assert (asked["hu_type"], asked["threads"], asked["source"].bundle_sha256) == ("int16", 1, None)
    assert asked["source"].preprocessing.masked_input
    nowhere = CliRunner().invoke(app, ["fused", str(model), "--out", str(tmp_path / "nowhere" / "fused.onnx")])
    assert isinstance(nowhere.exception, OutputError)


@pytest.fixture(scope="module")
def script(repo_root, tmp_path_factory):
    """The Markdown's Python, as a file."""
    (text,) = re.findall(r"```python\n(.*?)```", (repo_root / "docs" / "fused-graph.md").read_text(), re.DOTALL)
    assert set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)) == {
        "itertools",
        "json",
        "sys",
        "numpy",
        "onnxruntime",
    }
    path = tmp_path_factory.mktemp("example") / "example.py"
    path.write_text(text)
    return path


def run_example(script, model, ct: CTVolume, points, *, axes=(0, 1, 2), flips=(False, False, False)):
    """Answers of the documented example for a CT that is stored with its zyx axes reversed and reordered."""
    stored = np.flip(ct.hu, [axis for axis in range(3) if flips[axis]]).transpose(axes)
    first = np.where(flips, np.array(ct.hu.shape) - 1, 0)[::-1] * np.array(ct.spacing_xyz_mm)
    columns = ct.direction[:, ::-1] * np.where(flips, -1.0, 1.0)
    scan = script.with_name("scan.npz")
    np.savez(
        scan,
        hu=stored,
        spacing_mm=np.array(ct.spacing_zyx_mm)[list(axes)][::-1],
        origin_mm=np.array(ct.origin_xyz_mm) + ct.direction @ first,
        direction=columns[:, list(axes)][:, ::-1],
        points_mm=np.array(points),
    )
    command = [sys.executable, "-I", "-W", "error", str(script), str(model), str(scan)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: np.array(values) for name, values in json.loads(done.stdout).items()}


def agree(answers, diagnoses):
    assert set(answers) - {"features"} == {"malignancy", "logit", "expert_score", "segmentation", "cam"}
    for row, diagnosis in enumerate(diagnoses):
        for name in ("logit", "expert_score"):
            assert answers[name][row] == pytest.approx(getattr(diagnosis, name), abs=TOLERANCE), name
        raw = UNCALIBRATED.probability(diagnosis.logit)
        assert answers["malignancy"][row] == pytest.approx(raw, abs=TOLERANCE)
        np.testing.assert_allclose(answers["segmentation"][row], diagnosis.segmentation.values, atol=TOLERANCE)
        np.testing.assert_allclose(answers["cam"][row], diagnosis.cam.values, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("axes", "flips", "turn"),
    [
        ((0, 1, 2), (False, True, True), (6, 0)),
        ((2, 0, 1), (True, False, True), (6, 0)),
        ((0, 2, 1), (False, True, False), (40, 40)),
    ],
    ids=["RAS", "permuted", "turned"],
)
def test_the_documented_example_answers_as_the_sdk_does(script, tiny_bundle, tiny_fused, axes, flips, turn):
    """An oblique scan, stored otherwise, with a nodule at the border beside one inside.

    In the turned one, left and posterior have the same nearest axis.
    """
    (cos_z, cos_x), (sin_z, sin_x) = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    about_z = np.array([[cos_z, -sin_z, 0.0], [sin_z, cos_z, 0.0], [0.0, 0.0, 1.0]])
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cos_x, -sin_x], [0.0, sin_x, cos_x]])
    tilt = about_z @ about_x
    ct = CTVolume(noise_ct((25, 60, 70)).hu, (2.5, 0.8, 0.7), (-120.0, 35.5, -300.25), tilt, path="<test>")
    points = at_index(ct, (35.2, 30.4, 12.1), (-0.4, 59.0, 24.3))
    answers = run_example(script, tiny_fused, ct, points, axes=axes, flips=flips)
    agree(answers, Diagnoser.load(tiny_bundle, device="cpu", threads=1).predict(ct, points))


def test_openvino_runs_the_same_file(tiny_fused):
    openvino = pytest.importorskip("openvino", reason="needs the openvino extra")
    ct = noise_ct()
    inputs = fused_inputs(ct, at_index(ct, (30, 25, 15), (0, 0, 0)))
    compiled = openvino.Core().compile_model(str(tiny_fused), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(inputs)
    wanted = open_session(tiny_fused.read_bytes(), threads=1)
    names = [output.name for output in wanted.get_outputs()]
    for name, array in zip(names, wanted.run(names, inputs), strict=True):
        np.testing.assert_allclose(found[name], array, atol=TOLERANCE, err_msg=name)


@pytest.fixture(scope="module")
def packaged_fused(tmp_path_factory):
    path = tmp_path_factory.mktemp("packaged") / "fused.onnx"
    export_fused(open_source(None), path, threads=1)
    return path


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "point"), [("LIDC-IDRI-0314.nii.gz", ADENOCARCINOMA), ("LIDC-IDRI-0001_dicom.zip", SPICULATED)]
)
def test_real_nodules_answer_as_the_sdk_does(script, packaged_fused, data_root, file, point):
    """The nodule, and a corner of the scan, in one batch; the packaged network."""
    ct = read_ct(data_root / "ct" / file)
    points = [point, *lps_from_index(ct, [(1.0, ct.size_xyz[1] - 2.0, ct.size_xyz[2] - 1.0)])]
    answers = run_example(script, packaged_fused, ct, points, flips=(True, True, False))
    agree(answers, Diagnoser.load(backend="onnxruntime", device="cpu", threads=1).predict(ct, points))
