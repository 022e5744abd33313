"""``config.pbtxt`` of a model: Triton's ModelConfig as protobuf text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

TYPES = {"float32": "TYPE_FP32", "int16": "TYPE_INT16", "uint8": "TYPE_UINT8"}
"""Triton's names for the types of the two graphs."""
FREE = -1
"""An axis whose size is given by the request."""

Declared = Mapping[str, Mapping[str, Any]]
"""Type and shape of tensors by name, dynamic axes by a word."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How the server runs a model.

    Attributes:
        device: The device that runs the model.
        instances: Number of requests that run at a time, on each GPU or on the CPU.
        threads: CPU threads of an instance; 0 leaves it to ONNX Runtime, which then takes every core.
        max_batch: Most patches in a batch; the fused graph's requests are not batched.
        queue_delay_us: How long a patch waits for others, microseconds.
    """

    device: Literal["cpu", "gpu"] = "cpu"
    instances: int = 1
    threads: int = 0
    max_batch: int = 8
    queue_delay_us: int = 2000


def config_text(name: str, *, inputs: Declared, outputs: Declared, serving: Serving, batched: bool) -> str:
    """The configuration of a model whose first axis is the batch.

    Args:
        name: The model's folder.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        serving: How the server runs the model.
        batched: Whether the server may batch requests. The shapes are then without the batch axis, and a scalar for
            each patch is written as one number that is reshaped to none: no shape may be empty.
    """
    lines = [f"name: {json.dumps(name)}", 'backend: "onnxruntime"']
    lines.append(f"max_batch_size: {serving.max_batch if batched else 0}")
    for kind, tensors in (("input", inputs), ("output", outputs)):
        lines += [f"{kind} [", *_joined(_tensors(tensors, batched=batched)), "]"]
    kind = {"cpu": "KIND_CPU", "gpu": "KIND_GPU"}[serving.device]
    lines.append(f"instance_group [ {{ count: {serving.instances} kind: {kind} }} ]")
    if batched:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {serving.queue_delay_us} }}")
    if serving.device == "cpu":
        lines.append(f'parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{serving.threads}" }} }}')
    else:  # TF32 keeps 10 bits of mantissa: the answers would differ from the CPU's
        accelerator = '{ name: "cuda" parameters { key: "use_tf32" value: "0" } }'
        lines.append(f"optimization {{ execution_accelerators {{ gpu_execution_accelerator : [ {accelerator} ] }} }}")
    return "\n".join(lines) + "\n"


def _tensors(tensors: Declared, *, batched: bool) -> Iterator[str]:
    for name, tensor in tensors.items():
        shape = [FREE if isinstance(axis, str) else int(axis) for axis in tensor["shape"]]
        dims = shape[1:] if batched else shape
        reshape = "" if dims else " reshape { shape: [ ] }"
        listed = ", ".join(map(str, dims or [1]))
        yield f"  {{ name: {json.dumps(name)} data_type: {TYPES[tensor['type']]} dims: [ {listed} ]{reshape} }}"


def _joined(entries: Iterator[str]) -> Sequence[str]:
    """The entries, with a comma after each but the last."""
    *first, last = entries
    return [*(f"{entry}," for entry in first), last]
