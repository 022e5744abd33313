"""Graphs of reduced precision: what is lowered and what is not, the emulation against torch, the gates."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from typer.testing import CliRunner

from bundle_factory import make_tiny_bundle
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.errors import BackendError
from nodule_diag_export.bundle.reduced import reduce_graph
from nodule_diag_export.cli import app
from nodule_diag_export.errors import ExportError, ParityError
from nodule_diag_export.graph.mixed_precision import LARGEST, REDUCED, emulated_graph, mixed_graph
from nodule_diag_export.graph.parsing import precision_of
from nodule_diag_export.parity import reduced as reduced_parity
from nodule_diag_export.parity.onnx import OnnxModel, random_patches
from nodule_diag_export.parity.reduced import compared_patches, measure_reduced
from nodule_diag_training.data.training_data import TrainingData
from tiny_network import tiny_network

PRECISIONS = ("fp16", "bf16")
TORCH = {"fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(scope="module")
def patches() -> list[np.ndarray]:
    return list(random_patches(2, seed=5))


def types_of(proto: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor, as ONNX's own inference finds it: strict, so a wrong cast is an error."""
    graph = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    return {v.name: v.type.tensor_type.elem_type for v in values} | {t.name: t.data_type for t in graph.initializer}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("network", ["tiny", "packaged"])
def test_convolutions_are_lowered_and_nothing_else(precision, network):
    fp32 = tiny_network() if network == "tiny" else onnx.load_from_string(Bundle.default().read("model.onnx"))
    mixed = mixed_graph(fp32, precision)
    types, low = types_of(mixed), REDUCED[precision][0]
    for node in mixed.graph.node:
        tensors = {types[name] for name in (*node.input, *node.output) if name in types}
        if node.op_type == "Conv":
            assert tensors == {low}
        elif node.op_type != "Cast":
            assert low not in tensors, node.op_type
    count = sum(node.op_type == "Conv" for node in mixed.graph.node)
    assert count == sum(node.op_type == "Conv" for node in fp32.graph.node) > 0
    assert [*mixed.graph.input, *mixed.graph.output] == [*fp32.graph.input, *fp32.graph.output]
    assert not [node for node in mixed.graph.node if node.op_type == "GroupNormalization"]


def test_a_tensor_that_two_convolutions_read_is_cast_once():
    mixed = mixed_graph(tiny_network(), "fp16")
    assert [node.output[0] for node in mixed.graph.node if node.op_type == "Cast" and node.input[0] == "r0"] == [
        "r0_fp16"
    ]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_emulation_computes_what_torch_computes_in_that_precision(precision, patches):
    proto = tiny_network()
    proto.graph.output.extend(onnx.parser.parse_graph("g () => (float[B,16,16,16,16] c0) {}").output)
    model = OnnxModel(emulated_graph(proto, precision).SerializeToString(), threads=1, optimised=False)
    found = model.run(np.stack(patches))["c0"]
    weight = next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "w0")
    kind = TORCH[precision]
    x, w = (torch.from_numpy(np.array(a)).to(kind) for a in (np.stack(patches), weight))
    wanted = torch.nn.functional.conv3d(x.float(), w.float(), stride=4, padding=3).to(kind).float().numpy()
    step = float(torch.finfo(kind).eps)
    np.testing.assert_allclose(found, wanted, rtol=step, atol=step * 1e-2)  # one step where the sums round otherwise
    assert (found == wanted).mean() > 0.98
    low = numpy_helper.to_array(numpy_helper.from_array(found.astype(REDUCED[precision][1]))).astype(np.float32)
    np.testing.assert_array_equal(low, found)  # every value is one of that precision


def test_the_mixed_fp16_graph_answers_as_its_emulation(patches):
    proto = tiny_network()
    mixed = OnnxModel(mixed_graph(proto, "fp16").SerializeToString(), threads=1, optimised=False)
    emulated = OnnxModel(emulated_graph(proto, "fp16").SerializeToString(), threads=1, optimised=False)
    for patch in patches:
        a, b = mixed.run(patch[None]), emulated.run(patch[None])
        for name, array in a.items():
            np.testing.assert_allclose(array, b[name], atol=5e-3, err_msg=name)


