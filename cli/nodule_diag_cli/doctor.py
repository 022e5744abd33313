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
    from nodule_diag.backends import BackendStatus, Outputs
    from nodule_diag.bundle import Bundle
    from nodule_diag.cases import CaseIndex

SCHEMA = "nodule-diag/doctor/1"
PACKAGES = ("numpy", "SimpleITK", "hnswlib", "pydantic", "typer", "onnxruntime", "onnxruntime-gpu", "openvino")
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
    from nodule_diag.process import resolve_threads

    threads = resolve_threads()
    trials, bundle_fault = _default_bundle(threads)
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
        "backends": [_backend(status, trials) for status in backend_statuses()],
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _default_bundle(threads: int) -> tuple[_Trials | None, dict[str, Any] | None]:
    """What runs the packaged bundle, its case index loaded once, or why that cannot be used."""
    from nodule_diag.bundle import Bundle
    from nodule_diag.cases import CaseIndex

    try:
        bundle = Bundle.default()
        cases = CaseIndex(bundle)
    except NoduleDiagError as error:
        return None, _fault(error)
    return _Trials(bundle, cases, threads), None


def _fault(error: NoduleDiagError) -> dict[str, Any]:
    return {"usable": False, "reason": error.message, "hint": error.hint}


class _Trials:
    """Runs the bundle on one made-up nodule, with each backend in turn, and compares the answers.

    Args:
        bundle: The packaged bundle.
        cases: Its case base.
        threads: CPU threads of a call.
    """

    def __init__(self, bundle: Bundle, cases: CaseIndex, threads: int) -> None:
        self._bundle = bundle
        self._cases = cases
        self._threads = threads
        self._reference: Outputs | None = None

    def run(self, name: str, device: str, precision: str) -> dict[str, Any]:
        """One nodule twice: the first run sets the runtime up, the second is timed."""
        import time

        from nodule_diag.backends import REFERENCE, create_backend, probe_patch

        patch = probe_patch()
        try:
            backend = create_backend(self._bundle, name=name, device=device, precision=precision, threads=self._threads)
            backend.infer(patch)
            started = time.perf_counter()
            outputs = backend.infer(patch)
        except NoduleDiagError as error:
            return _fault(error)
        elapsed = (time.perf_counter() - started) * 1000
        if (name, device) == (REFERENCE, "cpu"):
            self._reference = outputs
        found = {"usable": True, "reason": "", "hint": "", "inference_ms": round(elapsed, 1)}
        return found | self._compared(outputs, precision)

    def _compared(self, outputs: Outputs, precision: str) -> dict[str, Any]:
        """Against ONNX Runtime on the CPU, which comes first; nothing to say where that is not installed."""
        from nodule_diag.backends import compare, misses

        if self._reference is None:
            return {}
        k = self._bundle.manifest.retrieval.k
        figures = compare(self._reference, outputs, precision=precision, cases=self._cases, k=k)
        missed = misses(figures, precision=precision)
        return {"malignancy_difference": figures.malignancy} | (
            {
                "usable": False,
                "reason": f"its answer is not that of onnxruntime: {'; '.join(missed)}",
                "hint": "use --backend onnxruntime, and report this",
            }
            if missed
            else {}
        )


def _backend(status: BackendStatus, trials: _Trials | None) -> dict[str, Any]:
    """What a backend says of itself, and what came of running it on each of its devices in each precision."""
    unknown = {"usable": False, "reason": "there is no usable bundle to run", "hint": ""}
    blank = {"inference_ms": None, "malignancy_difference": None}
    devices = [
        {"device": device, "precision": precision}
        | blank
        | (trials.run(status.name, device, precision) if trials else unknown)
        for device in status.devices
        for precision in status.precisions
    ]
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
    made = render.table("backend", "version", "device, precision", "state")
    for backend in document["backends"]:
        version = backend["version"] or "-"
        for device in backend["devices"]:
            speed = f", one nodule in {device['inference_ms']:.0f} ms" if device["usable"] else ""
            made.add_row(
                backend["name"], version, f"{device['device']}, {device['precision']}", _verdict(device) + speed
            )
        if not backend["devices"]:
            made.add_row(backend["name"], version, "-", _verdict(backend))
    to.print(made)


def _verdict(found: dict[str, Any]) -> str:
    if found["usable"]:
        return "usable"
    return f"not usable: {found['reason']}" + (f" ({found['hint']})" if found["hint"] else "")
