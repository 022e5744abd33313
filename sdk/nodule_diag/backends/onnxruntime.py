"""ONNX Runtime, on the CPU or an NVIDIA GPU."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from functools import cache, partial
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends.backend import CPU_BATCH, GPU_BATCH, Backend, BackendStatus, Device, Outputs
from nodule_diag.backends.imports import import_installed
from nodule_diag.backends.onnx_file import read_network
from nodule_diag.backends.onnxruntime_binding import BoundSession
from nodule_diag.backends.tensors import (
    MAX_REASON,
    check_tensors,
    checked_outputs,
    no_precision,
    output_names,
    unreadable,
)
from nodule_diag.backends.time_limit import time_limit
from nodule_diag.bundle import Bundle
from nodule_diag.errors import BackendError, NoduleDiagError

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
"""Two distributions that install the same files: the one installed later overwrites parts of the other."""
LEAST_RUNTIME = (1, 28)
"""Earlier versions open any file that a network names, and crash on a function that calls itself. As a second check,
such a network is refused before a runtime sees it (:mod:`nodule_diag.backends.onnx_file`)."""
LOG_FATAL_ONLY = 4
"""ONNX Runtime's severity. Its errors are raised as exceptions too; its log lines would only clutter stderr."""
TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""onnxruntime 1.29 and later reads this variable at import; without it, the use is reported to Microsoft (on Linux)."""
FIRST_WITH_TELEMETRY = (1, 29)


def import_runtime() -> ModuleType:
    """Import onnxruntime, with its telemetry off unless the embedding program has set the variable itself.

    Raises:
        BackendError: ``onnxruntime-conflict`` when both distributions are installed into one folder;
            ``onnxruntime-broken`` when it cannot be loaded; ``onnxruntime-old`` before :data:`LEAST_RUNTIME`.
        MissingExtraError: When neither is installed.
    """
    if installed := _colliding_distributions():
        raise BackendError(
            f"{' and '.join(installed)} are installed together; they overwrite each other's files",
            hint=f"pip uninstall --yes {' '.join(installed)} && pip install 'nodule-diag[cpu]'"
            " (or 'nodule-diag[gpu]' for an NVIDIA GPU)",
            code="onnxruntime-conflict",
        )
    telemetry_notice()
    runtime = import_installed(
        "onnxruntime",
        package="onnxruntime",
        extra="cpu",
        code="onnxruntime-broken",
        reinstall="--no-deps onnxruntime",
    )
    if tuple(map(int, runtime.__version__.split(".")[:2])) < LEAST_RUNTIME:
        raise BackendError(
            f"onnxruntime {runtime.__version__} is installed;"
            f" {'.'.join(map(str, LEAST_RUNTIME))} or later is needed: earlier ones open files that a network names",
            hint="pip install --upgrade onnxruntime (or onnxruntime-gpu)",
            code="onnxruntime-old",
        )
    return runtime


@cache
def telemetry_notice() -> str:
    """Switch onnxruntime's telemetry off, once per process; returns why it may be on, or an empty text.

    The embedding program decides with :data:`TELEMETRY`. If that program imported onnxruntime first and did not set
    the variable, the telemetry cannot be switched off any more, and one warning says so.
    """
    if TELEMETRY in os.environ:
        chosen = os.environ[TELEMETRY]
        return "" if chosen.lower() in {"1", "true"} else f"onnxruntime obeys {TELEMETRY}={chosen} of the environment"
    os.environ[TELEMETRY] = "1"
    imported = sys.modules.get("onnxruntime")
    if imported is None or "CI" in os.environ or _version(imported) < FIRST_WITH_TELEMETRY:
        return ""
    notice = (
        "onnxruntime was imported before nodule-diag, which could not switch its telemetry off:"
        f" set {TELEMETRY}=1 before that import"
    )
    warnings.warn(notice, RuntimeWarning, stacklevel=3)
    return notice


def _version(runtime: ModuleType) -> tuple[int, ...]:
    return tuple(int(part) for part in runtime.__version__.split(".")[:2])


def _colliding_distributions() -> tuple[str, ...]:
    """The distributions that share a folder. In separate folders, the first one on the path hides the other."""
    places = {}
    for name in DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            places[name] = str(metadata.distribution(name).locate_file("onnxruntime"))
    return tuple(name for name in places if list(places.values()).count(places[name]) > 1)


def status() -> BackendStatus:
    """Whether ONNX Runtime can run here."""
    try:
        runtime = import_runtime()
    except NoduleDiagError as error:
        return BackendStatus("onnxruntime", usable=False, reason=error.message, hint=error.hint)
    devices = ("cpu", "cuda") if CUDA_PROVIDER in runtime.get_available_providers() else ("cpu",)
    return BackendStatus("onnxruntime", usable=True, version=runtime.__version__, devices=devices)


def load(bundle: Bundle, *, device: Device, precision: str, threads: int) -> Backend:
    """An :class:`OnnxRuntimeBackend`; see there.

    Raises:
        BackendError: ``precision-unavailable`` for any precision but fp32.
    """
    if precision != OnnxRuntimeBackend.precision:
        raise no_precision(precision, "the onnxruntime backend runs the fp32 network")
    return OnnxRuntimeBackend(bundle, device=device, threads=threads)


class OnnxRuntimeBackend:
    """A session of ONNX Runtime; :meth:`infer` may be called from several threads.

    Args:
        bundle: A checked bundle.
        device: Where to run. ``auto`` takes CUDA where the provider loads and the CPU otherwise.
        threads: CPU threads of one call.
        cuda_graphs: On a GPU: whether to record each batch size as a CUDA graph; None does so where the session allows
            it. The answers are the same either way. The attribute of this name says whether graphs are used.

    Raises:
        BackendError: ``device-unavailable`` when CUDA was requested and cannot be used; see :func:`import_runtime`.
        BundleError: ``bundle-model-unreadable``, ``bundle-tensor-missing`` or ``bundle-tensor-shape``.
    """

    name = "onnxruntime"
    precision = "fp32"

    def __init__(self, bundle: Bundle, *, device: Device, threads: int, cuda_graphs: bool | None = None) -> None:
        self._runtime = import_runtime()
        self.cuda_graphs = False
        self._spec = bundle.manifest.model
        self.threads = threads
        self._session, self.device = self._open(self._network(bundle), device, cuda_graphs)
        self.batch = CPU_BATCH if self.device == "cpu" else GPU_BATCH
        check_tensors(self._spec, inputs=self._session.get_inputs(), outputs=self._session.get_outputs())
        self._bound = None if self.device == "cpu" else self._bind("cuda", device.index)

    def infer(self, patches: NDArray[np.float32]) -> Outputs:
        """Run the network; see :class:`nodule_diag.backends.Backend`."""
        names = output_names(self._spec)
        options = self._runtime.RunOptions()
        with time_limit(len(patches), partial(setattr, options, "terminate", True), name=self.name):
            try:
                if self._bound is None:
                    arrays = self._session.run(list(names.values()), {self._spec.input.name: patches}, options)
                else:
                    arrays = self._bound.run(list(names.values()), patches, options)
            except faults(self._runtime) as error:
                raise BackendError(
                    f"onnxruntime failed on {len(patches)} patches on {self.device}: {first_line(error)}",
                    hint="use fewer nodules a call, or --device cpu",
                    code="inference-failed",
                ) from error
        return checked_outputs(
            dict(zip(names, arrays, strict=True)),
            spec=self._spec,
            patches=len(patches),
            device=self.device,
            precision=self.precision,
        )

    def _network(self, bundle: Bundle) -> bytes:
        """The ONNX file to run."""
        return read_network(bundle, self._spec.file)

    def _options(self) -> Any:  # noqa: ANN401 - onnxruntime has no types
        """The options of a session."""
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = LOG_FATAL_ONLY
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # A network with weights in other files would make the runtime look for them outside the bundle. With no folder
        # to look in, the runtime finds none.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        # Threads spin between nodes, which makes a call a tenth faster. Threads that spin between calls would take
        # cores from the host application.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return options

    def _bind(self, device: str, index: int) -> BoundSession:
        return BoundSession(
            self._runtime, self._session, spec=self._spec, device=device, index=index, graphs=self.cuda_graphs
        )

    def _open(self, model: bytes, device: Device, cuda_graphs: bool | None) -> tuple[Any, str]:
        """The session, and the name of the device that it really uses."""
        if device.kind == "cpu":
            return self._session_on(model, [CPU_PROVIDER]), "cpu"
        why = "this onnxruntime was built without CUDA"
        ways: tuple[bool, ...] = ()
        if CUDA_PROVIDER in self._runtime.get_available_providers():
            # A session refuses graphs when a node runs on the CPU.
            ways = (True, False) if cuda_graphs is None else (cuda_graphs,)
            if hasattr(self._runtime, "preload_dlls"):
                self._runtime.preload_dlls()  # CUDA and cuDNN from their pip packages, where those are installed
        for graphs in ways:
            # TF32 keeps 10 bits of mantissa: results would differ from the CPU's by more than the promised 1e-4.
            options = {"device_id": device.index, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
            options["enable_cuda_graph"] = int(graphs)
            try:
                session = self._session_on(model, [(CUDA_PROVIDER, options), CPU_PROVIDER])
            except BackendError as error:
                why = error.message
                continue
            if CUDA_PROVIDER in session.get_providers():
                self.cuda_graphs = graphs
                return session, f"cuda:{device.index}"
            why = "its CUDA libraries or a GPU are missing"
        if device.kind == "cuda":
            raise BackendError(
                f"device cuda:{device.index} cannot be used: {why}",
                hint="pip uninstall --yes onnxruntime && pip install 'nodule-diag[gpu]', with an NVIDIA driver;"
                " or --device cpu",
                code="device-unavailable",
            )
        return self._session_on(model, [CPU_PROVIDER]), "cpu"

    def _session_on(self, model: bytes, providers: list[Any]) -> Any:  # noqa: ANN401
        """An InferenceSession, with the first of the providers if it loads."""
        errors = self._runtime.capi.onnxruntime_pybind11_state
        invalid = (errors.InvalidProtobuf, errors.InvalidGraph, errors.NotImplemented, errors.InvalidArgument)
        options = self._options()
        try:
            # enable_fallback=0: the default prints to stdout and silently goes on with the CPU.
            return self._runtime.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except faults(self._runtime) as error:
            if isinstance(error, invalid) or providers[0] == CPU_PROVIDER:
                raise unreadable(self._spec.file, runtime="onnxruntime", reason=first_line(error)) from error
            raise BackendError(first_line(error), code="device-unavailable") from error


def faults(runtime: ModuleType) -> tuple[type[Exception], ...]:
    """The exceptions of onnxruntime: its own classes, which have no common base, and two built-in ones."""
    own = vars(runtime.capi.onnxruntime_pybind11_state).values()
    return (RuntimeError, ValueError, *(kind for kind in own if isinstance(kind, type) and issubclass(kind, Exception)))


def first_line(error: Exception) -> str:
    """The first line of a runtime's message, shortened."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:MAX_REASON]
