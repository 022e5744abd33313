"""Which operators a graph speaks of. Needs no torch: graphs are lowered on machines that only run them."""

from __future__ import annotations

from onnx import ModelProto


def opset_of(proto: ModelProto) -> int:
    """Version of the standard operator set that a graph uses."""
    versions: list[int] = [entry.version for entry in proto.opset_import if entry.domain in {"", "ai.onnx"}]
    return versions[0]
