"""OpenVINO on the CPU, in fp32 or, where the CPU supports it, bf16."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends.backend import CPU_BATCH, BackendStatus, Device, Outputs
from nodule_diag.backends.imports import import_installed
from nodule_diag.backends.onnx_file import read_network
from nodule_diag.backends.tensors import (
    Declared,
    check_tensors,
    checked_outputs,
    no_precision,
    output_names,
    require_cpu,
    unreadable,
)
from nodule_diag.backends.time_limit import time_limit
from nodule_diag.bundle import Bundle
from nodule_diag.errors import BackendError, NoduleDiagError

DEVICE = "CPU"
"""OpenVINO's name of the one device that is used; its GPU plugin is for Intel's GPUs and untested here."""
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
"""The precisions, with OpenVINO's name of each type. fp16 on a CPU is emulated or falls back to fp32."""
BF16_CAPABILITY = "BF16"
TELEMETRY = "openvino_telemetry"
"""A package that openvino requires at installation; openvino also works where this package cannot be imported."""
_NOISE = ("Exception from ", "Check '")
"""Lines of OpenVINO's messages that only say where in its sources they were raised."""


def import_runtime() -> ModuleType:
    """Import openvino without its usage report.

    Raises:
        MissingExtraError: When it is not installed.
        BackendError: ``openvino-broken`` when it is installed but cannot be loaded.
    """
    with _no_telemetry():
        return import_installed(
            "openvino", package="openvino", extra="openvino", code="openvino-broken", reinstall="--no-deps openvino"
        )


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Keep ``import openvino`` from writing an identifier into the home folder and reporting to a web service.

    The package that does both is hidden during the import, unless the host application has already imported it.
    """
    if TELEMETRY in sys.modules:
        yield
        return
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]


def status() -> BackendStatus:
    """Whether OpenVINO can run here."""
    try:
        runtime = import_runtime()
        _cpu_capabilities(runtime.Core())
    except NoduleDiagError as error:
        return BackendStatus("openvino", usable=False, reason=error.message, hint=error.hint)
    version = runtime.__version__.partition("-")[0]
    return BackendStatus("openvino", usable=True, version=version, devices=("cpu",), precisions=tuple(PRECISIONS))


class OpenVinoBackend:
    """A network compiled by OpenVINO for the CPU; :meth:`infer` may be called from several threads.

    Attributes:
        threads: CPU threads of one call: the requested number, or fewer where this process may use fewer.

    Args:
        bundle: A checked bundle. Its bytes are compiled; no file is opened and none is written.
        device: ``cpu`` or ``auto``.
        precision: ``fp32`` or ``bf16``.
        threads: CPU threads of one call.

    Raises:
        BackendError: ``device-unavailable`` for another device, ``precision-unavailable`` for a precision that this
            CPU does not support; see :func:`import_runtime`.
        BundleError: ``bundle-model-unreadable``, ``bundle-tensor-missing`` or ``bundle-tensor-shape``.
    """

    name = "openvino"
    device = "cpu"
    batch = CPU_BATCH

    def __init__(self, bundle: Bundle, *, device: Device, precision: str, threads: int) -> None:
        require_cpu(self.name, device)
        self._spec = bundle.manifest.model
        self.precision = precision
        runtime = import_runtime()
        core = runtime.Core()
        _require_precision(core, precision)
        model = read_network(bundle, self._spec.file)
        self._network = self._compile(runtime, core, model, threads)
        self.threads = int(self._network.get_property("INFERENCE_NUM_THREADS"))

    def infer(self, patches: NDArray[np.float32]) -> Outputs:
        """Run the network; see :class:`nodule_diag.backends.Backend`."""
        # Threads must not share a request. A new request takes 0.2 ms and keeps no memory.
        request = self._network.create_infer_request()
        with time_limit(len(patches), request.cancel, name=self.name):
            try:
                # Not infer(), which cannot be cancelled.
                request.start_async({self._spec.input.name: patches}, share_inputs=True)
                request.wait()
            except RuntimeError as error:
                raise BackendError(
                    f"OpenVINO could not run the network on an array of shape {patches.shape}: {_reason(error)}",
                    hint="use --backend onnxruntime, and report this",
                    code="inference-failed",
                ) from error
        arrays = {field: request.get_tensor(name).data.copy() for field, name in output_names(self._spec).items()}
        return checked_outputs(
            arrays, spec=self._spec, patches=len(patches), device=self.device, precision=self.precision
        )

    def _compile(self, runtime: ModuleType, core: Any, model: bytes, threads: int) -> Any:  # noqa: ANN401 - openvino has no types
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": threads,
            # The default is the CPU's fastest precision: bf16 on some CPUs.
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.precision],
            # Pinned threads would keep cores that the host application has assigned to other work.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            read = core.read_model(model)
            check_tensors(
                self._spec,
                inputs=_declared(read.inputs, {self._spec.input.name}),
                outputs=_declared(read.outputs, set(output_names(self._spec).values())),
            )
            return core.compile_model(read, DEVICE, settings)
        except RuntimeError as error:
            raise unreadable(
                self._spec.file, runtime=f"openvino {runtime.__version__}", reason=_reason(error)
            ) from error


load = OpenVinoBackend


def _cpu_capabilities(core: Any) -> list[str]:  # noqa: ANN401 - openvino has no types
    """The precisions that the CPU plugin reports, such as FP32, BF16, INT8."""
    try:
        return list(core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))
    except RuntimeError as error:
        raise BackendError(
            f"openvino has no CPU plugin that works here: {_reason(error)}",
            hint="pip install --force-reinstall --no-deps openvino",
            code="openvino-broken",
        ) from error


def _require_precision(core: Any, precision: str) -> None:  # noqa: ANN401 - openvino has no types
    """Check the precision first: OpenVINO accepts any precision and may silently compute in another.

    Raises:
        BackendError: ``precision-unavailable``.
    """
    capabilities = _cpu_capabilities(core)
    if precision not in PRECISIONS:
        why = f"the openvino backend computes in {' or '.join(PRECISIONS)}"
    elif precision == "bf16" and BF16_CAPABILITY not in capabilities:
        name = core.get_property(DEVICE, "FULL_DEVICE_NAME")
        why = f"this CPU ({name}) has no bf16 instructions; OpenVINO lists {', '.join(capabilities)} for it"
    else:
        return
    raise no_precision(precision, why)


def _declared(ports: Sequence[Any], wanted: set[str]) -> list[Declared]:
    """Inputs or outputs of a network; a tensor with several names gets the one that the manifest uses."""
    tensors = []
    for port in ports:
        names, shape = port.get_names(), port.get_partial_shape()
        sizes = [] if shape.rank.is_dynamic else [None if axis.is_dynamic else axis.get_length() for axis in shape]
        kind = port.get_element_type().to_string()
        tensors.append(
            Declared(
                name=min(names & wanted or names, default=""),
                shape=sizes,
                type="tensor(float)" if kind == "f32" else f"tensor({kind})",
            )
        )
    return tensors


def _reason(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line and not line.startswith(_NOISE)) or type(error).__name__
