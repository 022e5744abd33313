"""Commands of packages that need an extra: found by name when they are called, never imported before.

So ``nodule-diag --help`` costs neither torch nor an ONNX runtime, and the wheel works without them.
"""

from __future__ import annotations

import importlib
import importlib.util
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
    "export": _Extra("nodule_diag_export.cli:app", ("torch", "onnx"), "export", "Export to ONNX, bundles and engines."),
    "index": _Extra(
        "nodule_diag_export.cli:index_app", ("torch", "onnx"), "export", "Build the index of historical cases."
    ),
    "bench": _Extra("benchmarks.cli:app", (), "dev", "Measure speed and memory (from a checkout)."),
}


def _found(module: str) -> bool:
    """Whether a module could be imported; does not import it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is not there
        return False


def _load(name: str) -> typer.Typer:
    """Import the app of a command, or say what is missing."""
    wanted = PASSED_THROUGH[name]
    for package in wanted.needs:
        if not _found(package):
            raise MissingExtraError(package, wanted.extra)
    module, _, attribute = wanted.app.partition(":")
    if not _found(module):
        if name == "bench":
            raise UsageError(
                "the benchmarks are not part of the installed package",
                hint="in a checkout: pip install -e '.[cpu,dev]', then python -m nodule_diag_cli bench",
                code="bench-needs-checkout",
            )
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
