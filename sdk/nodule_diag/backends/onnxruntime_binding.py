"""ONNX Runtime on a GPU: buffers that stay on the GPU, bound once for each batch size, and CUDA graphs.

Without binding, every run allocates its tensors and copies through pageable memory. A CUDA graph needs the same
addresses in every run. ONNX Runtime records one graph for each ``gpu_graph_id``, here the batch size, and replays the
graph after that.

Binding is tested on the CPU, where it works the same way. Recording and replaying graphs has not yet been tested on a
GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nodule_diag.bundle import ModelSpec

LARGEST_BATCH = 64
"""More patches are run in parts, because buffers and graphs are kept for every batch size."""
GRAPH_ID = "gpu_graph_id"
"""Run option that names the graph to record or replay."""


class _Bound(NamedTuple):
    """Buffers of one batch size."""

    binding: Any
    patches: Any
    outputs: dict[str, Any]


class BoundSession:
    """A session whose inputs and outputs stay on the device; safe to use from several threads, which take turns.

    Args:
        runtime: The module onnxruntime.
        session: An InferenceSession.
        spec: The tensors by name.
        device: ``cuda``, or ``cpu`` for tests.
        index: Which CUDA device.
        graphs: Whether the session was made with CUDA graphs.
    """

    def __init__(
        self,
        runtime: ModuleType,
        session: Any,  # noqa: ANN401 - an InferenceSession
        *,
        spec: ModelSpec,
        device: str,
        index: int,
        graphs: bool,
    ) -> None:
        self._runtime = runtime
        self._session = session
        self._spec = spec
        self._device = (device, index)
        self._graphs = graphs
        self._bound: dict[int, _Bound] = {}
        self._lock = threading.Lock()

    def run(
        self,
        names: Sequence[str],
        patches: NDArray[np.float32],
        options: Any,  # noqa: ANN401 - RunOptions
    ) -> list[NDArray[np.float32]]:
        """Answers to (N, 2, 64, 64, 64) patches for the tensors ``names``, in their order, with the call's options."""
        with self._lock:
            parts = [
                self._run(names, patches[start : start + LARGEST_BATCH], options)
                for start in range(0, len(patches), LARGEST_BATCH)
            ]
        return parts[0] if len(parts) == 1 else [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _run(
        self,
        names: Sequence[str],
        patches: NDArray[np.float32],
        options: Any,  # noqa: ANN401 - RunOptions
    ) -> list[NDArray[np.float32]]:
        batch = len(patches)
        bound = self._bound.get(batch) or self._bound.setdefault(batch, self._bind(batch))
        bound.patches.update_inplace(np.ascontiguousarray(patches))
        if self._graphs:
            options.add_run_config_entry(GRAPH_ID, str(batch))
        self._session.run_with_iobinding(bound.binding, options)
        # On the CPU numpy() is a view of the buffer, which the next run overwrites.
        return [np.array(bound.outputs[name].numpy()) for name in names]

    def _bind(self, batch: int) -> _Bound:
        binding = self._session.io_binding()
        patches = self._buffer(batch, self._spec.input.shape)
        binding.bind_ortvalue_input(self._spec.input.name, patches)
        outputs = {}
        for tensor in self._spec.outputs.given().values():
            outputs[tensor.name] = self._buffer(batch, tensor.shape)
            binding.bind_ortvalue_output(tensor.name, outputs[tensor.name])
        return _Bound(binding, patches, outputs)

    def _buffer(self, batch: int, shape: tuple[int | str, ...]) -> Any:  # noqa: ANN401 - an OrtValue
        sizes = [batch, *(int(size) for size in shape[1:])]
        return self._runtime.OrtValue.ortvalue_from_shape_and_type(sizes, np.float32, *self._device)
