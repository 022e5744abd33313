"""The bundle's model in torch: its weights from the ONNX graph or from a checkpoint.

The exporter keeps the names of the convolutions' weights. Group normalisation has become InstanceNormalization, Mul and
Add with nameless constants that follow their convolution; CNet's and RNet's weights are constants without a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from nodule_diag.bundle import Bundle
from nodule_diag.errors import UsageError
from nodule_diag_export.graph import ExportGraph
from nodule_diag_training.model import FEATURE_CHANNELS, SynergicModel

PREFIX = "model."
"""Prefix of the exported module's names."""
Float = NDArray[np.float32]


def torch_network(bundle: Bundle, *, checkpoint: Path | None = None) -> ExportGraph:
    """The network in torch, in evaluation mode, with the bundle's outputs.

    Args:
        bundle: The bundle with the weights.
        checkpoint: ``model.safetensors`` with the weights to use instead.

    Raises:
        UsageError: If the bundle's graph does not hold the weights under their names.
        TrainingDataError: If the checkpoint cannot be read.
    """
    if checkpoint is not None:
        from nodule_diag_training.engine import load_model  # reads LIDC's tables too: pandas

        return ExportGraph(load_model(checkpoint)[0].eval()).eval()
    proto = onnx.load_from_string(bundle.read(bundle.manifest.model.file))
    model = SynergicModel()
    weights = {name: torch.from_numpy(value.copy()) for name, value in state_of(proto).items()}
    wanted = model.state_dict()
    wrong = [name for name, value in wanted.items() if name not in weights or weights[name].shape != value.shape]
    if wrong:
        raise UsageError(
            f"the bundle's graph does not hold {len(wrong)} of the {len(wanted)} weights, such as {wrong[0]}",
            hint="give the model they came from: --checkpoint model.safetensors",
        )
    model.load_state_dict(weights)
    return ExportGraph(model.eval()).eval()


def state_of(proto: ModelProto) -> dict[str, Float]:
    """The weights that an exported graph holds, under the names of :class:`SynergicModel`."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    state = {name.removeprefix(PREFIX): value for name, value in constants.items() if name.startswith(PREFIX)}
    state |= dict(_normalisations(proto, constants))
    vectors = [value for value in constants.values() if value.shape == (FEATURE_CHANNELS,)]
    cams = [value.ravel() for value in constants.values() if value.shape == (FEATURE_CHANNELS, 1, 1, 1)]
    for vector in vectors:
        # The CAM is weighted by CNet's own weights (eq. 5), so these are there twice; RNet's are not.
        name = "cnet.weight" if any(np.array_equal(vector, cam) for cam in cams) else "rnet.weight"
        state[name] = vector[None]
    return state


def _normalisations(proto: ModelProto, constants: dict[str, Float]) -> Iterator[tuple[str, Float]]:
    """Scale and shift of every group normalisation, which follows its convolution."""
    maker = {name: node for node in proto.graph.node for name in node.output}
    users: dict[str, list[NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for node in proto.graph.node:
        if node.op_type != "InstanceNormalization":
            continue
        convolution = maker[maker[node.input[0]].input[0]]
        module = convolution.input[1].removeprefix(PREFIX).removesuffix(".weight")
        output = _next(users, node.output[0], "Reshape").output[0]
        for kind, field in (("Mul", "weight"), ("Add", "bias")):
            step = _next(users, output, kind)
            value = next(constants[name] for name in step.input if name in constants)
            yield f"{_norm_of(module)}.{field}", value.ravel()
            output = step.output[0]


def _next(users: dict[str, list[NodeProto]], name: str, kind: str) -> NodeProto:
    return next(node for node in users[name] if node.op_type == kind)


def _norm_of(convolution: str) -> str:
    """The normalisation that follows a convolution: conv1 -> norm1, conv -> norm, projection -> projection_norm."""
    parent, _, name = convolution.rpartition(".")
    return f"{parent}.{name.replace('conv', 'norm') if name.startswith('conv') else name + '_norm'}"
