"""``nodule-diag export``: each command is imported when it is called.

So engines can be built without torch and onnx, and the other commands report what they lack.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from nodule_diag.errors import MissingExtraError

EXPORT = {
    "onnx": "graph:onnx_command",
    "precision": "graph:precision_command",
    "winograd": "graph:winograd_command",
    "fused": "graph:fused_command",
    "triton": "triton:triton_command",
    "tensorrt": "engines:tensorrt_command",
    "tensorrt-rtx": "engines:tensorrt_rtx_command",
    "bundle": "bundle:bundle_command",
    "cases": "bundle:cases_command",
    "parity": "bundle:parity_command",
    "golden": "golden:golden_command",
}
"""The function of each command, below ``nodule_diag_export.commands``."""


def _group(places: dict[str, str]) -> type[TyperGroup]:
    """A group of commands that are imported when they are called."""

    class Lazy(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - a click Context, whoever brings click
            return list(places)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002
            return _command(cmd_name, places[cmd_name]) if cmd_name in places else None

    return Lazy


def _command(name: str, place: str) -> Any:  # noqa: ANN401 - a click Command
    module, _, function = place.partition(":")
    one = typer.Typer(add_completion=False)
    try:
        one.command(name)(getattr(import_module(f"nodule_diag_export.commands.{module}"), function))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("nodule_diag"):
            raise
        missing = MissingExtraError(error.name.partition(".")[0], "export")
        settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

        @one.command(name, help=f"Not available: {missing.hint}", context_settings=settings)
        def lacking() -> None:
            raise missing

    return typer.main.get_command(one)


def _app(name: str, places: dict[str, str], *, help: str) -> typer.Typer:
    made = typer.Typer(name=name, cls=_group(places), no_args_is_help=True, add_completion=False)
    made.callback(help=help)(lambda: None)
    return made


app = _app("export", EXPORT, help="Export a trained model as graphs, bundles and engines.")
