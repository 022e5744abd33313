"""Refuse an ONNX file whose weights lie in other files, before a runtime opens them.

ONNX lets a tensor name a file beside the model, or anywhere, and OpenVINO reads it, absolute paths too: a bundle could
name any file of the machine. ONNX Runtime can be told not to; OpenVINO cannot. So the file's protobuf is walked down
to its tensors here, without any library of ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from nodule_diag.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""
_FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT_BYTES = 10

TENSOR: Final = "TensorProto"
EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Fields of a tensor: where its data are, and whether (1) they are outside."""
MESSAGES = MappingProxyType(
    {
        "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
        "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
        "GraphProto": {1: "NodeProto", 5: TENSOR, 15: "SparseTensorProto"},
        "NodeProto": {5: "AttributeProto"},
        "AttributeProto": {
            5: TENSOR,
            6: "GraphProto",
            10: TENSOR,
            11: "GraphProto",
            22: "SparseTensorProto",
            23: "SparseTensorProto",
        },
        "SparseTensorProto": {1: TENSOR, 2: TENSOR},
        "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
        TENSOR: {},
    }
)
"""By message of onnx.proto: the fields that lead to tensors, and what is in them."""


def require_own_weights(model: bytes, *, file: str) -> None:
    """Check that an ONNX file carries all its weights.

    Args:
        model: The file's bytes.
        file: Its name, for the error.

    Raises:
        BundleError: ``bundle-model-unreadable`` when a tensor lies elsewhere, or the file is no protobuf.
    """
    waiting = [("ModelProto", memoryview(model))]
    while waiting:
        message, data = waiting.pop()
        for number, wire, value in _fields(data, file):
            if message == TENSOR and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)):
                raise BundleError(
                    f"{file} keeps weights in other files, where no hash of the bundle guards them",
                    hint="take the bundle from where it was made; export the network with its weights inside",
                    code="bundle-model-unreadable",
                )
            child = MESSAGES[message].get(number)
            if child is not None and wire == BYTES and isinstance(value, memoryview):
                waiting.append((child, value))


def _fields(data: memoryview, file: str) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and value of every field of a message; the value of a fixed-size field is its bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at, file)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(data, at, file)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, at = _varint(data, at, file)
        elif wire in _FIXED_SIZE:
            size = _FIXED_SIZE[wire]
        else:
            raise _malformed(file)
        if at + size > len(data):
            raise _malformed(file)
        yield number, wire, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int, file: str) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _malformed(file)


def _malformed(file: str) -> BundleError:
    return BundleError(
        f"{file} in the bundle is no ONNX file: its protobuf is damaged",
        hint="take the bundle from where it was made",
        code="bundle-model-unreadable",
    )
