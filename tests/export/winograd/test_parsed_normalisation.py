"""Group normalisation after TensorRT's parser: the layers that it made, computed, beside torch's GroupNorm.

Parsing needs no GPU. It is TensorRT for RTX's parser that is looked at; it has the fault that TensorRT's is known for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

pytest.importorskip("tensorrt_rtx", reason="no TensorRT for RTX: pip install tensorrt-rtx", exc_type=ImportError)

import tensorrt_rtx as trt

from nodule_diag.backends.engines.build import message_log, parse_network
from nodule_diag.backends.parity import probe_patch
from nodule_diag_export.graph.mixed_precision import mixed_graph
from nodule_diag_export.graph.onnx_graph import OUTPUTS
from parsed_network import ParsedNetwork

NORMS = 14
CHANNELS = 1 << 1
"""The channels' axis in a layer's set of axes."""
TOLERANCE = 2e-5
"""Of values round 1: two ways to sum up to 262,144 float32."""


@contextmanager
def parsed(proto: ModelProto) -> Iterator[ParsedNetwork]:
    log = message_log(trt)
    builder = trt.Builder(log)
    network, parser = parse_network(trt, builder, proto.SerializeToString(), log=log)
    yield ParsedNetwork(trt, network)
    del parser


@pytest.fixture(scope="module")
def norms(exported) -> dict[nn.GroupNorm, torch.Size]:
    """The model's in the order in which they run, each with the shape that it is given."""
    found: dict[nn.GroupNorm, torch.Size] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, nn.GroupNorm)
        found[module] = given[0].shape

    modules = [module for module in exported.graph.modules() if isinstance(module, nn.GroupNorm)]
    hooks = [module.register_forward_hook(note) for module in modules]
    with torch.inference_mode():
        exported.graph(torch.from_numpy(probe_patch()))
    for hook in hooks:
        hook.remove()
    return found


def ends(network: ParsedNetwork, layer: Any) -> tuple[str, str]:
    """What a normalisation starts from, before its reshape, and where its own scale and shift are done."""
    before = network.maker[layer.get_input(0).name]
    back, scaled = network.user(layer), network.user(network.user(layer))
    shifted = network.user(scaled)
    assert [network.kind(each) for each in (before, back)] == ["SHUFFLE", "SHUFFLE"]
    assert [each.op.name for each in (scaled, shifted)] == ["PROD", "SUM"]
    return before.get_input(0).name, shifted.get_output(0).name


def uneven(shape: torch.Size) -> Tensor:
    """Random numbers; every channel has a mean and a spread of its own, so that it matters what is summed together."""
    random = torch.Generator().manual_seed(3)
    channels = (2, shape[1], 1, 1, 1)
    spread = 0.5 + torch.rand(channels, generator=random)
    return torch.randn(2, *shape[1:], generator=random) * spread + torch.randn(channels, generator=random)


def worst(proto: ModelProto, norms: dict[nn.GroupNorm, torch.Size]) -> list[float]:
    """The largest difference of each normalisation from torch's."""
    found = []
    with parsed(proto) as network, torch.inference_mode():
        layers = network.of_kind("NORMALIZATION")
        assert len(layers) == len(norms) == NORMS
        for layer, (norm, shape) in zip(layers, norms.items(), strict=True):
            source, target = ends(network, layer)
            given = uneven(shape)
            (answer,) = network.evaluate({source: given}, [target])
            found.append(float((answer - norm(given)).abs().max()))
    return found


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_what_the_parser_made_of_every_normalisation_is_torchs(exported, norms, precision):
    proto = onnx.load(exported.file)
    proto = proto if precision == "fp32" else mixed_graph(proto, precision)
    assert [norm.num_groups for norm in norms].count(1) == 1  # SegNet's last
    assert max(worst(proto, norms)) < TOLERANCE


@pytest.mark.parametrize("groups", [1, 4])
def test_another_number_of_groups_is_seen(exported, norms, groups):
    """The same graph, but for the number of channels into which its reshapes gather."""
    proto = onnx.load(exported.file)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    maker = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if node.op_type == "InstanceNormalization":
            shape = constants[maker[node.input[0]].input[1]]
            if numpy_helper.to_array(shape)[1] == 8:
                replace(shape, np.array([0, groups, -1]))
    for name in {
        name for node in proto.graph.node if node.op_type == "InstanceNormalization" for name in node.input[1:]
    }:
        if constants[name].dims[0] == 8:
            replace(constants[name], numpy_helper.to_array(constants[name])[:groups])
    differences = worst(proto, norms)
    right = [norm.num_groups == 1 for norm in norms]
    assert [value < TOLERANCE for value in differences] == right
    assert min(value for value, same in zip(differences, right, strict=True) if not same) > 0.01


def replace(tensor: TensorProto, value: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def test_the_whole_parsed_network_has_torchs_answers(exported):
    """Not the normalisations alone: convolutions, pooling, CAM and outputs of the parsed fp32 network, computed."""
    patch = torch.from_numpy(probe_patch())
    with parsed(onnx.load(exported.file)) as network, torch.inference_mode():
        answers = dict(zip(network.outputs, network.evaluate({"patch": patch}, network.outputs), strict=True))
        wanted = exported.graph(patch)
    assert set(answers) == set(OUTPUTS)
    for name, value in zip(OUTPUTS, wanted, strict=False):  # the last value is the raw CAM
        torch.testing.assert_close(
            answers[name], value, rtol=0, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_parsers_fault_is_seen(groups):
    """NVIDIA/TensorRT#4756: of one group, a GroupNormalization node is taken for one group a channel.

    TensorRT for RTX 1.7 has the fault. The exported graph has no such node.
    """
    x, scale, shift = uneven(torch.Size((2, 6, 4, 4, 4))), torch.linspace(0.5, 2.0, 6), torch.linspace(-1.0, 1.0, 6)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *x.shape[1:]]) for name in "xy"]
    node = helper.make_node("GroupNormalization", ["x", "scale", "shift"], ["y"], num_groups=groups)
    weights = [numpy_helper.from_array(scale.numpy(), "scale"), numpy_helper.from_array(shift.numpy(), "shift")]
    graph = helper.make_graph([node], "one", values[:1], values[1:], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with parsed(proto) as network:
        (layer,) = network.of_kind("NORMALIZATION")
        faulty = layer.num_groups == 1 and not layer.axes & CHANNELS
        (answer,) = network.evaluate({"x": x}, ["y"])
    wanted = functional.group_norm(x, groups, scale, shift)
    difference = float((answer - wanted).abs().max())
    assert difference > 0.1 if faulty else difference < TOLERANCE
    if faulty:
        assert groups == 1
        torch.testing.assert_close(answer, functional.group_norm(x, 6, scale, shift), rtol=0, atol=TOLERANCE)
