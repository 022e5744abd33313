"""The same network with fewer products: a graph whose convolutions use Winograd's minimal filtering.

Nothing is approximated: the answers differ from the direct graph's only by float32's rounding. The rewritten part keeps
the channels last, which avoids transpositions between its layers. Unknown operators stay as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from nodule_diag_export.errors import ExportError

from .layers import Convolution, Layers, from_one_channel, pointwise, winograd
from .normalisation import GroupNorm, group_norm

MIN_CHANNELS = 16
"""Least inputs of a convolution after space to depth, and least outputs: below, the transforms cost what is saved."""
LAST = (0, 2, 3, 4, 1)
FIRST = (0, 4, 1, 2, 3)
"""Orders of axes that put the channels last, and back to first."""
SPACE = (2, 3, 4)
ELEMENTWISE = ("Relu", "Sigmoid", "Add")
REDUCED_TO = {"ReduceSum": (1,), "Squeeze": (1,)}
"""Operators on the channel axis, which is the last one after the rewriting."""


def winograd_graph(network: ModelProto) -> ModelProto:
    """Rewrite a network.

    Args:
        network: A graph of `nodule-diag export`; its weights must be inside.

    Returns:
        A graph with the same inputs and outputs.

    Raises:
        ExportError: ``winograd-unsupported`` if it has no convolution that can be rewritten, or is not valid ONNX.
    """
    try:
        onnx.checker.check_model(network)
        inferred = onnx.shape_inference.infer_shapes(network, strict_mode=True, data_prop=True)
        rewritten = _Rewriting(inferred).graph()
        onnx.checker.check_model(rewritten, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the graph is not valid ONNX: {error}", code="winograd-unsupported") from error
    return rewritten


@dataclass(frozen=True, kw_only=True, eq=False)
class _Norm:
    """A group normalisation as the exporter writes it: six nodes."""

    norm: GroupNorm
    nodes: tuple[NodeProto, ...]


class _Rewriting:
    """One pass over the nodes of a graph, in their order."""

    def __init__(self, network: ModelProto) -> None:
        self._network = network
        graph = network.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._shapes = {
            value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._layers = Layers()
        self._last: dict[str, str] = {}
        """For each tensor of the original graph: the tensor with its channels last."""
        self._first = {value.name for value in graph.input} | set(self._constants)
        """Tensors that exist in their original layout."""
        self._rewritten = 0

    def graph(self) -> ModelProto:
        source = self._network.graph
        norms = {norm.nodes[-1].output[0]: norm for norm in map(self._norm, source.node) if norm is not None}
        absorbed = {id(node) for norm in norms.values() for node in norm.nodes}
        for node in source.node:
            name = node.output[0]
            if name in norms:
                norm = norms[name].norm
                x = self._with_channels_last(norm.x)
                self._last[name] = group_norm(self._layers, x, norm, self._sizes(norm.x))
            elif id(node) not in absorbed and not self._rewrite(node):
                for read in node.input:
                    self._as_it_was(read)
                self._layers.nodes.append(node)
                self._first.update(node.output)
        for value in source.output:
            self._as_it_was(value.name)
        if not self._rewritten:
            raise ExportError(
                "the graph has no convolution that minimal filtering could compute",
                hint="give the fp32 graph of nodule-diag export onnx",
                code="winograd-unsupported",
            )
        return self._assembled()

    def _assembled(self) -> ModelProto:
        rewritten = ModelProto()
        rewritten.CopyFrom(self._network)
        graph = rewritten.graph
        for part in (graph.node, graph.initializer, graph.value_info):
            del part[:]
        graph.node.extend(self._layers.nodes)
        used = {name for node in graph.node for name in node.input}
        graph.initializer.extend(tensor for name, tensor in self._constants.items() if name in used)
        graph.initializer.extend(tensor for name, tensor in self._layers.constants.items() if name in used)
        return rewritten

    def _rewrite(self, node: NodeProto) -> bool:
        """Whether a node was replaced by nodes with the channels last."""
        if node.op_type == "Conv":
            return self._convolution(node)
        known = [name for name in node.input if name in self._last]
        if not known:
            return False
        layers, output = self._layers, node.output[0]
        others = [name for name in node.input if name not in self._last]
        if node.op_type in ELEMENTWISE and not others:
            self._last[output] = layers.add(node.op_type, *(self._last[name] for name in node.input))
        elif node.op_type == "Mul" and len(others) == 1 and self._is_by_channel(others[0]):
            factor = layers.constant(self._value(others[0]).reshape(-1))
            self._last[output] = layers.add("Mul", self._last[known[0]], factor)
        elif node.op_type in REDUCED_TO and self._axes(node) == REDUCED_TO[node.op_type]:
            axes = layers.constant(np.array([LAST.index(1)], np.int64))
            keep = {} if node.op_type == "Squeeze" else {"keepdims": 0}
            layers.add(node.op_type, self._last[known[0]], axes, output=output, **keep)
            self._first.add(output)
        elif node.op_type == "ReduceMean" and self._axes(node) == SPACE:
            self._mean(known[0], output)
        else:
            return False
        return True

    def _mean(self, name: str, output: str) -> None:
        """The mean of each channel, [B, C], by a product: runtimes are slow at means over leading axes."""
        sizes, channels = self._sizes(name), self._channels(name)
        cells = int(np.prod(sizes))
        flat = self._layers.reshape(self._last[name], -1, cells, channels)
        mean = self._layers.apply(np.full((1, cells), 1.0 / cells), flat)
        shape = self._layers.constant(np.array([-1, channels], np.int64))
        self._layers.add("Reshape", mean, shape, output=output)
        self._first.add(output)

    def _convolution(self, node: NodeProto) -> bool:
        convolution = self._described(node)
        if convolution is None:
            return False
        x, output = node.input[0], node.output[0]
        if convolution.kernel == 1 and x in self._last:
            self._last[output] = pointwise(self._layers, self._last[x], convolution)
            return True
        if convolution.inputs == convolution.stride == 1 and convolution.outputs >= MIN_CHANNELS:
            self._as_it_was(x)
            self._last[output] = from_one_channel(self._layers, x, convolution)
            return True
        if not convolution.fits or min(convolution.channels, convolution.outputs) < MIN_CHANNELS:
            return False
        self._last[output] = winograd(self._layers, self._with_channels_last(x), convolution)
        self._rewritten += 1
        return True

    def _described(self, node: NodeProto) -> Convolution | None:
        """A convolution that is the same along each axis, without bias or groups; None for any other."""
        said = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        weight = self._constants.get(node.input[1])
        if weight is None or weight.data_type != TensorProto.FLOAT or len(weight.dims) != 5 or len(node.input) != 2:
            return None
        outputs, inputs, *kernel = weight.dims
        strides, dilations = said.get("strides", [1] * 3), said.get("dilations", [1] * 3)
        if len({*kernel}) != 1 or len({*strides}) != 1 or len({*dilations}) != 1 or said.get("group", 1) != 1:
            return None
        found = Convolution(
            weight=weight.name,
            inputs=inputs,
            outputs=outputs,
            kernel=kernel[0],
            stride=strides[0],
            dilation=dilations[0],
            sizes=self._sizes(node.input[0]),
        )
        usual = said.get("auto_pad", b"NOTSET") == b"NOTSET" and list(said.get("pads", [0] * 6)) == [found.padding] * 6
        return found if usual and min(found.sizes) > 0 else None

    def _norm(self, node: NodeProto) -> _Norm | None:
        """The group normalisation round an InstanceNormalization, as torch's exporter writes it."""
        if node.op_type != "InstanceNormalization":
            return None
        before, after = self._makers.get(node.input[0]), self._only_reader(node.output[0], "Reshape")
        scaled = None if after is None else self._only_reader(after.output[0], "Mul")
        shifted = None if scaled is None else self._only_reader(scaled.output[0], "Add")
        if before is None or before.op_type != "Reshape" or after is None or scaled is None or shifted is None:
            return None
        x, shape = before.input[0], self._makers.get(after.input[1])
        groups, channels = self._channels(node.output[0]), self._channels(x)
        units = (np.ones(groups), np.zeros(groups))
        fits = (
            len(self._shapes.get(x, ())) == 5
            and self._value(before.input[1]).tolist() == [0, groups, -1]
            and shape is not None
            and shape.op_type == "Shape"
            and shape.input[0] == x
            and all(np.array_equal(self._value(name), unit) for name, unit in zip(node.input[1:], units, strict=True))
            and all(self._is_by_channel(end.input[1], channels) for end in (scaled, shifted))
        )
        if not fits or shape is None:
            return None
        norm = GroupNorm(
            x=x,
            groups=groups,
            epsilon=next(entry.f for entry in node.attribute if entry.name == "epsilon"),
            scale=self._value(scaled.input[1]).reshape(-1),
            shift=self._value(shifted.input[1]).reshape(-1),
        )
        return _Norm(norm=norm, nodes=(before, node, shape, after, scaled, shifted))

    def _only_reader(self, name: str, kind: str) -> NodeProto | None:
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    def _is_by_channel(self, name: str, channels: int | None = None) -> bool:
        """Whether a tensor is a constant [C, 1, 1, 1]."""
        if name not in self._constants:
            return False
        dims = list(self._constants[name].dims)
        return len(dims) == 4 and dims[1:] == [1, 1, 1] and channels in {None, dims[0]}

    def _value(self, name: str) -> NDArray[np.float32]:
        tensor = self._constants.get(name)
        return np.zeros(0, np.float32) if tensor is None else numpy_helper.to_array(tensor)

    def _axes(self, node: NodeProto) -> tuple[int, ...]:
        """Axes of a reduction that drops them; empty where they are not constant or are kept."""
        kept = next((entry.i for entry in node.attribute if entry.name == "keepdims"), 1)  # ONNX's default
        is_squeeze = node.op_type == "Squeeze"
        if len(node.input) != 2 or (kept and not is_squeeze):
            return ()
        return tuple(sorted(int(axis) % 5 for axis in self._value(node.input[1])))

    def _channels(self, name: str) -> int:
        """Size of the second axis; 0 where it is not known."""
        shape = self._shapes.get(name, ())
        return shape[1] if len(shape) > 1 else 0

    def _sizes(self, name: str) -> tuple[int, int, int]:
        """Cells along z, y and x; zeros where they are not known."""
        shape = self._shapes.get(name, ())
        return (shape[2], shape[3], shape[4]) if len(shape) == 5 else (0, 0, 0)

    def _with_channels_last(self, name: str) -> str:
        if name not in self._last:
            self._last[name] = self._layers.transpose(name, *LAST)
        return self._last[name]

    def _as_it_was(self, name: str) -> None:
        """Make sure that a tensor exists with its channels first."""
        if name and name not in self._first:
            self._layers.add("Transpose", self._last[name], output=name, perm=list(FIRST))
            self._first.add(name)
