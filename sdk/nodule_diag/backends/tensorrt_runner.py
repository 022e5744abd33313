"""Runs and checks a TensorRT engine, with buffers bound once and a CUDA graph for each batch size.

This module is a part of :mod:`nodule_diag.backends.tensorrt` and was also written without a GPU to test it on.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends.cuda import CudaDevice, CudaGraph
from nodule_diag.backends.engines.build import BatchProfile
from nodule_diag.backends.tensors import Declared, check_tensors
from nodule_diag.bundle import ModelSpec
from nodule_diag.errors import BackendError

MAX_GRAPHS = 64
"""Recorded batch sizes of one profile. Profiles have far fewer sizes today; the limit bounds the memory."""


class Runner:
    """One optimisation profile: its context, its buffers, and a recorded graph for each batch size seen.

    Args:
        context: An IExecutionContext.
        profile: Its batch sizes.
        index: The profile's number in the engine.
        spec: The tensors by name.
        cuda: The device; its context is current.
        record: Whether to record CUDA graphs here; TensorRT for RTX does so itself.
    """

    def __init__(
        self,
        context: Any,  # noqa: ANN401
        *,
        profile: BatchProfile,
        index: int,
        spec: ModelSpec,
        cuda: CudaDevice,
        record: bool,
    ) -> None:
        self.largest = profile.largest
        self._context = context
        self._cuda = cuda
        self._input = spec.input.name
        self._record = record
        self._graphs: dict[int, CudaGraph] = {}
        tensors = [spec.input, *spec.outputs.given().values()]
        self._host = {t.name: cuda.pinned((profile.largest, *(int(n) for n in t.shape[1:]))) for t in tensors}
        self._gpu = {name: cuda.allocate(array.nbytes) for name, array in self._host.items()}
        self._require(context.set_optimization_profile_async(index, cuda.stream.handle), "choose its profile")
        cuda.stream.synchronize()
        for name, memory in self._gpu.items():
            self._require(context.set_tensor_address(name, int(memory)), f"bind {name}")

    def run(self, patches: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Answers by tensor name for at most :attr:`largest` patches; the context is current, with one caller only."""
        batch = len(patches)
        np.copyto(self._host[self._input][:batch], patches)
        self._cuda.upload(self._gpu[self._input], self._host[self._input][:batch])
        if batch in self._graphs:
            self._graphs[batch].launch()
        else:
            # The first run of a size is never recorded: TensorRT may still allocate or load resources.
            self._require(self._context.set_input_shape(self._input, patches.shape), f"take a batch of {batch}")
            self._enqueue()
            if self._record and len(self._graphs) < MAX_GRAPHS:
                self._cuda.stream.synchronize()
                self._graphs[batch] = self._cuda.capture(self._enqueue)
        outputs = [name for name in self._host if name != self._input]
        for name in outputs:
            self._cuda.download(self._host[name][:batch], self._gpu[name])
        self._cuda.stream.synchronize()
        return {name: self._host[name][:batch].copy() for name in outputs}

    def _enqueue(self) -> None:
        self._require(self._context.execute_async_v3(self._cuda.stream.handle), "run")

    def _require(self, done: bool, what: str) -> None:
        if not done:
            raise BackendError(f"the engine cannot {what}", hint="use --backend onnxruntime", code="engine-failed")


def check_engine(trt: ModuleType, engine: Any, spec: ModelSpec) -> None:  # noqa: ANN401
    """Compare the manifest's tensors with those of an engine.

    Raises:
        BundleError: ``bundle-tensor-missing`` or ``bundle-tensor-shape``.
    """
    declared: dict[Any, list[Declared]] = {trt.TensorIOMode.INPUT: [], trt.TensorIOMode.OUTPUT: []}
    for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
        _, *fixed = engine.get_tensor_shape(name)  # this SDK's profiles set the batch
        kind = engine.get_tensor_dtype(name)
        words = "tensor(float)" if kind == trt.float32 else f"tensor({kind})"
        declared[engine.get_tensor_mode(name)].append(Declared(name, [None, *fixed], words))
    check_tensors(spec, inputs=declared[trt.TensorIOMode.INPUT], outputs=declared[trt.TensorIOMode.OUTPUT])
