"""Every backend by its name, loaded on request; and the choice of ``auto``.

``auto`` takes the first backend of a fixed order that works here and whose answers are known to be right. The order is
by speed, measured once and not at run time: on one machine the same request always takes the same backend. ONNX
Runtime's fp32 network is the reference. Any other backend that the caller did not name needs figures within the gate:
in the bundle's manifest (``parity``), written where the bundle was made, or the user's own from this machine
(:mod:`nodule_diag.backends.own_figures`). Figures that miss the gate count in both places. Without any figures,
``auto`` takes ONNX Runtime in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Literal, NamedTuple, cast

from nodule_diag.backends.backend import PRECISIONS, Backend, BackendModule, BackendStatus, Device, parse_device
from nodule_diag.backends.own_figures import own_records
from nodule_diag.backends.parity import misses
from nodule_diag.bundle import Bundle, Manifest, ParityRecord
from nodule_diag.errors import BackendError, BundleError, MissingExtraError, UsageError

REFERENCE = "onnxruntime"
BACKENDS = (REFERENCE, "openvino", "winograd", "tensorrt", "tensorrt-rtx")
"""Each is the name of a module in this folder, with ``_`` for ``-``: a :class:`BackendModule`."""


class Candidate(NamedTuple):
    """One way to run the network: a backend's name, a kind of device and a precision."""

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


def backend_module(name: str) -> BackendModule:
    """Import the module of a backend, one of :data:`BACKENDS`; the runtime itself is not imported yet."""
    return cast(BackendModule, import_module(f"nodule_diag.backends.{name.replace('-', '_')}"))


def backend_statuses() -> tuple[BackendStatus, ...]:
    """Ask every backend whether it can run here; loads runtimes, but no network."""
    return tuple(backend_module(name).status() for name in BACKENDS)


def create_backend(
    bundle: Bundle, *, name: str = "auto", device: str = "auto", precision: str = "auto", threads: int
) -> Backend:
    """Load a bundle's network into the requested backend, ready to be called.

    Args:
        bundle: A checked bundle.
        name: A backend, or ``auto``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: fp32, or a reduced one whose recorded figures passed.
        threads: CPU threads a call may use.

    Raises:
        UsageError: For an unknown name.
        BackendError: When the backend, device or precision cannot be used. For ``auto``: ``precision-unavailable`` when
            no backend may use the precision, ``auto-without-parity`` when only a backend without figures is installed,
            ``auto-failed-selftest`` when the reference was wrong here and no other backend may be taken, else the error
            of the last candidate.
        MissingExtraError: When the runtime is not installed.
        BundleError: When the network is not what the manifest says.
    """
    for what, given, known in (("backend", name, BACKENDS), ("precision", precision, PRECISIONS)):
        if given not in {"auto", *known}:
            raise UsageError(f"unknown {what} {given!r}", hint=f"use auto, {', '.join(known)}")
    target = parse_device(device)
    if name != "auto" and precision != "auto":
        return backend_module(name).load(bundle, device=target, precision=precision, threads=threads)
    return _first_that_serves(bundle, name=name, device=target, precision=precision, threads=threads)


def has_passed(records: Sequence[ParityRecord], candidate: Candidate | ParityRecord) -> bool:
    """Whether there are figures of this backend, device and precision, and each of them is within its gate.

    For a reduced precision, the fp32 figures of the same device count too: a backend that is wrong in fp32 is wrong,
    even if it passes the wider gate.
    """
    ours = [record for record in records if (record.backend, record.device) == (candidate.backend, candidate.device)]
    judged = [record for record in ours if record.precision in {"fp32", candidate.precision}]
    measured = any(record.precision == candidate.precision for record in judged)
    return measured and not any(misses(record, precision=record.precision) for record in judged)


def _may_be_taken(records: Sequence[ParityRecord], candidate: Candidate) -> bool:
    """Whether ``auto`` may take the candidate. The reference needs no figures, but figures that miss the gate count."""
    without_figures = candidate.backend == REFERENCE and not any(
        (record.backend, record.device) == (REFERENCE, candidate.device) for record in records
    )
    return without_figures or has_passed(records, candidate)


def _first_that_serves(bundle: Bundle, *, name: str, device: Device, precision: str, threads: int) -> Backend:
    """Load the first candidate that fits the request and works here; see :func:`create_backend`."""
    fault: BackendError | BundleError = _nothing_fits(precision)
    records = (*bundle.manifest.parity, *own_records(bundle))
    for backend, target, taken in _attempts(records, name, device, precision):
        try:
            return backend_module(backend).load(bundle, device=target, precision=taken, threads=threads)
        except (BackendError, BundleError) as error:
            fault = error
    wanted = device.kind != "cuda" and precision in {"auto", "fp32"}
    if name == "auto" and wanted and not _may_be_taken(records, AUTO_ORDER[-1]):
        raise _nothing_fits(precision) from fault
    if name == "auto" and isinstance(fault, MissingExtraError):
        _say_what_was_left_out(bundle.manifest, fault)
    raise fault


def _attempts(
    records: Sequence[ParityRecord], name: str, device: Device, precision: str
) -> Iterator[tuple[str, Device, str]]:
    """Backend, device and precision of each load to try, in order."""
    for candidate in AUTO_ORDER:
        fits = (
            name in {"auto", candidate.backend}
            and precision in {"auto", candidate.precision}
            and device.kind in {"auto", candidate.device}
        )
        # A backend that the caller named needs no figures in fp32: it comes last, on whichever device it has.
        named = candidate.backend == name and candidate.precision == "fp32"
        if fits and not named and _may_be_taken(records, candidate):
            target = device if device.kind == candidate.device else Device(candidate.device)
            yield candidate.backend, target, candidate.precision
    if name != "auto":
        yield name, device, "fp32"


def _nothing_fits(precision: str) -> BackendError:
    """The error for a request that no candidate fits."""
    if precision in {"auto", "fp32"}:
        return BackendError(
            f"auto can take no backend: on this machine {REFERENCE} missed its self-test, and no other has passed one",
            hint=f"reinstall {REFERENCE}, then nodule-diag doctor --selftest --save; or name a backend with --backend",
            code="auto-failed-selftest",
        )
    return BackendError(
        f"precision {precision} is not available: auto takes a reduced precision only where its answers were compared"
        " and passed, by the bundle's maker or on this machine",
        hint="run nodule-diag doctor --selftest --save, use --precision fp32, or name the backend as well, such as"
        " --backend openvino",
        code="precision-unavailable",
    )


def _say_what_was_left_out(manifest: Manifest, fault: MissingExtraError) -> None:
    """Raise a better error where another backend is installed, but nobody compared its answers."""
    others = {candidate.backend for candidate in AUTO_ORDER if candidate.precision == "fp32"} - {REFERENCE}
    for name in sorted(others):
        if backend_module(name).status().usable:
            raise BackendError(
                f"auto cannot take {name}: {manifest.name} {manifest.version} does not record that its answers passed,"
                f" and {fault.package} is not installed",
                hint=f"use --backend {name}, or nodule-diag doctor --selftest --save, or {fault.hint}",
                code="auto-without-parity",
            ) from fault
