"""What a network means that TensorRT has parsed, computed layer by layer: an interpreter of its layers in torch.

A parser's mistake is in what it makes of the graph, and that can be looked at without a GPU. Each kind of layer is
computed as NVIDIA's documentation of the layer says, from the attributes that the parsed layer has. A kind that is not
known here is an error, so nothing is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class ParsedNetwork:
    """A parsed network, by its tensors.

    Args:
        trt: The module that parsed it.
        network: An INetworkDefinition, whose parser is still there.
    """

    def __init__(self, trt: Any, network: Any) -> None:
        self._trt = trt
        self.layers = [_typed(trt, network.get_layer(index)) for index in range(network.num_layers)]
        self.maker = {output.name: layer for layer in self.layers for output in _tensors(layer.get_output)}
        self.outputs = [network.get_output(index).name for index in range(network.num_outputs)]

    def kind(self, layer: Any) -> str:
        """``CONVOLUTION``."""
        return next(kind for kind, name in _CLASSES.items() if type(layer) is getattr(self._trt, name))

    def of_kind(self, kind: str) -> list[Any]:
        """Layers of a kind, in the network's order."""
        return [layer for layer in self.layers if self.kind(layer) == kind]

    def user(self, layer: Any) -> Any:
        """The one layer that takes a layer's output."""
        name = layer.get_output(0).name
        (found,) = [other for other in self.layers if name in {tensor.name for tensor in _tensors(other.get_input)}]
        return found

    def evaluate(self, known: Mapping[str, Tensor], wanted: Sequence[str]) -> list[Tensor]:
        """Tensors by name, computed from those that are known."""
        values = dict(known)
        for name in wanted:
            self._compute(name, values)
        return [values[name] for name in wanted]

    def _compute(self, name: str, values: dict[str, Tensor]) -> None:
        if name in values:
            return
        layer = self.maker[name]
        inputs = [tensor.name for tensor in _tensors(layer.get_input)]
        for each in inputs:
            self._compute(each, values)
        (output,) = _tensors(layer.get_output)
        compute: Callable[..., Tensor] = getattr(self, f"_{self.kind(layer).lower()}")
        found = compute(layer, *(values[each] for each in inputs))
        shape = tuple(output.shape)
        fits = len(found.shape) == len(shape) and all(a in (b, -1) for a, b in zip(shape, found.shape, strict=True))
        assert fits, f"{name} is {tuple(found.shape)}, and TensorRT says {shape}"
        values[name] = found

    def _constant(self, layer: Any) -> Tensor:
        return torch.from_numpy(np.array(layer.weights).reshape(tuple(layer.shape)))

    def _cast(self, layer: Any, x: Tensor) -> Tensor:
        # Values of the lower precision, in numbers that every CPU computes in.
        kinds = {"HALF": torch.float16, "BF16": torch.bfloat16, "FLOAT": torch.float32, "INT64": torch.int64}
        made = x.to(kinds[layer.get_output(0).dtype.name])
        return made.float() if made.is_floating_point() else made

    def _shape(self, _: Any, x: Tensor) -> Tensor:
        return torch.tensor(x.shape)

    def _unsqueeze(self, _: Any, x: Tensor, axes: Tensor) -> Tensor:
        for axis in sorted(axes.tolist()):
            x = x.unsqueeze(axis)
        return x

    def _squeeze(self, _: Any, x: Tensor, axes: Tensor) -> Tensor:
        return x.squeeze(tuple(axes.tolist()))

    def _shuffle(self, layer: Any, x: Tensor, dynamic: Tensor | None = None) -> Tensor:
        x = x.permute(list(layer.first_transpose)[: x.ndim])
        shape = list(layer.reshape_dims) if dynamic is None else dynamic.tolist()
        if layer.zero_is_placeholder:
            shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
        x = x.reshape(shape)
        return x.permute(list(layer.second_transpose)[: x.ndim])

    def _normalization(self, layer: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Over the axes named; with several groups, over the channels of a group as well."""
        shape, groups = x.shape, layer.num_groups
        axes = [axis for axis in range(x.ndim) if layer.axes >> axis & 1]
        if groups > 1:
            x = x.reshape(shape[0], groups, -1, *shape[2:])
            axes = [2, *(axis + 1 for axis in axes)]
        x = x.double()
        centred = x - x.mean(axes, keepdim=True)
        found = centred / (centred.square().mean(axes, keepdim=True) + layer.epsilon).sqrt()
        return (found.reshape(shape) * scale + shift).float()

    def _elementwise(self, layer: Any, a: Tensor, b: Tensor) -> Tensor:
        return _ELEMENTWISE[layer.op.name](a, b)

    def _activation(self, layer: Any, x: Tensor) -> Tensor:
        if layer.type == self._trt.ActivationType.CLIP:
            return x.clamp(layer.alpha, layer.beta)
        return {"RELU": torch.relu, "SIGMOID": torch.sigmoid}[layer.type.name](x)

    def _reduce(self, layer: Any, x: Tensor) -> Tensor:
        axes = [axis for axis in range(x.ndim) if layer.axes >> axis & 1]
        reduce = {"AVG": torch.mean, "SUM": torch.sum, "MAX": torch.amax, "MIN": torch.amin}[layer.op.name]
        return reduce(x, axes, keepdim=layer.keep_dims)

    def _select(self, _: Any, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition, a, b)

    def _convolution(self, layer: Any, x: Tensor) -> Tensor:
        size = (layer.num_output_maps, x.shape[1] // layer.num_groups, *layer.kernel_size_nd)
        weight = torch.from_numpy(np.array(layer.kernel).reshape(size))
        assert tuple(layer.pre_padding) == tuple(layer.post_padding)
        assert not np.array(layer.bias).size
        return functional.conv3d(
            x,
            weight,
            stride=tuple(layer.stride_nd),
            padding=tuple(layer.pre_padding),
            dilation=tuple(layer.dilation_nd),
            groups=layer.num_groups,
        )


_CLASSES = {
    "CONSTANT": "IConstantLayer",
    "CAST": "ICastLayer",
    "SHAPE": "IShapeLayer",
    "UNSQUEEZE": "IUnsqueezeLayer",
    "SQUEEZE": "ISqueezeLayer",
    "SHUFFLE": "IShuffleLayer",
    "NORMALIZATION": "INormalizationLayer",
    "ELEMENTWISE": "IElementWiseLayer",
    "ACTIVATION": "IActivationLayer",
    "REDUCE": "IReduceLayer",
    "SELECT": "ISelectLayer",
    "CONVOLUTION": "IConvolutionLayer",
}
_ELEMENTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SUM": torch.add,
    "SUB": torch.sub,
    "PROD": torch.mul,
    "DIV": torch.div,
    "GREATER": torch.gt,
    "EQUAL": torch.eq,
    "OR": torch.logical_or,
}


def _typed(trt: Any, layer: Any) -> Any:
    """The API hands layers out as what they have in common; their kind says what they are."""
    layer.__class__ = getattr(trt, _CLASSES[layer.type.name])
    return layer


def _tensors(get: Callable[[int], Any]) -> Iterator[Any]:
    index = 0
    while (tensor := get(index)) is not None:
        yield tensor
        index += 1
