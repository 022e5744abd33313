"""An fp32 graph becomes one whose convolutions compute in fp16 or bf16, with the casts written into the graph.

TensorRT 11 and TensorRT for RTX are strongly typed: no flag lowers the precision, so the graph must have the casts.
Every convolution gets a cast before and after it, and its weights are stored in the lower precision. Everything between
convolutions stays fp32: normalisation (its sums run over up to 262,144 values), pooling, sigmoids, the CAM and its
min-max. Inputs and outputs of the graph stay fp32 and keep their names.

onnxconverter-common does the same for fp16 alone: it has no bf16, and needs a list of every operator that must stay
fp32. Here only the operator that changes is named. So this module does the conversion itself, with the onnx package.
"""

from __future__ import annotations

from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

from nodule_diag_export.errors import ExportError
from nodule_diag_export.graph.parsing import opset_of

Precision = Literal["fp16", "bf16"]
REDUCED: dict[Precision, tuple[int, np.dtype[np.generic]]] = {
    "fp16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "bf16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}
"""The names of each precision in ONNX and numpy."""
LARGEST: dict[Precision, float] = {"fp16": 65504.0, "bf16": (2.0 - 2.0**-7) * 2.0**127}
"""The largest finite number of each precision."""
BF16_OPSET = 22
"""The first opset whose convolution takes bf16."""
CONVOLUTION = "Conv"


def mixed_graph(proto: ModelProto, precision: Precision) -> ModelProto:
    """A copy of an fp32 graph with its convolutions in a lower precision.

    Args:
        proto: The fp32 graph.
        precision: Precision of the convolutions.

    Returns:
        The graph, checked. A bf16 one has at least opset 22.

    Raises:
        ExportError: If a weight does not fit the precision, the graph has no convolution, or the result is not valid.
    """
    mixed = _rewritten(proto, precision, emulate=False)
    try:
        onnx.checker.check_model(mixed, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the {precision} graph is not valid ONNX: {error}") from error
    return mixed


def emulated_graph(proto: ModelProto, precision: Precision) -> ModelProto:
    """The same rounding in fp32 arithmetic, for runtimes without convolutions of this precision.

    Operands and results of each convolution are rounded to the precision and back; its products are summed in fp32, as
    the tensor cores of a GPU do. Run the graph with graph optimisation off: an optimiser may remove the pair of casts.

    Args:
        proto: The fp32 graph.
        precision: The precision to round to.

    Returns:
        The graph, fp32 throughout except for the casts.

    Raises:
        ExportError: As :func:`mixed_graph`.
    """
    return _rewritten(proto, precision, emulate=True)


def _rewritten(proto: ModelProto, precision: Precision, *, emulate: bool) -> ModelProto:
    onnx_type, numpy_type = REDUCED[precision]
    if precision == "bf16" and opset_of(proto) < BF16_OPSET:
        graph_of = version_converter.convert_version(proto, BF16_OPSET)
    else:
        graph_of = ModelProto()
        graph_of.CopyFrom(proto)
    graph = graph_of.graph
    convolutions = [node for node in graph.node if node.op_type == CONVOLUTION]
    if not convolutions:
        raise ExportError(f"the graph has no convolution to run in {precision}")
    weights = {name for node in convolutions for name in node.input[1:]}
    _require_own_weights(graph, weights)
    for tensor in graph.initializer:
        if tensor.name in weights:
            rounded = _rounded(numpy_helper.to_array(tensor), numpy_type, tensor.name, precision)
            stored = rounded.astype(np.float32) if emulate else rounded
            tensor.CopyFrom(numpy_helper.from_array(stored, tensor.name))
    nodes: list[NodeProto] = []
    lowered: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != CONVOLUTION:
            nodes.append(node)
            continue
        source, result = node.input[0], node.output[0]
        if source not in lowered:
            nodes += _casts(source, f"{source}_{precision}", onnx_type, back=emulate)
            lowered[source] = f"{source}_{precision}"
        computed = NodeProto()
        computed.CopyFrom(node)
        computed.input[0], computed.output[0] = lowered[source], f"{result}_{precision}"
        nodes.append(computed)
        nodes += _casts(computed.output[0], result, onnx_type, back=True, forth=emulate)
    del graph.node[:]
    graph.node.extend(nodes)
    return graph_of


def _casts(source: str, target: str, onnx_type: int, *, back: bool, forth: bool = True) -> list[NodeProto]:
    """From ``source`` to ``target``: ``forth`` rounds to the lower precision, ``back`` widens to fp32."""
    steps = [onnx_type] * forth + [TensorProto.FLOAT] * back
    names = [source, *(f"{target}_rounded" for _ in steps[1:]), target]
    return [
        helper.make_node("Cast", [names[i]], [names[i + 1]], name=f"cast_{names[i + 1]}", to=step)
        for i, step in enumerate(steps)
    ]


def _require_own_weights(graph: onnx.GraphProto, weights: set[str]) -> None:
    """Check that weights are stored constants that only convolutions read: any other reader would need them in fp32."""
    stored = {tensor.name for tensor in graph.initializer}
    others = {name for node in graph.node if node.op_type != CONVOLUTION for name in node.input}
    if wrong := sorted((weights - stored) | (weights & others)):
        raise ExportError(f"these weights of convolutions are computed or shared: {', '.join(wrong[:5])}")


def _rounded(
    weight: NDArray[np.generic], numpy_type: np.dtype[np.generic], name: str, precision: Precision
) -> NDArray[np.generic]:
    largest = float(np.abs(weight).max(initial=0))
    limit = LARGEST[precision]
    if not largest <= limit:
        raise ExportError(f"{name} holds {largest:g}, which {precision} cannot (at most {limit:g})")
    return weight.astype(numpy_type)
