"""Rewritten layers and graphs against torch's direct ones, and the packaged network against itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bundle_factory import tiny_model
from nodule_diag.bundle.bundle import Bundle
from nodule_diag_export.errors import ExportError
from nodule_diag_export.graph.mixed_precision import mixed_graph
from nodule_diag_export.parity.onnx import OnnxModel, random_patches
from nodule_diag_export.winograd import layers as winograd_layers
from nodule_diag_export.winograd.graph import winograd_graph
from nodule_diag_export.winograd.layers import (
    TILE,
    Convolution,
    Layers,
    from_one_channel,
    pointwise,
    winograd,
)
from nodule_diag_export.winograd.normalisation import GroupNorm, group_norm
from tiny_network import tiny_network

BATCH = "B"


def run(layers: Layers, output: str, x: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """What the nodes make of ``x``."""
    graph = helper.make_graph(
        layers.nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, *x.shape[1:]])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        initializer=[*layers.constants.values(), *([] if weight is None else [numpy_helper.from_array(weight, "w")])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def direct(x: np.ndarray, weight: np.ndarray, c: Convolution) -> np.ndarray:
    first = torch.from_numpy(x).double().permute(0, 4, 1, 2, 3)
    y = torch.nn.functional.conv3d(
        first, torch.from_numpy(weight).double(), stride=c.stride, dilation=c.dilation, padding=c.padding
    )
    return y.permute(0, 2, 3, 4, 1).numpy()


def drawn(c: Convolution, *, batch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, *c.sizes, c.inputs)).astype(np.float32)
    shape = (c.outputs, c.inputs, c.kernel, c.kernel, c.kernel)
    return x, (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


@settings(max_examples=25)
@given(
    kind=st.sampled_from([(3, 1, 1), (3, 1, 2), (3, 1, 4), (3, 2, 1), (5, 2, 1), (7, 2, 1)]),
    tiles=st.tuples(*[st.integers(1, 2)] * 3),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_convolution_is_the_direct_one(kind, tiles, channels, batch, seed):
    kernel, stride, dilation = kind
    c = Convolution(
        weight="w",
        inputs=channels[0],
        outputs=channels[1],
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        sizes=tuple(count * TILE * stride * dilation for count in tiles),
    )
    assert c.fits
    x, weight = drawn(c, batch=batch, seed=seed)
    layers = Layers()
    found = run(layers, winograd(layers, "x", c), x, weight)
    wanted = direct(x, weight, c)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (7, 2)])
def test_rows_of_tiles_apart_are_the_same_convolution(monkeypatch, kernel, stride, rows):
    c = Convolution(weight="w", inputs=2, outputs=3, kernel=kernel, stride=stride, dilation=1, sizes=(16 * stride,) * 3)
    x, weight = drawn(c, batch=2, seed=1)
    whole, slabs = Layers(), Layers()
    wanted = run(whole, winograd(whole, "x", c), x, weight)
    monkeypatch.setattr(winograd_layers, "SLAB_BYTES", rows * 4 * c.points**3 * 4 * 4 * c.outputs)
    found = run(slabs, winograd(slabs, "x", c), x, weight)
    (joined,) = (node for node in slabs.nodes if node.op_type == "Concat")
    assert len(joined.input) == -(-4 // rows)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "changed",
    [{"sizes": (16, 16, 18)}, {"kernel": 1}, {"kernel": 5}, {"kernel": 4}, {"stride": 2, "dilation": 2}],
)
def test_what_does_not_fit(changed):
    usual = {"kernel": 3, "stride": 1, "dilation": 1, "sizes": (16, 16, 16)}
    assert Convolution(weight="w", inputs=16, outputs=16, **usual).fits
    assert not Convolution(weight="w", inputs=16, outputs=16, **{**usual, **changed}).fits


@pytest.mark.parametrize("stride", [1, 2])
def test_a_pointwise_convolution(stride):
    c = Convolution(weight="w", inputs=5, outputs=7, kernel=1, stride=stride, dilation=1, sizes=(4, 6, 8))
    x, weight = drawn(c, batch=2, seed=1)
    layers = Layers()
    np.testing.assert_allclose(run(layers, pointwise(layers, "x", c), x, weight), direct(x, weight, c), atol=1e-5)


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 1)])
def test_a_convolution_of_one_channel(kernel, dilation):
    c = Convolution(weight="w", inputs=1, outputs=7, kernel=kernel, stride=1, dilation=dilation, sizes=(5, 6, 7))
    x, weight = drawn(c, batch=2, seed=1)
    layers = Layers()
    first = layers.transpose("x", 0, 4, 1, 2, 3)
    found = run(layers, from_one_channel(layers, first, c), x, weight)
    np.testing.assert_allclose(found, direct(x, weight, c), atol=1e-5)


def test_group_normalisation():
    rng = np.random.default_rng(2)
    x = rng.normal(1.0, 3.0, size=(3, 4, 2, 5, 12)).astype(np.float32)
    scale, shift = rng.normal(size=(2, 12)).astype(np.float32)
    layers = Layers()
    norm = GroupNorm(x="x", groups=4, epsilon=1e-5, scale=scale, shift=shift)
    found = run(layers, group_norm(layers, "x", norm, (4, 2, 5)), x)
    first = torch.from_numpy(x).permute(0, 4, 1, 2, 3)
    wanted = torch.nn.functional.group_norm(first, 4, torch.from_numpy(scale), torch.from_numpy(shift), 1e-5)
    np.testing.assert_allclose(found, wanted.permute(0, 2, 3, 4, 1).numpy(), atol=1e-5)


@pytest.mark.parametrize("network", ["tiny", "packaged"])
def test_the_answers_stay(network):
    proto = tiny_network() if network == "tiny" else onnx.load_from_string(Bundle.default().read("model.onnx"))
    rewritten = winograd_graph(proto)
    assert [*rewritten.graph.input, *rewritten.graph.output] == [*proto.graph.input, *proto.graph.output]
    patches = random_patches(3, seed=11)
    wanted, found = (OnnxModel(graph.SerializeToString(), threads=1).run(patches) for graph in (proto, rewritten))
    assert found.keys() == wanted.keys()
    for name, answer in wanted.items():
        np.testing.assert_allclose(found[name], answer, atol=1e-4, rtol=1e-4, err_msg=name)


def test_the_packaged_network_loses_its_convolutions():
    """FNet's, which has one input channel, becomes one that only moves its 27 neighbours side by side."""
    graph = winograd_graph(onnx.load_from_string(Bundle.default().read("model.onnx"))).graph
    left = [node for node in graph.node if node.op_type in {"Conv", "InstanceNormalization"}]
    assert [node.op_type for node in left] == ["Conv"]
    (moved,) = (tensor for tensor in graph.initializer if tensor.name == left[0].input[1])
    np.testing.assert_array_equal(numpy_helper.to_array(moved).reshape(27, 27), np.eye(27))


