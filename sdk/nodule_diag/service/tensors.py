"""Tensors of the Open Inference Protocol, version 2: JSON, and the extension that sends them as raw bytes.

https://github.com/kserve/open-inference-protocol and Triton's ``protocol/extension_binary_data.md``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from nodule_diag.errors import UsageError
from nodule_diag.service.problems import ServiceError
from nodule_diag.service.requests import parsed

DTYPES = {"FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "INT16": "<i2", "INT32": "<i4", "UINT8": "u1"}
"""The data types of an input; each input is converted to the required type."""
MAX_AXES = 8
JSON_BYTES = 16 * 2**20
"""The most JSON, which blocks all other threads while it is parsed; a patch takes up to 10 MiB of JSON."""
MAX_SIZE, MAX_VALUES = 2**31, 2**30
"""Limits of one axis, and of one input."""
Array = NDArray[Any]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    name: str
    parameters: dict[str, Any] = {}


class _Input(_Part):
    datatype: str
    shape: list[int] = Field(max_length=MAX_AXES)
    data: list[Any] | None = None


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    id: str | None = None
    inputs: list[_Input] = Field(min_length=1, max_length=16)
    outputs: list[_Part] = []
    parameters: dict[str, Any] = {}


class InferenceRequest(NamedTuple):
    """A decoded request.

    Attributes:
        id: The client's name for it.
        inputs: The inputs by name.
        outputs: The requested outputs, and whether each is sent as raw bytes; all outputs when empty.
        binary: Whether outputs that are not named are sent as raw bytes.
    """

    id: str | None
    inputs: dict[str, Array]
    outputs: dict[str, bool]
    binary: bool


def decode(body: bytes, header_length: str | None) -> InferenceRequest:
    """Read a request.

    Args:
        body: JSON, followed by the raw bytes of the inputs that have any, in their order.
        header_length: Bytes of the JSON, as Inference-Header-Content-Length says; None: the whole body is JSON.

    Raises:
        UsageError: ``inference-request``, or as `parsed`.
        ServiceError: ``json-too-large`` (413).
    """
    length = len(body)
    if header_length is not None:
        if not re.fullmatch("[0-9]{1,10}", header_length) or int(header_length) > length:
            raise _refused(f"Inference-Header-Content-Length is {header_length[:20]!r}; the body has {length} bytes")
        length = int(header_length)
    if length > JSON_BYTES:
        raise ServiceError(
            f"{length:,} bytes of JSON are over the limit of {JSON_BYTES:,}",
            status=413,
            code="json-too-large",
            hint="send the values as raw bytes: binary_tensor_data",
        )
    request = parsed(_Request, body[:length])
    at, inputs = length, {}
    for tensor in request.inputs:
        if tensor.name in inputs:
            raise _refused(f"the input {tensor.name!r} is there twice")
        size = tensor.parameters.get("binary_data_size")
        raw = None
        if size is not None:
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(body) - at:
                raise _refused(f"the input {tensor.name!r} promises {size} bytes, {len(body) - at} are there")
            raw = memoryview(body)[at : at + size]
            at += size
        inputs[tensor.name] = _array(tensor, raw)
    if at != len(body):
        raise _refused(f"{len(body) - at} bytes follow the inputs")
    binary = request.parameters.get("binary_data_output") is True
    outputs = {wanted.name: wanted.parameters.get("binary_data", binary) is True for wanted in request.outputs}
    return InferenceRequest(request.id, inputs, outputs, binary)


def _array(tensor: _Input, raw: memoryview | None) -> Array:
    if tensor.datatype not in DTYPES:
        raise _refused(f"the input {tensor.name!r} is of type {tensor.datatype!r}, not one of {', '.join(DTYPES)}")
    dtype, shape = np.dtype(DTYPES[tensor.datatype]), tuple(tensor.shape)
    if not all(0 <= size <= MAX_SIZE for size in shape) or prod(shape) > MAX_VALUES:
        raise _refused(f"the input {tensor.name!r} has the shape {list(shape)}")
    if raw is not None:
        if len(raw) != prod(shape) * dtype.itemsize:
            raise _refused(f"the input {tensor.name!r} of shape {list(shape)} has {len(raw)} bytes")
        return np.frombuffer(raw, dtype).reshape(shape)
    if tensor.data is None or len(tensor.data) not in (prod(shape), *shape[:1]):  # before any conversion
        raise _refused(f"the data of the input {tensor.name!r} are not {list(shape)} numbers")
    try:
        values = np.array(tensor.data, dtype=dtype)  # nested or flat: the protocol allows both
        return values.reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise _refused(f"the data of the input {tensor.name!r} are not {list(shape)} numbers") from error


def encode(
    outputs: Mapping[str, Array], request: InferenceRequest, *, model: str, version: str
) -> tuple[bytes, int | None]:
    """Write an answer.

    Returns:
        The body, and the number of bytes of its JSON where raw bytes follow.
    """
    told: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for name, values in outputs.items():
        tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        if request.outputs.get(name, request.binary):
            data = np.ascontiguousarray(values, dtype="<f4").tobytes()
            tensor["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
        else:
            tensor["data"] = values.astype(np.float64).ravel().tolist()
        told.append(tensor)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": told}
    if request.id is not None:
        document["id"] = request.id
    head = json.dumps(document, allow_nan=False).encode("ascii")
    return b"".join([head, *raw]), len(head) if raw else None


def _refused(why: str) -> UsageError:
    return UsageError(why, hint="see GET /v2/models/nodule-diag", code="inference-request")
