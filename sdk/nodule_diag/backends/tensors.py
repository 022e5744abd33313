"""The checks of every backend: the tensors that a network declares, and the answers that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends.backend import Device, Outputs
from nodule_diag.bundle import ModelSpec, TensorSpec
from nodule_diag.errors import BackendError, BundleError

RANGES = MappingProxyType(
    {"malignancy": (0.0, 1.0), "expert_score": (1.0, 5.0), "segmentation": (0.0, 1.0), "cam": (0.0, 1.0)}
)
"""The range of an answer, by field; the logit and the raw CAM have none."""
ROUNDING = MappingProxyType({"fp32": 1e-4, "reduced": 0.02})
"""How far rounding may put an answer outside its range: the limit of its gate (:mod:`nodule_diag.backends.parity`)."""
MAX_REASON = 300
"""Characters of a runtime's own message that are passed on."""


class Node(Protocol):
    """A tensor as a runtime declares it, in ONNX Runtime's terms: ``tensor(float)``, and no number for a free axis."""

    @property
    def name(self) -> str:
        """The tensor's name in the file."""

    @property
    def shape(self) -> Sequence[int | str | None]:
        """The size of each axis."""

    @property
    def type(self) -> str:
        """The type of the elements."""


class Declared(NamedTuple):
    """A :class:`Node` of a runtime that uses other terms."""

    name: str
    shape: Sequence[int | str | None]
    type: str


def require_cpu(name: str, device: Device) -> None:
    """Refuse CUDA for a backend that runs on the CPU only.

    Raises:
        BackendError: ``device-unavailable``.
    """
    if device.kind == "cuda":
        raise BackendError(
            f"device cuda:{device.index} cannot be used: the {name} backend runs on the CPU",
            hint="use --backend onnxruntime for an NVIDIA GPU, or --device cpu",
            code="device-unavailable",
        )


def no_precision(precision: str, why: str) -> BackendError:
    """The error for a precision that a backend does not support."""
    return BackendError(
        f"precision {precision} is not available: {why}",
        hint="use --precision fp32 or auto",
        code="precision-unavailable",
    )


def output_names(spec: ModelSpec) -> dict[str, str]:
    """The tensor's name for each field of :class:`nodule_diag.backends.Outputs` that the network gives."""
    return {field: tensor.name for field, tensor in spec.outputs.given().items()}


def checked_outputs(
    arrays: Mapping[str, NDArray[np.float32]], *, spec: ModelSpec, patches: int, device: str, precision: str
) -> Outputs:
    """Check the answers of a backend; every backend passes its answers through this function.

    Values that rounding put outside their range are clipped to the range; all others are unchanged.

    Args:
        arrays: The answers, by field of :class:`nodule_diag.backends.Outputs`.
        spec: The manifest's entry for each answer.
        patches: The number of patches.
        device: The device, for the error.
        precision: The precision that the backend computed in; the rounding tolerance depends on it.

    Raises:
        BackendError: ``output-shape`` for another shape or type, ``output-not-finite``, ``output-range``.
    """
    slack = ROUNDING["fp32" if precision == "fp32" else "reduced"]
    checked = {}
    for field, tensor in spec.outputs.given().items():
        wanted = (patches, *tensor.shape[1:])
        array: Any = arrays[field]  # the type depends on the runtime
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape != wanted:
            found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise _wrong_output("shape", f"{field} on {device} is {found}; expected float32 of shape {wanted}")
        if not np.isfinite(array).all():
            raise _wrong_output("not-finite", f"{field} is not a finite number on {device}")
        low, high = RANGES.get(field, (-np.inf, np.inf))
        smallest, largest = float(array.min()), float(array.max())
        if smallest < low - slack or largest > high + slack:
            worst = smallest if smallest < low - slack else largest
            raise _wrong_output("range", f"{field} is {worst:g} on {device}; it lies between {low:g} and {high:g}")
        checked[field] = array if low <= smallest and largest <= high else array.clip(low, high)
    return Outputs(**checked)


def _wrong_output(kind: str, what: str) -> BackendError:
    return BackendError(
        f"the network's {what}",
        hint="run nodule-diag doctor --selftest: it tells a wrong backend from a wrong bundle",
        code=f"output-{kind}",
    )


def unreadable(file: str, *, runtime: str, reason: str) -> BundleError:
    """The error for a network that a runtime cannot load."""
    return BundleError(
        f"{file} in the bundle is not a network that this {runtime} can load: {reason[:MAX_REASON]}",
        hint=f"upgrade {runtime}, or take the bundle from where it was made",
        code="bundle-model-unreadable",
    )


def check_tensors(spec: ModelSpec, *, inputs: Sequence[Node], outputs: Sequence[Node]) -> None:
    """Compare the manifest's tensors with those that a runtime found in the network.

    Raises:
        BundleError: ``bundle-tensor-missing`` or ``bundle-tensor-shape``.
    """
    if len(inputs) != 1:
        raise _tensor_fault(f"{spec.file} takes {len(inputs)} inputs; expected 1, {spec.input.name!r}", "missing")
    _check_tensor(spec.file, spec.input, "input", inputs)
    for tensor in spec.outputs.given().values():
        _check_tensor(spec.file, tensor, "output", outputs)


def _check_tensor(file: str, tensor: TensorSpec, role: str, declared: Sequence[Node]) -> None:
    found = next((node for node in declared if node.name == tensor.name), None)
    if found is None:
        names = ", ".join(node.name for node in declared)
        raise _tensor_fault(f"{file} has no {role} {tensor.name!r}; it has {names}", "missing")
    fixed = list(tensor.shape[1:])
    dynamic_batch = bool(found.shape) and not isinstance(found.shape[0], int)
    if not dynamic_batch or list(found.shape[1:]) != fixed or found.type != "tensor(float)":
        raise _tensor_fault(
            f"{role} {tensor.name!r} of {file} is {found.type} of shape {found.shape};"
            f" expected tensor(float) of shape {['B', *fixed]}",
            "shape",
        )


def _tensor_fault(message: str, kind: str) -> BundleError:
    return BundleError(message, hint="take the bundle from where it was made", code=f"bundle-tensor-{kind}")