@pytest.mark.parametrize("network", ["nothing to rewrite", "fp16"])
def test_what_cannot_be_rewritten_is_refused(network):
    proto = tiny_model() if network == "nothing to rewrite" else mixed_graph(tiny_network(), "fp16")
    with pytest.raises(ExportError, match="no convolution that minimal filtering could compute") as caught:
        winograd_graph(proto)
    assert caught.value.code == "winograd-unsupported"


def test_a_graph_that_is_not_valid_is_refused():
    proto = tiny_network()
    del proto.graph.initializer[:]
    with pytest.raises(ExportError) as caught:
        winograd_graph(proto)
    assert caught.value.code == "winograd-unsupported"


@pytest.mark.parametrize("attribute", [("group", 2), ("pads", [0] * 6), ("dilations", [2, 2, 1])])
def test_other_convolutions_stay_as_they_are(attribute):
    weight = np.random.default_rng(0).normal(size=(16, 8 if attribute[0] == "group" else 16, 3, 3, 3))
    said = {"kernel_shape": [3] * 3, "pads": [1] * 6, "dilations": [1] * 3, "strides": [1] * 3, "group": 1}
    said[attribute[0]] = attribute[1]
    if attribute[0] == "dilations":
        said["pads"] = [2, 2, 1] * 2
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], **said)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, 16, 8, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [BATCH, 16, "z", "y", "x"])],
        initializer=[numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    with pytest.raises(ExportError, match="no convolution that minimal filtering could compute"):
        winograd_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
