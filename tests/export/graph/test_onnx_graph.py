"""The ONNX file: names, shapes, any batch, the answers of torch, eq. 4, eq. 6 on a flat map, what it says of itself."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from typer.testing import CliRunner

from nodule_diag.errors import OutputError
from nodule_diag_export.bundle import network as onnx_file
from nodule_diag_export.cli import app
from nodule_diag_export.commands import graph as graph_commands
from nodule_diag_export.errors import ExportError, ParityError
from nodule_diag_export.graph.onnx_graph import OUTPUTS, RAW_CAM, ExportGraph, public_graph
from nodule_diag_export.parity import onnx as parity
from nodule_diag_export.parity.onnx import OnnxModel, measure, random_patches
from nodule_diag_export.parity.real_patches import diagnosed_patches
from nodule_diag_training.data.training_data import TrainingData
from nodule_diag_training.losses.paper import class_cam
from nodule_diag_training.model.synergic import SynergicModel
from nodule_diag_training.systems import SYSTEMS

GRID = (16, 16, 16)
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model(exported) -> OnnxModel:
    return OnnxModel(exported.file.read_bytes(), threads=2)


@pytest.fixture(scope="module")
def debug(exported) -> OnnxModel:
    return OnnxModel(exported.traced.SerializeToString(), threads=2)


def changed(proto: ModelProto, change) -> ModelProto:
    """A copy with every weight passed through ``change(name, array)``, which may return None to keep it."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        array = numpy_helper.to_array(tensor)
        new = change(tensor.name, array)
        if new is not None:
            tensor.CopyFrom(numpy_helper.from_array(new.astype(array.dtype), tensor.name))
    return copy


def is_cnet(exported, w: np.ndarray) -> bool:
    """Whether an initialiser holds CNet's weights, in whatever shape the exporter folded them into."""
    cnet = exported.graph.model.cnet.weight.detach().numpy()
    return w.size == cnet.size and np.array_equal(w.ravel(), cnet.ravel())


def without_cnet(exported) -> ModelProto:
    """CNet's weights set to 0, both where the logit uses them and where the CAM does."""
    proto = exported.traced
    same = changed(proto, lambda _, w: 0 * w if is_cnet(exported, w) else None)
    assert [n for n, m in zip(proto.graph.initializer, same.graph.initializer, strict=True) if n != m]
    return same


def test_the_file_passes_the_checker_and_has_the_bundles_tensors(exported):
    proto = onnx.load(exported.file)
    onnx.checker.check_model(proto, full_check=True)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*proto.graph.input, *proto.graph.output]
    }
    assert list(shapes) == ["patch", "malignancy", "logit", "expert_score", "segmentation", "cam", "features"]
    batch = shapes["patch"][0]
    assert isinstance(batch, str)
    assert shapes["patch"] == [batch, 2, 64, 64, 64]
    assert shapes["malignancy"] == shapes["logit"] == shapes["expert_score"] == [batch]
    assert shapes["segmentation"] == shapes["cam"] == [batch, *GRID]
    assert {v.type.tensor_type.elem_type for v in [*proto.graph.input, *proto.graph.output]} == {onnx.TensorProto.FLOAT}


