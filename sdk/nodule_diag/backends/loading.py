"""A bundle's network, loaded into the backend that was asked for."""

from __future__ import annotations

from nodule_diag.backends.backend import PRECISIONS, Backend, parse_device
from nodule_diag.backends.choice import choose
from nodule_diag.backends.registry import BACKENDS, backend_module
from nodule_diag.bundle import Bundle
from nodule_diag.errors import UsageError


def create_backend(
    bundle: Bundle, *, name: str = "auto", device: str = "auto", precision: str = "auto", threads: int
) -> Backend:
    """Load a bundle's network into the backend that was asked for.

    Args:
        bundle: A checked bundle.
        name: A backend, or ``auto``; :mod:`nodule_diag.backends.choice` says what that takes.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        threads: CPU threads a call may use.

    Returns:
        The backend, warm enough to be called.

    Raises:
        UsageError: For names that mean nothing.
        BackendError: When backend, device or precision cannot serve.
        MissingExtraError: When the runtime is not installed.
        BundleError: When the network is not what the manifest says.
    """
    if name not in {"auto", *BACKENDS}:
        raise UsageError(f"unknown backend {name!r}", hint=f"use auto, {', '.join(BACKENDS)}")
    if precision not in {"auto", *PRECISIONS}:
        raise UsageError(f"unknown precision {precision!r}", hint=f"use auto, {', '.join(PRECISIONS)}")
    target = parse_device(device)
    if name != "auto":
        module = backend_module(name)
        if precision != "auto":
            return module.load(bundle, device=target, precision=precision, threads=threads)
    return choose(bundle, name=name, device=target, precision=precision, threads=threads)
