"""What ``auto`` takes: the first of a fixed order that works here and whose answers are known to be right.

The order is by speed as it was measured, not as it is at the moment: on one machine the same request always takes the
same backend. ONNX Runtime's fp32 network is the reference; any other choice that the caller did not make by name needs
figures within the gate in the bundle's manifest (``parity``), written where the bundle was made. Without them, ``auto``
is ONNX Runtime in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nodule_diag.backends.backend import Backend, Device
from nodule_diag.backends.parity import misses
from nodule_diag.backends.registry import backend_module
from nodule_diag.bundle import Bundle, Manifest
from nodule_diag.errors import BackendError, BundleError, MissingExtraError

REFERENCE = "onnxruntime"


@dataclass(frozen=True)
class Candidate:
    """One way to run the network.

    Attributes:
        backend: Its name.
        device: The kind of device.
        precision: What it computes in.
    """

    backend: str
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]


AUTO_ORDER = (
    Candidate(REFERENCE, "cuda", "fp32"),
    Candidate("openvino", "cpu", "bf16"),
    Candidate("winograd", "cpu", "fp32"),
    Candidate("openvino", "cpu", "fp32"),
    Candidate(REFERENCE, "cpu", "fp32"),
)
"""Fastest first."""


def has_passed(manifest: Manifest, candidate: Candidate) -> bool:
    """Whether the bundle records figures of this candidate, and each of them is within the gate."""
    records = [
        record
        for record in manifest.parity
        if (record.backend, record.device, record.precision)
        == (candidate.backend, candidate.device, candidate.precision)
    ]
    return bool(records) and not any(misses(record, precision=candidate.precision) for record in records)


def choose(bundle: Bundle, *, name: str, device: Device, precision: str, threads: int) -> Backend:
    """Load the first candidate that fits the request and works here.

    Args:
        bundle: A checked bundle.
        name: A backend, or ``auto``.
        device: Where it may run.
        precision: A precision, or ``auto``: fp32, or a reduced one whose recorded figures passed.
        threads: CPU threads a call may use.

    Raises:
        BackendError: ``precision-unavailable`` when nothing can take the precision, ``auto-without-parity`` when only
            a backend without figures is installed, else what the last candidate said.
        MissingExtraError: When no runtime is installed.
        BundleError: When the network is not what the manifest says.
    """
    fault: BackendError | BundleError = BackendError(
        f"precision {precision} is not available: auto takes a reduced precision only where the bundle records that"
        " its answers were compared and passed",
        hint="use --precision fp32, or name the backend as well, such as --backend openvino",
        code="precision-unavailable",
    )
    for backend, target, taken in _attempts(bundle.manifest, name, device, precision):
        try:
            return backend_module(backend).load(bundle, device=target, precision=taken, threads=threads)
        except (BackendError, BundleError) as error:
            fault = error
    if name == "auto" and isinstance(fault, MissingExtraError):
        _say_what_was_left_out(bundle.manifest, fault)
    raise fault


def _attempts(manifest: Manifest, name: str, device: Device, precision: str) -> Iterator[tuple[str, Device, str]]:
    """Backend, device and precision of each load to try, in order."""
    for candidate in AUTO_ORDER:
        fits = (
            name in {"auto", candidate.backend}
            and precision in {"auto", candidate.precision}
            and device.kind in {"auto", candidate.device}
        )
        # A backend that the caller named serves fp32 on trust: below, on whichever device it has.
        named = candidate.backend == name and candidate.precision == "fp32"
        trusted = candidate.backend == REFERENCE
        if fits and not named and (trusted or has_passed(manifest, candidate)):
            target = device if device.kind == candidate.device else Device(candidate.device)
            yield candidate.backend, target, candidate.precision
    if name != "auto":
        yield name, device, "fp32"


def _say_what_was_left_out(manifest: Manifest, fault: MissingExtraError) -> None:
    """Raise a better error where another backend is installed, but nobody compared its answers."""
    others = {candidate.backend for candidate in AUTO_ORDER if candidate.precision == "fp32"} - {REFERENCE}
    for name in sorted(others):
        if backend_module(name).status().usable:
            raise BackendError(
                f"auto cannot take {name}: {manifest.name} {manifest.version} does not record that its answers passed,"
                f" and {fault.package} is not installed",
                hint=f"use --backend {name}, or {fault.hint}",
                code="auto-without-parity",
            ) from fault
