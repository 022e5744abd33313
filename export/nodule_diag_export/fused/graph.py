"""The fused graph: windows and cubic spline as ONNX nodes, in front of a bundle's network.

Windowing is a subtraction, a product and a clip; the separable spline is one matrix product for each axis
(``spline``). So a program needs only a CT's voxels and three small matrices, and no preprocessing of its own.
``docs/fused-graph.md`` is the contract.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper

from nodule_diag.bundle import ModelSpec, Preprocessing
from nodule_diag.preprocessing import PATCH_SIZE
from nodule_diag_export.errors import ExportError
from nodule_diag_export.graph import PRODUCER, opset_of

HuType = Literal["float32", "int16"]
HU_TYPES: Final[dict[HuType, int]] = {"float32": TensorProto.FLOAT, "int16": TensorProto.INT16}
"""Types that the HU region may have, and ONNX's numbers for them."""

HU = "hu"
LUNG_MASK = "lung_mask"
MATRICES = ("along_z", "along_y", "along_x")
BATCH_AXIS = "B"
REGION_AXES = ("z", "y", "x")
"""Names of the dynamic axes. The caller chooses the sizes of the region and the columns of the matrices."""
LEAST_OPSET = 13
"""Since this version, Unsqueeze takes its axes as an input."""
_SCOPE = "preprocessing/"
"""Prefix of every inner name, so that none can be the network's."""


class _Nodes:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, _SCOPE + name))
        return _SCOPE + name

    def add(self, kind: str, name: str, *inputs: str, **attributes: int | list[int]) -> str:
        output = _SCOPE + name
        node = helper.make_node(kind, list(inputs), [output], name=output)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return output


def preprocessing_graph(
    preprocessing: Preprocessing, *, opset: int, ir_version: int, hu_type: HuType = "float32", batch: str = BATCH_AXIS
) -> ModelProto:
    """The graph from a region of HU to the network's patch.

    Args:
        preprocessing: The windows, and whether the lung mask is an input.
        opset: The network's version of the standard operators.
        ir_version: The network's version of the file format.
        hu_type: Type of the HU.
        batch: The network's name of the batch axis.

    Returns:
        Inputs ``hu`` [B, z, y, x], ``lung_mask`` [B, z, y, x] uint8 where the mask is an input, ``along_z`` [B, 64, z],
        ``along_y`` [B, 64, y], ``along_x`` [B, 64, x] float32; one output, [B, 2, 64, 64, 64] float32.

    Raises:
        ExportError: If the operator set is too old.
    """
    if opset < LEAST_OPSET:
        raise ExportError(
            f"the network uses opset {opset}; the fused graph needs {LEAST_OPSET} or later",
            hint="export the network again with nodule-diag export",
        )
    graph = _Nodes()
    region = HU if hu_type == "float32" else graph.add("Cast", "hu_float", HU, to=TensorProto.FLOAT)
    if preprocessing.masked_input:
        region = _only_lung(graph, region, outside_hu=preprocessing.outside_lung_hu)
    patch = _resampled(graph, _windowed(graph, region, preprocessing))
    shape = [batch, *REGION_AXES]
    inputs = [helper.make_tensor_value_info(HU, HU_TYPES[hu_type], shape)]
    if preprocessing.masked_input:
        inputs.append(helper.make_tensor_value_info(LUNG_MASK, TensorProto.UINT8, shape))
    inputs += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, PATCH_SIZE, axis])
        for name, axis in zip(MATRICES, REGION_AXES, strict=True)
    ]
    output = helper.make_tensor_value_info(patch, TensorProto.FLOAT, [batch, 2, *[PATCH_SIZE] * 3])
    return helper.make_model(
        helper.make_graph(graph.nodes, "preprocessing", inputs, [output], initializer=graph.constants),
        producer_name=PRODUCER,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir_version,
    )


def _only_lung(graph: _Nodes, region: str, *, outside_hu: float) -> str:
    """Paper 4.2, step 8. The mask is converted to float: not every runtime compares or converts uint8 otherwise."""
    mask = graph.add("Cast", "mask_float", LUNG_MASK, to=TensorProto.FLOAT)
    inside = graph.add("Greater", "in_lung", mask, graph.constant("zero", np.array(0.0, np.float32)))
    return graph.add("Where", "hu_masked", inside, region, graph.constant("outside", np.array(outside_hu, np.float32)))