def with_weight(value: float) -> onnx.ModelProto:
    proto = tiny_network()
    weight = next(t for t in proto.graph.initializer if t.name == "w2")
    array = numpy_helper.to_array(weight).copy()
    array[0, 0] = value
    weight.CopyFrom(numpy_helper.from_array(array, "w2"))
    return proto


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_weight_beyond_the_range_is_refused(precision):
    mixed_graph(with_weight(LARGEST[precision]), precision)
    beyond = float(np.nextafter(np.float32(LARGEST[precision]), np.float32(np.inf)))
    for value in (beyond, -beyond, np.nan):
        with pytest.raises(ExportError, match=f"w2 holds .* which {precision} cannot"):
            mixed_graph(with_weight(value), precision)


def test_weights_that_something_else_reads_are_refused():
    proto = tiny_network()
    proto.graph.node.append(onnx.helper.make_node("Identity", ["w1"], ["copy"]))
    with pytest.raises(ExportError, match="w1"):
        mixed_graph(proto, "fp16")


def test_the_file_says_what_was_measured_and_how(patches):
    reduced = reduce_graph(tiny_network(), "bf16", patches=patches, source="two patches", threads=1)
    proto = onnx.load_from_string(reduced.data)
    assert precision_of(proto) == "bf16"
    said = json.loads(next(entry.value for entry in proto.metadata_props if entry.key == "reduced_parity"))
    assert said == reduced.parity.to_dict()
    assert said["patches"] == 2
    assert "emulated" in said["evaluator"]
    assert said["overlap"] is None  # there was no case base: nothing is claimed
    assert 0 < said["malignancy"] <= said["gates"]["malignancy"] == 0.01
    with pytest.raises(ExportError, match="bf16 already"):
        reduce_graph(proto, "fp16", patches=patches, source="two patches")


def test_nothing_is_claimed_of_no_patches():
    with pytest.raises(ParityError, match="no patches"):
        measure_reduced(tiny_network(), "fp16", patches=[], source="nothing")


@pytest.mark.parametrize(
    ("gate", "value"),
    [("malignancy", 0.0), ("expert_score", 0.0), ("segmentation", 0.0), ("cam", 0.0), ("overlap", 1.1)],
)
def test_a_missed_gate_fails_and_leaves_nothing(gate, value, monkeypatch, tmp_path, patches):
    if gate == "overlap":
        monkeypatch.setattr(reduced_parity, "OVERLAP_GATE", value)
    else:
        monkeypatch.setitem(reduced_parity.GATES, gate, value)
    monkeypatch.setattr("nodule_diag_export.commands.graph.compared_patches", lambda _: ("two patches", patches))
    bundle = make_tiny_bundle(tmp_path / "b", model=tiny_network())
    for command in ("onnx", "precision"):
        out = tmp_path / "out"
        result = CliRunner().invoke(app, [command, str(bundle.path), "--precision", "bf16", "--out", str(out)])
        assert isinstance(result.exception, ParityError)
        assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_bundle_gets_a_graph_of_reduced_precision(monkeypatch, tmp_path, patches):
    monkeypatch.setattr("nodule_diag_export.commands.graph.compared_patches", lambda _: ("two patches", patches))
    bundle = make_tiny_bundle(tmp_path / "b", model=tiny_network())
    with pytest.raises(BackendError, match="the bundle holds fp32") as caught:
        bundle.manifest.model.file_of("bf16")
    assert caught.value.code == "precision-unavailable"
    out = tmp_path / "reduced.zip"
    result = CliRunner().invoke(app, ["precision", str(bundle.path), "--precision", "bf16", "--out", str(out)])
    assert result.exit_code == 0, result.exception
    written = Bundle.open(out)
    assert written.manifest.model.file_of("bf16") == "model.bf16.onnx"
    assert written.read("model.onnx") == bundle.read("model.onnx")
    proto = onnx.load_from_string(written.read("model.bf16.onnx"))
    assert precision_of(proto) == "bf16"
    measured = written.manifest.model.reduced["bf16"].parity
    assert measured["overlap"] >= 0.9
    assert {t.data_type for t in proto.graph.initializer if t.name.startswith("w")} == {TensorProto.BFLOAT16}


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_packaged_model_passes_the_gate_on_cubes(precision, data_root):
    from nodule_diag.cases.retrieval import CaseIndex

    source, cubes = compared_patches(TrainingData.of(data_root))
    bundle = Bundle.default()
    proto = onnx.load_from_string(bundle.read("model.onnx"))
    found = measure_reduced(proto, precision, patches=cubes[::25], source=source, cases=CaseIndex(bundle))
    reduced_parity.require_reduced(found)
