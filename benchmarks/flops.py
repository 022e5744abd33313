"""The number of operations of the network: products and sums of its convolutions and matrix products.

A multiplication and its addition count as two operations. Every tap counts, also those on padding: achieved GFLOP/s are
usually given this way. A convolution that saves products (Winograd) is credited with the operations of the direct one.
This is the *effective* rate, which may lie above the ceiling. :func:`graph_flops` counts what a graph really computes.
"""

from __future__ import annotations

import math

import onnx
import torch
from onnx import ModelProto, NodeProto
from torch.utils.flop_counter import FlopCounterMode

from nodule_diag.errors import UsageError
from nodule_diag.preprocessing import PATCH_SIZE
from nodule_diag_training.model import PATCH_CHANNELS, SynergicModel

UNCOUNTED = frozenset({"Einsum", "ConvTranspose", "LSTM", "GRU", "Attention"})
"""Operators with many products that no graph of this project has: an error is better than a wrong count."""


def direct_flops() -> int:
    """Operations of the paper's network for one patch, every convolution direct, counted by torch on the model."""
    with torch.device("meta"):
        model = SynergicModel().eval()
        patch = torch.empty(1, PATCH_CHANNELS, PATCH_SIZE, PATCH_SIZE, PATCH_SIZE)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(patch)
    return int(counter.get_total_flops())


def graph_flops(proto: ModelProto, *, batch: int = 1) -> int:
    """Operations of an ONNX graph's Conv, MatMul and Gemm nodes.

    Args:
        proto: A graph whose only free axis is the batch.
        batch: Size of the batch.

    Raises:
        UsageError: If the graph has an operator that is not counted, or a shape that cannot be inferred.
    """
    fixed = ModelProto()
    fixed.CopyFrom(proto)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = batch
    known = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in known.graph.initializer}
    for value in (*known.graph.input, *known.graph.value_info, *known.graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(axis.HasField("dim_value") for axis in dims):
            shapes[value.name] = tuple(axis.dim_value for axis in dims)
    try:
        return sum(_node_flops(node, shapes) for node in known.graph.node)
    except KeyError as error:
        raise UsageError(f"the shape of {error.args[0]} in the graph is unknown", hint="export it again") from error


def _node_flops(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type in UNCOUNTED:
        raise UsageError(f"{node.op_type} nodes are not counted", hint="count them in benchmarks/flops.py")
    if node.op_type == "Conv":
        # The weight is [outputs, inputs / groups, kernel ...]: its taps are the products of one output.
        return 2 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        transposed = next((attribute.i for attribute in node.attribute if attribute.name == "transA"), 0)
        return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]
    return 0
