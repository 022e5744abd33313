"""``nodule-diag doctor``: what works on this machine, found out by running it."""

from __future__ import annotations

import platform
import shutil
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodule_diag.errors import NoduleDiagError, UsageError
from nodule_diag.process import document_text
from nodule_diag_cli import render, terminal
from nodule_diag_cli.options import JsonOption

if TYPE_CHECKING:
    from nodule_diag.backends import BackendStatus, Trial
    from nodule_diag.bundle import Bundle
    from nodule_diag.cases import CaseIndex

SCHEMA = "nodule-diag/doctor/1"
PACKAGES = ("numpy", "SimpleITK", "hnswlib", "pydantic", "typer", "onnxruntime", "onnxruntime-gpu", "openvino")
COMPILERS = ("c++", "g++", "clang++", "cl")

SelfTestOption = Annotated[bool, typer.Option("--selftest", help="Compare with all golden answers, not only one.")]
SaveOption = Annotated[
    bool, typer.Option("--save", help="With --selftest: save the figures for this user; auto then uses them.")
]


def doctor(selftest: SelfTestOption = False, save: SaveOption = False, as_json: JsonOption = False) -> None:
    """Show what works on this machine: backends, versions, devices, threads."""
    if save and not selftest:
        raise UsageError("--save keeps the figures of a self-test", hint="nodule-diag doctor --selftest --save")
    with terminal.progress("running every backend"):
        document = examine(selftest=selftest, save=save)
    if as_json:
        terminal.write(document_text(document))
    else:
        _render(document)


def examine(*, selftest: bool = False, save: bool = False) -> dict[str, Any]:
    """The document of ``doctor --json``.

    Raises:
        NoduleDiagError: When figures are to be saved and cannot be; a broken backend or bundle is an answer.
    """
    from nodule_diag.backends import backend_statuses, telemetry_notice
    from nodule_diag.bundle import Bundle
    from nodule_diag.cases import CaseIndex
    from nodule_diag.process import resolve_threads

    threads = resolve_threads()
    statuses = backend_statuses()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "sdk_version": _version("nodule-diag"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": threads,
        "packages": {name: _version(name) for name in PACKAGES},
        "compiler": next(filter(None, map(shutil.which, COMPILERS)), None),
        "bundle": {"usable": True, "reason": "", "hint": ""},
        "engines": _engine_builder(),
        "telemetry": {"off": not telemetry_notice(), "reason": telemetry_notice()},
    }
    try:
        bundle = Bundle.default()
        cases = CaseIndex(bundle)
    except NoduleDiagError as error:
        document["bundle"] = _fault(error)
        document["backends"] = [_backend(status, None) for status in statuses]
        return document | dict.fromkeys(("selftest", "own_figures", "auto"))
    return document | _tried(bundle, cases, statuses, threads=threads, selftest=selftest, save=save)


