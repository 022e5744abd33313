"""Every backend by its name, each a module that is imported when it is first needed."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from nodule_diag.backends.backend import BackendModule, BackendStatus

_MODULES = {
    "onnxruntime": "nodule_diag.backends.onnxruntime",
    "openvino": "nodule_diag.backends.openvino",
    "winograd": "nodule_diag.backends.winograd",
    "tensorrt": "nodule_diag.backends.tensorrt",
    "tensorrt-rtx": "nodule_diag.backends.tensorrt_rtx",
}
"""Each a :class:`BackendModule` that is imported when it is first needed."""
BACKENDS = tuple(_MODULES)
"""Every backend that can be asked for."""


def backend_module(name: str) -> BackendModule:
    """Import the module of a backend, one of :data:`BACKENDS`; the runtime itself is not imported yet."""
    return cast(BackendModule, import_module(_MODULES[name]))


def backend_statuses() -> tuple[BackendStatus, ...]:
    """Ask every backend whether it could serve here; loads runtimes, but no network."""
    return tuple(backend_module(name).status() for name in BACKENDS)
