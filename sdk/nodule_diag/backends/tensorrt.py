"""TensorRT 11 and TensorRT for RTX on an NVIDIA GPU: one implementation, two modules.

The engine holds two optimisation profiles, one for a single nodule and one for a batch, each with its own context over
the same weights. Buffers are pinned and bound once. TensorRT's work for a batch size is recorded as a CUDA graph at the
first run of that size, and replayed after that.

This module has not yet run on a GPU. Building, caching and refusing are tested. The parts that need a GPU follow
NVIDIA's documentation and pycuda's source.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends.backend import GPU_BATCH, BackendStatus, Device, Outputs
from nodule_diag.backends.cuda import CudaDevice, import_pycuda, list_gpus
from nodule_diag.backends.engines.build import (
    ONE_NODULE,
    PATCH_SHAPE,
    TENSORRT,
    Flavour,
    build_engine,
    import_flavour,
    message_log,
    offered_capabilities,
    profile_name,
    profiles_up_to,
)
from nodule_diag.backends.engines.cache import EngineCache
from nodule_diag.backends.engines.store import EngineKey, EngineRefusedError
from nodule_diag.backends.onnx_file import read_network
from nodule_diag.backends.tensorrt_runner import Runner, check_engine
from nodule_diag.backends.tensors import checked_outputs, output_names
from nodule_diag.bundle import Bundle
from nodule_diag.errors import BackendError, NoduleDiagError


def status(flavour: Flavour = TENSORRT) -> BackendStatus:
    """Whether TensorRT can run here, or why not: module, driver, pycuda and GPU are checked in this order."""
    version = ""
    try:
        version = import_flavour(flavour).__version__
        gpus = list_gpus(import_pycuda(flavour.name))
        if not gpus:
            raise _no_gpu()
    except NoduleDiagError as error:
        return BackendStatus(flavour.name, usable=False, reason=error.message, hint=error.hint, version=version)
    devices = tuple(f"cuda:{gpu.index}" for gpu in gpus)
    return BackendStatus(flavour.name, usable=True, version=version, devices=devices)


def _no_gpu() -> BackendError:
    return BackendError(
        "the NVIDIA driver shows no GPU",
        hint="check CUDA_VISIBLE_DEVICES and nvidia-smi, or use --backend onnxruntime",
        code="device-unavailable",
    )


class TensorRTBackend:
    """An engine of TensorRT; :meth:`infer` may be called from several threads, which then take turns.

    The engine comes from the cache, or is built now. A build takes seconds to minutes, once for each bundle, GPU,
    driver, version and precision.

    Args:
        bundle: A checked bundle.
        device: Where to run; ``auto`` is the first GPU.
        precision: ``fp32``, or a reduced one whose graph the bundle holds.
        threads: Unused on a GPU; reported as given.
        flavour: Which of the two runtimes.
        cache: Where engines are kept.
        cuda_graphs: Record each batch size as a CUDA graph. The answers are the same without graphs.

    Raises:
        MissingExtraError: When the runtime or pycuda is not installed.
        BackendError: ``cuda-no-driver``, ``device-unavailable``, ``precision-unavailable``, ``engine-build-failed``
            and errors that the GPU reports.
        BundleError: ``bundle-tensor-missing`` or ``bundle-tensor-shape``.
    """

    batch = GPU_BATCH

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device,
        precision: str,
        threads: int,
        flavour: Flavour = TENSORRT,
        cache: EngineCache | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        self._cuda_graphs = cuda_graphs
        self._trt = import_flavour(flavour)
        if device.kind == "cpu":
            raise BackendError(
                f"{flavour.name} runs on NVIDIA GPUs only", hint="use --device cuda", code="device-unavailable"
            )
        driver = import_pycuda(flavour.name)
        if not driver.Device.count():
            raise _no_gpu()
        self._cuda = CudaDevice(driver, index=device.index)
        self._flavour = flavour
        self._cache = EngineCache() if cache is None else cache
        self._spec = bundle.manifest.model
        self._profiles = profiles_up_to()
        self._lock = threading.Lock()
        self.name = flavour.name
        self.device = f"cuda:{device.index}"
        self.precision = precision
        self.threads = threads
        network = read_network(bundle, self._spec.file_of(self.precision))
        self._key = self._engine_key(network)
        with self._cuda.current():
            self._engine = self._load(network)
            check_engine(self._trt, self._engine, self._spec)
            self._runners = self._make_runners()

    def infer(self, patches: NDArray[np.float32]) -> Outputs:
        """Run the network; see :class:`nodule_diag.backends.Backend`."""
        with self._lock, self._cuda.current():
            parts = [runner.run(part) for runner, part in self._split(patches)]
        names = output_names(self._spec).items()
        named = {field: np.concatenate([part[name] for part in parts]) for field, name in names}
        return checked_outputs(
            named, spec=self._spec, patches=len(patches), device=self.device, precision=self.precision
        )

    def _split(self, patches: NDArray[np.float32]) -> Iterator[tuple[Runner, NDArray[np.float32]]]:
        """One nodule goes to the static profile, several go to the batched one, in parts of its largest batch."""
        single, batched = self._runners[0], self._runners[-1]
        for start in range(0, len(patches), batched.largest):
            part = patches[start : start + batched.largest]
            yield (single if len(part) == ONE_NODULE.largest else batched), part

    def _engine_key(self, network: bytes) -> EngineKey:
        gpu = self._cuda.gpu
        return EngineKey.model_validate(
            {
                "model_sha256": hashlib.sha256(network).hexdigest(),
                "runtime": self._flavour.name,
                "runtime_version": self._trt.__version__,
                "gpu": gpu.name,
                "compute_capability": gpu.compute_capability,
                "driver": gpu.driver,
                "precision": self.precision,
                "profile": profile_name(self._profiles),
            }
        )

    def _load(self, network: bytes) -> Any:  # noqa: ANN401 - an ICudaEngine
        """The engine; if TensorRT refuses an engine that passed every check, the engine is built once more."""
        self._log = message_log(self._trt)
        self._runtime = self._trt.Runtime(self._log)
        for _ in range(2):
            plan = self._cache.get(self._key, build=lambda: self._build(network))
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is not None:
                return engine
            self._cache.discard(self._key)
        raise EngineRefusedError(
            f"{self.name} refuses the engine that it built for {self._cuda.gpu.name}: {self._log.reason()}",
            hint="use --backend onnxruntime, and report this",
        )

    def _build(self, network: bytes) -> bytes:
        capability = self._cuda.gpu.compute_capability
        named: tuple[str, ...] = ()
        if self._flavour.ahead_of_time and capability in offered_capabilities(self._trt):
            named = (capability,)
        # Timings depend on the GPU, driver and version, not on the network: networks share them.
        same_gpu = self._key.model_copy(update={"model_sha256": "0" * 64, "precision": "fp32", "profile": "any"})
        timings = f"{same_gpu.digest}.timing"
        built = build_engine(
            self._trt,
            network,
            input_name=self._spec.input.name,
            profiles=self._profiles,
            capabilities=named,
            timing=not self._flavour.ahead_of_time,
            timing_cache=self._cache.load_blob(timings),
        )
        if built.timing_cache is not None:
            self._cache.store_blob(timings, built.timing_cache)
        return built.plan

    def _make_runners(self) -> tuple[Runner, ...]:
        """A runner for each profile, warm; TensorRT for RTX compiles its kernels now and keeps them."""
        if not self._flavour.ahead_of_time:
            made = [self._runner(index, None) for index in range(len(self._profiles))]
            return tuple(made)
        kernels = f"{self._key.digest}.kernels"
        config = self._engine.create_runtime_config()
        strategies = self._trt.CudaGraphStrategy
        config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if self._cuda_graphs else strategies.DISABLED
        jit = config.create_runtime_cache()
        kept = self._cache.load_blob(kernels)
        if kept is not None:
            jit.deserialize(kept)  # refused if of another driver or version; kernels are compiled again then
        config.set_runtime_cache(jit)
        made = [self._runner(index, config) for index in range(len(self._profiles))]
        now = bytes(jit.serialize())
        if now != kept:
            self._cache.store_blob(kernels, now)
        return tuple(made)

    def _runner(self, index: int, config: Any) -> Runner:  # noqa: ANN401 - an IRuntimeConfig
        context = (
            self._engine.create_execution_context()
            if config is None
            else self._engine.create_execution_context(runtime_config=config)
        )
        if context is None:
            raise BackendError(
                f"{self.name} cannot prepare the engine: {self._log.reason()}",
                hint="free GPU memory",
                code="engine-refused",
            )
        runner = Runner(
            context,
            profile=self._profiles[index],
            index=index,
            spec=self._spec,
            cuda=self._cuda,
            record=config is None and self._cuda_graphs,
        )
        warm = np.zeros((self._profiles[index].typical, *PATCH_SHAPE), np.float32)
        runner.run(warm)
        return runner


load = TensorRTBackend