def _tried(
    bundle: Bundle,
    cases: CaseIndex,
    statuses: tuple[BackendStatus, ...],
    *,
    threads: int,
    selftest: bool,
    save: bool,
) -> dict[str, Any]:
    """What came of running the packaged bundle in every backend."""
    from nodule_diag.backends import SelfTest, records_of, save_figures

    test = SelfTest(bundle, cases, threads=threads, quick=not selftest)
    trials = {status.name: test.run(status) for status in statuses}
    saved = None
    if save:
        saved = str(save_figures(bundle, records_of([trial for found in trials.values() for trial in found])))
    return {
        "backends": [_backend(status, trials[status.name]) for status in statuses],
        "selftest": {"golden": test.golden, "note": test.note, "patches": test.patches, "saved": saved},
        "own_figures": _own_figures(bundle),
        "auto": _auto(bundle, threads),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _fault(error: NoduleDiagError) -> dict[str, Any]:
    return {"usable": False, "reason": _without_hint(error.message, error.hint), "hint": error.hint}


def _without_hint(reason: str, hint: str) -> str:
    """A reason that ends with its own way out, without it: each is said once."""
    return reason.removesuffix(f"; run: {hint}")


def _engine_builder() -> dict[str, Any]:
    """Whether engines for RTX GPUs can be built here, which needs no GPU."""
    from nodule_diag.backends import BUILD_EXTRA, TENSORRT_RTX, import_flavour

    try:
        version = import_flavour(TENSORRT_RTX, extra=BUILD_EXTRA).__version__
    except NoduleDiagError as error:
        return _fault(error) | {"version": None}
    return {"usable": True, "reason": "", "hint": "", "version": version}


def _own_figures(bundle: Bundle) -> dict[str, Any]:
    """This user's saved figures: what they say, or why they are not used."""
    from nodule_diag.backends import FiguresRefusedError, has_passed, read_figures

    try:
        figures = read_figures(bundle)
    except FiguresRefusedError as error:
        return {"used": False, "reason": error.message, "code": error.code, "hint": error.hint}
    return {
        "used": True,
        "created": figures.created,
        "records": [
            record.model_dump() | {"passed": has_passed(figures.records, record)} for record in figures.records
        ],
    }


def _auto(bundle: Bundle, threads: int) -> dict[str, Any]:
    """What ``auto`` takes here."""
    from nodule_diag.backends import create_backend

    try:
        taken = create_backend(bundle, threads=threads)
    except NoduleDiagError as error:
        return _fault(error)
    return {"usable": True, "backend": taken.name, "device": taken.device, "precision": taken.precision}


def _backend(status: BackendStatus, trials: tuple[Trial, ...] | None) -> dict[str, Any]:
    """What a backend says of itself, and what came of running it on each of its devices in each precision."""
    devices = [_trial(trial) for trial in trials or ()]
    usable = status.usable and any(device["usable"] for device in devices)
    reason, hint = _without_hint(status.reason, status.hint), status.hint
    if status.usable and not usable:
        unknown = {"reason": "there is no usable bundle to run", "hint": ""}
        failed = next((device for device in devices if not device["usable"]), unknown)
        reason, hint = failed["reason"], failed["hint"]
    return {
        "name": status.name,
        "usable": usable,
        "reason": reason,
        "hint": hint,
        "version": status.version or None,
        "devices": devices,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "device": trial.device,
        "precision": trial.precision,
        "usable": trial.usable,
        "reason": _without_hint(trial.reason, trial.hint),
        "hint": trial.hint,
        "inference_ms": trial.inference_ms,
        "malignancy_difference": trial.figures and trial.figures.malignancy,
        "figures": trial.figures and trial.figures.model_dump(),
    }


def _render(document: dict[str, Any]) -> None:
    to = terminal.console()
    installed = [f"{name} {version}" for name, version in document["packages"].items() if version]
    compiler = document["compiler"] or "none found"
    engines = document["engines"]
    builder = f"tensorrt-rtx {engines['version']}, for RTX GPUs; no GPU needed here" if engines["usable"] else ""
    rows = [
        ("nodule-diag", document["sdk_version"] or "not installed as a package"),
        ("Python", f"{document['python']} on {document['platform']}"),
        ("Threads", document["threads"]),
        ("Packages", ", ".join(installed)),
        ("C++ compiler", f"{compiler} (needed only to install, to compile hnswlib)"),
        ("Engine builder", builder or engines["reason"]),
        ("Telemetry", "off" if document["telemetry"]["off"] else f"may be on: {document['telemetry']['reason']}"),
        ("Bundle", "usable" if document["bundle"]["usable"] else f"not usable: {document['bundle']['reason']}"),
    ]
    if document["auto"]:
        auto = document["auto"]
        taken = f"{auto['backend']}, {auto['device']}, {auto['precision']}" if auto["usable"] else auto["reason"]
        rows += [("Own figures", _said_of(document["own_figures"])), ("auto takes", taken)]
    render.facts(rows, to=to)
    to.print()
    to.print("Backends", style="bold")
    made = render.table("backend", "version", "device, precision", "state")
    for backend in document["backends"]:
        version = backend["version"] or "-"
        for device in backend["devices"]:
            speed = f", one nodule in {device['inference_ms']:.0f} ms" if device["usable"] else ""
            place = f"{device['device']}, {device['precision']}"
            made.add_row(backend["name"], version, place, _verdict(device) + speed)
        if not backend["devices"]:
            made.add_row(backend["name"], version, "-", _verdict(backend))
    to.print(made)
    if document["selftest"]:
        _said_of_test(document["selftest"], to)
    _hints(document, to)


def _said_of(own: dict[str, Any]) -> str:
    if own["used"]:
        passed = [f"{record['backend']} {record['precision']}" for record in own["records"] if record["passed"]]
        failed = [f"{record['backend']} {record['precision']}" for record in own["records"] if not record["passed"]]
        return f"of {own['created'][:10]}: passed {', '.join(passed) or 'none'}" + (
            f"; failed {', '.join(failed)}" if failed else ""
        )
    return "none" if own["code"] == "figures-missing" else f"ignored: {own['reason']}"


def _said_of_test(test: dict[str, Any], to: Any) -> None:  # noqa: ANN401 - rich's Console is imported late
    source = "the bundle's golden answers" if test["golden"] else f"onnxruntime's own answers here ({test['note']})"
    nodules = f"{test['patches']} made-up nodule{'s' if test['patches'] > 1 else ''}"
    to.print()
    to.print(f"Answers to {nodules} were compared with {source}.")
    if test["saved"]:
        to.print(f"The figures are saved in {test['saved']}; auto uses them.")
    elif test["patches"] == 1:
        to.print("More: nodule-diag doctor --selftest")


def _hints(document: dict[str, Any], to: Any) -> None:  # noqa: ANN401
    """What to do, each once, with the names that it is for."""
    wanted: dict[str, list[str]] = {}
    spots = [("bundle", document["bundle"]), ("building engines", document["engines"])]
    for backend in document["backends"]:
        failed = [device for device in backend["devices"] if not device["usable"]]
        spots += [(backend["name"], spot) for spot in failed or [backend]]
    for name, spot in spots:
        if not spot["usable"] and spot["hint"] and name not in wanted.setdefault(spot["hint"], []):
            wanted[spot["hint"]].append(name)
    if wanted:
        to.print()
        to.print("What to do", style="bold")
        render.facts(((f"  {', '.join(names)}", hint) for hint, names in wanted.items()), to=to)


def _verdict(found: dict[str, Any]) -> str:
    return "usable" if found["usable"] else f"not usable: {found['reason']}"
