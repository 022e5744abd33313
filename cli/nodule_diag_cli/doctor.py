"""``nodule-diag doctor``: what works on this machine, found out by running it."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

from nodule_diag.errors import NoduleDiagError
from nodule_diag_cli import render
from nodule_diag_cli.options import JsonOption
from nodule_diag_cli.out import document_text

if TYPE_CHECKING:
    from nodule_diag.backends import BackendStatus
    from nodule_diag.bundle import Bundle

SCHEMA = "nodule-diag/doctor/1"
PACKAGES = ("numpy", "SimpleITK", "hnswlib", "pydantic", "typer", "onnxruntime", "onnxruntime-gpu")
COMPILERS = ("c++", "g++", "clang++", "cl")


def doctor(as_json: JsonOption = False) -> None:
    """Show what can serve on this machine: backends, versions, devices, threads."""
    with render.progress("running every backend"):
        document = examine()
    if as_json:
        sys.stdout.write(document_text(document))
    else:
        _render(document)


def examine() -> dict[str, Any]:
    """The document of ``doctor --json``."""
    from nodule_diag.backends import backend_statuses
    from nodule_diag.threads import resolve_threads

    threads = resolve_threads()
    bundle, bundle_fault = _default_bundle()
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    return {
        "schema": SCHEMA,
        "sdk_version": _version("nodule-diag"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": threads,
        "packages": {name: _version(name) for name in PACKAGES},
        "compiler": compiler,
        "bundle": bundle_fault or {"usable": True, "reason": "", "hint": ""},
        "backends": [_backend(status, bundle, threads) for status in backend_statuses()],
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _default_bundle() -> tuple[Bundle | None, dict[str, Any] | None]:
    """The packaged bundle, with its case index loaded once, or why it cannot be used."""
    from nodule_diag.bundle import Bundle
    from nodule_diag.retrieval import CaseIndex

    try:
        bundle = Bundle.default()
        CaseIndex(bundle)
    except NoduleDiagError as error:
        return None, _fault(error)
    return bundle, None


def _fault(error: NoduleDiagError) -> dict[str, Any]:
    return {"usable": False, "reason": error.message, "hint": error.hint}


def _backend(status: BackendStatus, bundle: Bundle | None, threads: int) -> dict[str, Any]:
    """What a backend says of itself, and what came of running an empty patch on each of its devices."""
    devices = [{"device": device, **_trial(status, bundle, device, threads)} for device in status.devices]
    usable = status.usable and any(device["usable"] for device in devices)
    failed = next((device for device in devices if not device["usable"]), None)
    return {
        "name": status.name,
        "usable": usable,
        "reason": status.reason or (failed["reason"] if failed and not usable else ""),
        "hint": status.hint or (failed["hint"] if failed and not usable else ""),
        "version": status.version or None,
        "devices": devices,
    }


def _trial(status: BackendStatus, bundle: Bundle | None, device: str, threads: int) -> dict[str, Any]:
    import time

    import numpy as np

    from nodule_diag.backends import create_backend
    from nodule_diag.patch import PATCH_SIZE

    if bundle is None:
        return {"usable": False, "reason": "there is no usable bundle to run", "hint": "", "inference_ms": None}
    try:
        backend = create_backend(bundle, name=status.name, device=device, threads=threads)
        patch = np.zeros((1, 2, PATCH_SIZE, PATCH_SIZE, PATCH_SIZE), np.float32)
        backend.infer(patch)
        started = time.perf_counter()
        backend.infer(patch)
    except NoduleDiagError as error:
        return {**_fault(error), "inference_ms": None}
    elapsed = (time.perf_counter() - started) * 1000
    return {"usable": True, "reason": "", "hint": "", "inference_ms": round(elapsed, 1)}


def _render(document: dict[str, Any]) -> None:
    to = render.console()
    installed = [f"{name} {version}" for name, version in document["packages"].items() if version]
    compiler = document["compiler"] or "none found"
    render.facts(
        [
            ("nodule-diag", document["sdk_version"] or "not installed as a package"),
            ("Python", f"{document['python']} on {document['platform']}"),
            ("Threads", document["threads"]),
            ("Packages", ", ".join(installed)),
            ("C++ compiler", f"{compiler} (needed only to install: hnswlib is compiled then)"),
            ("Bundle", _verdict(document["bundle"])),
        ],
        to=to,
    )
    to.print("\nBackends", style="bold")
    made = render.table("backend", "version", "device", "state")
    for backend in document["backends"]:
        version = backend["version"] or "-"
        for device in backend["devices"]:
            speed = f", one nodule in {device['inference_ms']:.0f} ms" if device["usable"] else ""
            made.add_row(backend["name"], version, device["device"], _verdict(device) + speed)
        if not backend["devices"]:
            made.add_row(backend["name"], version, "-", _verdict(backend))
    to.print(made)


def _verdict(found: dict[str, Any]) -> str:
    if found["usable"]:
        return "usable"
    return f"not usable: {found['reason']}" + (f" ({found['hint']})" if found["hint"] else "")