def _windowed(graph: _Nodes, region: str, preprocessing: Preprocessing) -> str:
    """[B, z, y, x] HU to [B, 2, z, y, x] in [0, 1], by the same steps as ``window_channels``."""
    low = np.array([window[0] for window in preprocessing.windows_hu], np.float32)
    scale = np.array([1.0 / (high - low) for low, high in preprocessing.windows_hu], np.float32)
    channel = graph.add("Unsqueeze", "hu_channel", region, graph.constant("channel_axis", np.array([1], np.int64)))
    lifted = graph.add("Sub", "lifted", channel, graph.constant("window_low", low.reshape(2, 1, 1, 1)))
    scaled = graph.add("Mul", "scaled", lifted, graph.constant("window_scale", scale.reshape(2, 1, 1, 1)))
    limits = (graph.constant(name, np.array(value, np.float32)) for name, value in (("black", 0.0), ("white", 1.0)))
    return graph.add("Clip", "windows", scaled, *limits)


def _resampled(graph: _Nodes, windows: str) -> str:
    """[B, 2, z, y, x] to [B, 2, 64, 64, 64]: along x, then y, then z, each one matrix product."""
    along_z, along_y, along_x = MATRICES
    axes = graph.constant("matrix_axes", np.array([1, 2], np.int64))
    turned = graph.add("Transpose", "along_x_turned", along_x, perm=[0, 2, 1])
    right = graph.add("Unsqueeze", "along_x_5d", turned, axes)
    left = graph.add("Unsqueeze", "along_y_5d", along_y, axes)
    planes = graph.add("MatMul", "planes", left, graph.add("MatMul", "rows", windows, right))
    flat = graph.add("Reshape", "planes_flat", planes, graph.constant("flat", np.array([0, 0, 0, -1], np.int64)))
    front = graph.add("Unsqueeze", "along_z_4d", along_z, graph.constant("z_axis", np.array([1], np.int64)))
    stack = graph.add("MatMul", "stack", front, flat)
    cube = graph.constant("cube", np.array([0, 2, *[PATCH_SIZE] * 3], np.int64))
    return graph.add("Reshape", "patch", stack, cube)


def fuse(network: ModelProto, spec: ModelSpec, preprocessing: Preprocessing, *, hu_type: HuType) -> ModelProto:
    """Put the preprocessing in front of a network, whose nodes and weights stay as they are.

    Args:
        network: A network with the tensors of ``spec``.
        spec: Names the input for the patch, and the outputs.
        preprocessing: The preprocessing that the network was trained with.
        hu_type: Type of the HU.

    Returns:
        One graph with the network's outputs and metadata.

    Raises:
        ExportError: If the two do not fit together, or the result is not valid ONNX.
    """
    declared = next((value for value in network.graph.input if value.name == spec.input.name), None)
    if declared is None:
        raise ExportError(f"the network has no input {spec.input.name!r}")
    front = preprocessing_graph(
        preprocessing,
        opset=opset_of(network),
        ir_version=network.ir_version,
        hu_type=hu_type,
        batch=declared.type.tensor_type.shape.dim[0].dim_param or BATCH_AXIS,
    )
    taken = {name for node in network.graph.node for name in (*node.input, *node.output)}
    if clash := sorted(taken & {value.name for value in front.graph.input}):
        raise ExportError(f"the network has tensors of its own called {', '.join(clash)}")
    try:
        fused = compose.merge_models(
            front,
            network,
            io_map=[(front.graph.output[0].name, spec.input.name)],
            name=PRODUCER,
            producer_name=PRODUCER,
        )
        fused.graph.doc_string, fused.producer_version = "", ""
        del fused.opset_import[:]
        fused.opset_import.extend(network.opset_import)
        onnx.checker.check_model(fused, full_check=True)
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"preprocessing and network do not make one valid graph: {error}") from error
    return fused
