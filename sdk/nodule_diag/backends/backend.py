"""The Protocol of a backend, its inputs and outputs, and the terms of a request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nodule_diag.bundle import Bundle
from nodule_diag.errors import UsageError

PRECISIONS = ("fp32", "bf16", "fp16")
CPU_BATCH = 1
"""On a CPU, whose caches hold the activations of one patch better than those of several: a nodule costs 6 % less CPU
time than in a batch of 8. An answer also does not depend on the other patches of the call."""
GPU_BATCH = 8
"""On a GPU, which a single patch does not fill: 17 MB of patches, about 100 MB of activations."""
_DEVICE = re.compile(r"auto|cpu|cuda(?::(\d{1,3}))?")


@dataclass(frozen=True, eq=False)
class Outputs:
    """The network's answer for N patches.

    Attributes:
        malignancy: (N,) float32, CNet's probability P.
        logit: (N,) float32, S of paper eq. 4.
        expert_score: (N,) float32, 1..5.
        segmentation: (N, 16, 16, 16) float32, zyx.
        cam: (N, 16, 16, 16) float32, zyx, min-max normalised CAM_c (eq. 6).
        raw_cam: (N, 16, 16, 16) float32, zyx, the CAM of eq. 5; None where the bundle's network does not give it.
        features: (N, 256) float32, F_k of paper eq. 4; None where the bundle's network does not give them.
        malignancy_spread: (N,) float32, standard deviation of P over several views; None for one view.
        view_logits: (N, V) float32, S of each of the V views; None for one view.
    """

    malignancy: NDArray[np.float32]
    logit: NDArray[np.float32]
    expert_score: NDArray[np.float32]
    segmentation: NDArray[np.float32]
    cam: NDArray[np.float32]
    raw_cam: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None
    malignancy_spread: NDArray[np.float32] | None = None
    view_logits: NDArray[np.float32] | None = None

    def given(self) -> dict[str, NDArray[np.float32]]:
        """The arrays that are not None, by field."""
        return {name: array for name, array in vars(self).items() if array is not None}

    @classmethod
    def joined(cls, parts: Sequence[Outputs]) -> Outputs:
        """Join the answers of several runs of one network."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in parts[0].given()})

    def first(self, count: int) -> Outputs:
        """The answers for the first ``count`` patches."""
        return Outputs(**{name: array[:count] for name, array in self.given().items()})


class Backend(Protocol):
    """A network that is loaded and ready; safe to use from several threads."""

    name: str
    device: str
    precision: str
    threads: int
    batch: int
    """Patches per run with the least time per patch. Any number is allowed; memory grows with the number."""

    def infer(self, patches: NDArray[np.float32]) -> Outputs:
        """Answers to (N, 2, 64, 64, 64) float32 patches, as ``extract_patches`` makes them, in their order; N >= 1."""
        ...


@dataclass(frozen=True)
class Device:
    """A parsed device request; ``index`` says which CUDA device."""

    kind: Literal["auto", "cpu", "cuda"]
    index: int = 0


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can serve here, for ``nodule-diag doctor``.

    Attributes:
        name: The backend.
        usable: Whether a prediction could run with it now.
        reason: Why not; empty when usable.
        hint: What to do about it.
        version: Version of the runtime; empty when not installed.
        devices: The devices that it can run on.
        precisions: The precisions that it supports, where the device does.
    """

    name: str
    usable: bool
    reason: str = ""
    hint: str = ""
    version: str = ""
    devices: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("fp32",)


class BackendModule(Protocol):
    """What the module of a backend offers."""

    def status(self) -> BackendStatus:
        """Whether its runtime is installed and loads; never raises a :class:`NoduleDiagError`."""
        ...

    def load(self, bundle: Bundle, *, device: Device, precision: str, threads: int) -> Backend:
        """Load a bundle's network; ``precision`` is never ``auto``."""
        ...


def parse_device(device: str) -> Device:
    """Read ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: For anything else.
    """
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise UsageError(f"unknown device {device!r}", hint="use auto, cpu, cuda or cuda:N")
    if device == "auto":
        return Device("auto")
    return Device("cpu") if device == "cpu" else Device("cuda", int(match[1] or 0))
