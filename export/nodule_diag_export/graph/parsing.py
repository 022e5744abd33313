"""The operator set and the outputs of a graph.

Needs no torch: graphs are lowered on machines that only run them.
"""

from __future__ import annotations

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, ValueInfoProto, helper

from nodule_diag.bundle import FEATURES, ModelOutputs, TensorSpec
from nodule_diag_export.errors import ExportError

PRECISION_KEY = "precision"
FEATURES_OUTPUT = "features"


def opset_of(proto: ModelProto) -> int:
    """Version of the standard operator set that a graph uses."""
    versions: list[int] = [entry.version for entry in proto.opset_import if entry.domain in {"", "ai.onnx"}]
    return versions[0]


def outputs_of(proto: ModelProto) -> ModelOutputs:
    """The outputs of a graph as a manifest describes them: the five, and the features where the graph has them."""
    if all(output.name != FEATURES_OUTPUT for output in proto.graph.output):
        return ModelOutputs()
    return ModelOutputs(features=TensorSpec(name=FEATURES_OUTPUT, shape=("B", FEATURES)))


def parse_onnx(data: bytes, *, name: str) -> ModelProto:
    """Read an ONNX file.

    Raises:
        ExportError: If the bytes are no ONNX file.
    """
    try:
        return onnx.load_from_string(data)
    except DecodeError as error:
        raise ExportError(f"{name} is not an ONNX file: {error}") from error


def precision_of(proto: ModelProto) -> str:
    """The precision that a file states; ``fp32`` where it states none."""
    return next((entry.value for entry in proto.metadata_props if entry.key == PRECISION_KEY), "fp32")


def tensors_of(values: list[ValueInfoProto]) -> dict[str, dict[str, object]]:
    """Type and shape of declared tensors by name, for JSON; dynamic axes by their names."""
    return {
        value.name: {
            "type": helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            "shape": [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
        }
        for value in values
    }
