"""Commands of packages that need an extra: found by name when they are called, never imported before.

So ``nodule-diag --help`` costs neither torch nor an ONNX runtime, and the wheel works without them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

import typer

from nodule_diag.errors import MissingExtraError, NoduleDiagError, UsageError


class _Extra(NamedTuple):
    """Where a command lives and what it needs."""

    app: str  # "module:attribute" of its Typer app
    needs: tuple[str, ...]  # modules that the extra brings
    extra: str
    help: str


PASSED_THROUGH = {
    "train": _Extra("nodule_diag_training.cli:app", ("torch", "safetensors"), "train", "Train the synergic model."),
    # Its commands look for what they need themselves: engines are built without torch and onnx.
    "export": _Extra(
        "nodule_diag_export.cli:app",
        (),
        "export",
        "Export ONNX files, bundles and engines (engines need only the extra 'engines').",
    ),
    "bench": _Extra("benchmarks.cli:app", ("torch", "onnx"), "bench", "Measure speed and memory; only in a checkout."),
}
CHECKOUT = Path(__file__).resolve().parents[2]
"""Where this file's checkout is, when it is run from one."""


def _found(module: str) -> bool:
    """Whether a module could be imported; does not import it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is not there
        return False


def _find_benchmarks() -> None:
    """Make this checkout's ``benchmarks`` importable, and no other: the name is a common one.

    Raises:
        UsageError: ``bench-needs-checkout`` where there is none, as with an installed wheel.
    """
    init = CHECKOUT / "benchmarks" / "__init__.py"
    if not (init.is_file() and (CHECKOUT / "pyproject.toml").is_file()):
        raise UsageError(
            "the benchmarks are not part of the installed package",
            hint="in a checkout: pip install -e '.[cpu,bench]', then nodule-diag bench",
            code="bench-needs-checkout",
        )
    if "benchmarks" not in sys.modules:
        spec = importlib.util.spec_from_file_location("benchmarks", init, submodule_search_locations=[str(init.parent)])
        if spec is None or spec.loader is None:
            raise ImportError(f"{init} cannot be imported")
        package = importlib.util.module_from_spec(spec)
        sys.modules["benchmarks"] = package
        spec.loader.exec_module(package)


def _load(name: str) -> typer.Typer:
    """Import the app of a command, or say what is missing."""
    wanted = PASSED_THROUGH[name]
    if name == "bench":
        _find_benchmarks()
    for package in wanted.needs:
        if not _found(package):
            raise MissingExtraError(package, wanted.extra)
    module, _, attribute = wanted.app.partition(":")
    if not _found(module):
        raise NoduleDiagError(
            f"{module} is not part of this installation", hint="install the whole wheel", code="command-missing"
        )
    try:
        loaded = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0].startswith("nodule_diag"):
            raise
        raise MissingExtraError(error.name, wanted.extra) from error
    if not isinstance(loaded, typer.Typer):
        raise TypeError(f"{wanted.app} is a {type(loaded).__name__}, not a Typer app")
    return loaded


def add_extras(app: typer.Typer) -> None:
    """Add the commands; everything after their name is passed on untouched."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

    def add(name: str, help_text: str) -> None:
        def passed_through(context: typer.Context) -> int:
            command = typer.main.get_command(_load(name))
            path = f"nodule-diag {name}"
            ended = command.main(args=list(context.args), prog_name=path, standalone_mode=False)
            return ended if isinstance(ended, int) else 0

        passed_through.__doc__ = help_text
        app.command(name, context_settings=settings, help=help_text)(passed_through)

    for name, wanted in PASSED_THROUGH.items():
        add(name, f"{wanted.help} Needs the extra '{wanted.extra}'.")
