"""Makes the API reference while the site is built (a MkDocs hook): one page a room of the SDK, and one of its commands.

A room names its doors in ``__init__.pyi``, and the reference shows these doors, each under its own docstring.
So a new door needs no line here, and nothing that is not a door is shown.
"""

from __future__ import annotations

import ast
import html
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

SDK = Path(__file__).resolve().parents[2] / "sdk" / "nodule_diag"
FOLDER = "reference"
COMMANDS = f"{FOLDER}/commands.md"
FIRST = ("Diagnoser", "read_ct", "Diagnosis")
"""What a newcomer looks for; the other names follow in the order of their modules."""


class Door(NamedTuple):
    """A public name of a room, and the module that holds it."""

    name: str
    module: str


def doors(package: str, stub: Path) -> Iterator[Door]:
    """The names that ``__init__.pyi`` re-exports, in its order: ``from .module import Name as Name``."""
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield Door(name.name, f"{package}.{node.module}")


def reference_pages(sdk: Path = SDK) -> dict[str, str]:
    """The text of each page, by its path below ``docs/``.

    The first page is of the names of ``nodule_diag`` itself. A room's page links to those and tells the others whole.
    """
    package = sdk.name
    public = sorted(doors(package, sdk / "__init__.pyi"), key=lambda door: (*FIRST, door.name).index(door.name))
    pages = {f"{FOLDER}/{package}.md": _page(package, sdk, public, told=[])}
    for stub in sorted(sdk.glob("*/__init__.pyi")):
        room = stub.parent
        named = list(doors(f"{package}.{room.name}", stub))
        told = [door for door in named if door in public]
        rest = [door for door in named if door not in public]
        pages[f"{FOLDER}/{room.name}.md"] = _page(f"{package}.{room.name}", room, rest, told=told)
    return pages


def _page(package: str, folder: Path, shown: list[Door], *, told: list[Door]) -> str:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    about = docstring.split("\n\n.. code-block")[0].partition("\nDoors:")[0]
    parts = [f"# `{package}`", about]
    if told:
        links = ", ".join(f"[`{door.name}`][{door.module}.{door.name}]" for door in told)
        parts.append(f"Also doors of this room, on the page of the package: {links}.")
    parts += [f"::: {door.module}.{door.name}" for door in shown]
    return "\n\n".join(parts) + "\n"


def commands_page() -> str:
    """The commands of the base install, from the command line itself."""
    import typer

    from nodule_diag_cli.extras import PASSED_THROUGH
    from nodule_diag_cli.main import app

    parts = ["# Commands", "Every command says this about itself: `nodule-diag COMMAND --help`."]
    group = typer.main.get_command(app)
    for path, command in _commands("nodule-diag", group, leave_out=set(PASSED_THROUGH)):
        parts += [f"## {path}", command.help or ""]
        rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            parts.append("| option | |\n|---|---|\n" + "\n".join(rows))
    for name, extra in PASSED_THROUGH.items():
        parts += [
            f"## nodule-diag {name}",
            f"{extra.help} Needs the extra `{extra.extra}`. See `nodule-diag {name} --help`.",
        ]
    return "\n\n".join(parts) + "\n"


def _commands(path: str, command: Any, *, leave_out: set[str]) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - untyped
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name, member in below.items():
        if name not in leave_out:
            yield from _commands(f"{path} {name}", member, leave_out=set())


def _row(parameter: Any) -> str:  # noqa: ANN401 - Typer's own, or click's
    names = [name for name in parameter.opts if name.startswith("-")]
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    choices = ""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        choices = "|".join(str(member.value) for member in annotation)
    metavar = parameter.metavar or choices or ("" if names else parameter.name.upper())
    shown = _cell(" ".join([", ".join(names), metavar]).strip())
    return f"| <code>{shown}</code> | {_cell(getattr(parameter, 'help', '') or '')} |"


def _cell(text: str) -> str:
    """Text as it may stand in a cell of a Markdown table."""
    return html.escape(text).replace("|", "&#124;")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs' event: add the pages that exist nowhere but here."""
    from mkdocs.structure.files import File

    for path, text in {**reference_pages(), COMMANDS: commands_page()}.items():
        files.append(File.generated(config, path, content=text))
    return files