def test_the_file_uses_the_standard_operators_only_and_keeps_its_weights_inside(exported):
    proto = onnx.load(exported.file, load_external_data=False)
    assert {entry.domain for entry in proto.opset_import} <= {"", "ai.onnx"}
    assert not proto.functions
    assert not [t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 14  # 10 of the ResNet, 3 of SegNet and FNet's; eq. 5 is a sum of products
    assert all(len(node.input) == 2 for node in convolutions)  # no bias


def test_the_file_says_nothing_of_the_machine_that_made_it(exported, repo_root):
    data = exported.file.read_bytes()
    for word in (str(repo_root).encode(), b"site-packages", b"stack_trace", b"Traceback", b".py"):
        assert word not in data


def test_the_file_says_what_it_is_and_where_it_comes_from(exported):
    metadata = {entry.key: entry.value for entry in onnx.load(exported.file).metadata_props}
    assert (metadata["name"], metadata["version"]) == ("random", "1.2.3")
    assert "ot a medical device" in metadata["intended_use"]
    training = json.loads(metadata["training"])
    assert training["data"] == {"nodules": 12, "patients": 5}
    assert training["config"]["seed"] == 7
    assert len(training["checkpoint_sha256"]) == 64
    measured = json.loads(metadata["parity"])
    assert measured == exported.model.parity.to_dict()
    assert max(measured["difference"].values()) <= measured["tolerance"] == TOLERANCE
    assert measured["random_patches"] == 6


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_any_batch_answers_as_torch_does(exported, model, batch):
    patches = random_patches(batch, seed=100 + batch)
    found = model.run(patches)
    with torch.inference_mode():
        wanted = dict(zip((*OUTPUTS, RAW_CAM), exported.graph(torch.from_numpy(patches)), strict=True))
    assert tuple(found) == OUTPUTS
    for name, array in found.items():
        sizes = () if name in OUTPUTS[:3] else (256,) if name == "features" else GRID
        assert array.shape == (batch, *sizes)
        np.testing.assert_allclose(array, wanted[name].numpy(), atol=TOLERANCE, rtol=0, err_msg=name)


def test_a_patch_in_a_batch_gets_the_answer_it_gets_alone(model):
    patches = random_patches(4, seed=9)
    together, alone = model.run(patches), model.run(patches[2:3])
    for name in OUTPUTS:
        np.testing.assert_allclose(together[name][2:3], alone[name], atol=1e-5, err_msg=name)


def test_the_outputs_are_worked_out_from_each_other_in_numpy(debug):
    """Eq. 4, 6 and 7, the sigmoid, and the ranges; the raw CAM of eq. 5 is an output of the traced graph only."""
    answer = debug.run(random_patches(2, seed=4))
    raw, logit = answer[RAW_CAM].astype(np.float64), answer["logit"].astype(np.float64)
    np.testing.assert_allclose(raw.mean(axis=(1, 2, 3)), logit, atol=1e-5)
    np.testing.assert_allclose(answer["malignancy"], 1.0 / (1.0 + np.exp(-logit)), atol=1e-6)
    for i in range(2):
        signed = (answer["malignancy"][i] - 0.5) * raw[i]
        np.testing.assert_allclose(answer["cam"][i], (signed - signed.min()) / np.ptp(signed), atol=1e-5)
    assert ((answer["expert_score"] >= 1.0) & (answer["expert_score"] <= 5.0)).all()
    assert ((answer["segmentation"] >= 0.0) & (answer["segmentation"] <= 1.0)).all()


def test_the_raw_cam_is_no_output_of_the_file(exported, model):
    assert RAW_CAM not in model.outputs
    assert RAW_CAM in [output.name for output in exported.traced.graph.output]  # public_graph works on a copy


def test_a_flat_cam_gives_zeros(exported):
    answer = OnnxModel(public_graph(without_cnet(exported)).SerializeToString()).run(random_patches(1))
    assert (answer["cam"] == 0.0).all()
    assert answer["logit"] == 0.0
    assert answer["malignancy"] == 0.5


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_patch_of_one_grey_gives_finite_numbers(model, value):
    answer = model.run(np.full((1, 2, 64, 64, 64), value, np.float32))
    assert all(np.isfinite(array).all() for array in answer.values())


@pytest.mark.parametrize(("bias", "score"), [(9.0, 5.0), (-9.0, 1.0)])
def test_the_expert_score_stays_on_the_readers_scale(exported, bias, score):
    high = changed(exported.traced, lambda name, w: np.full_like(w, bias) if name == "model.rnet.bias" else None)
    assert OnnxModel(high.SerializeToString()).run(random_patches(1))["expert_score"] == score


def test_an_export_that_misses_the_gate_fails_and_writes_nothing(exported, monkeypatch, tmp_path):
    wrong = changed(exported.traced, lambda name, w: w + 0.01 if name == "model.rnet.bias" else None)
    monkeypatch.setattr(onnx_file, "trace", lambda _: wrong)
    monkeypatch.setattr(parity, "RANDOM_BATCHES", (1,))
    monkeypatch.delenv("NODULE_DIAG_DATA", raising=False)  # or it compares 99 nodules, too
    out = tmp_path / "model.onnx"
    out.write_bytes(b"the last good one")
    ended = CliRunner().invoke(app, ["onnx", str(exported.checkpoint), "--out", str(out)])
    assert isinstance(ended.exception, ParityError)
    assert "expert_score 4.00e-02" in str(ended.exception)
    assert ended.exception.code == "export-parity"
    assert out.read_bytes() == b"the last good one"
    assert list(tmp_path.iterdir()) == [out]


def test_a_graph_whose_logit_is_not_the_mean_of_its_cam_misses_the_gate(exported, monkeypatch):
    """CNet's weights in eq. 5 alone: the same logit, another map."""
    monkeypatch.setattr(parity, "RANDOM_BATCHES", (1,))
    turned = changed(exported.traced, lambda _, w: 1.5 * w if w.ndim == 4 and is_cnet(exported, w) else None)
    found = measure(exported.graph, turned.SerializeToString())
    assert found.difference["logit"] < TOLERANCE  # min-max hides the factor in the CAM as well
    assert found.difference["cam"] < TOLERANCE
    assert found.mean_cam > TOLERANCE
    with pytest.raises(ParityError, match="logit against mean CAM"):
        parity.require(found)


def test_an_unwritable_target_is_an_output_error(exported, monkeypatch, tmp_path):
    monkeypatch.setattr(graph_commands, "export_model", lambda *_, **__: exported.model)
    out = tmp_path / "nowhere" / "model.onnx"
    ended = CliRunner().invoke(app, ["onnx", str(exported.checkpoint), "--out", str(out)])
    assert isinstance(ended.exception, OutputError)


@pytest.mark.parametrize(
    ("system", "missing"),
    [("A", "SegNet and no RNet"), ("B", "RNet"), ("C", "SegNet"), ("R", "SegNet and no CNet")],
)
def test_a_model_without_the_bundles_outputs_is_refused(system, missing):
    with pytest.raises(ExportError, match=f"has no {missing}"):
        ExportGraph(SynergicModel(SYSTEMS[system]))


def test_the_sign_of_equation_6_is_not_compared_where_rounding_decides_it():
    """P = 0.5 up to rounding: torch and ONNX may fall on either side, and the maps are each other's negative."""
    cam = torch.linspace(-1.0, 1.0, 64).reshape(1, 4, 4, 4)
    above, below = class_cam(cam, torch.tensor([1e-7])), class_cam(cam, torch.tensor([-1e-6]))
    assert (above - below).abs().max() == 1.0


@pytest.mark.real_data
@pytest.mark.slow
def test_real_nodules_answer_as_torch_does(exported, data_root):
    patches = [entry.patch for entry in islice(diagnosed_patches(TrainingData.of(data_root)), 3)]
    found = measure(exported.graph, exported.traced.SerializeToString(), nodules=patches, threads=2)
    assert found.nodule_patches == 3
    assert not found.missed()
    assert 0 < found.difference["cam"] < found.largest_cell <= TOLERANCE
