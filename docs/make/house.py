"""Draws the house (``docs/plots/house.svg``) from the imports: which rooms there are, and which stand on which.

``python docs/make/house.py`` writes it, and a test says when it is out of date. A room's floor is the longest way down
through its imports, so nobody places anything by hand. The words are the first sentence of each room's docstring.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[2]
DRAWING = ROOT / "docs" / "plots" / "house.svg"

PACKAGES = {
    "benchmarks": ("benchmarks", "measures; may import everything"),
    "nodule_diag_export": ("export", "torch to ONNX, bundles and engines"),
    "nodule_diag_training": ("training", "trains and judges the model"),
    "nodule_diag_cli": ("cli", "the command nodule-diag: parses, calls the SDK, prints"),
    "nodule_diag": ("sdk", "the runtime that a vendor embeds; never torch"),
}
"""Folder and purpose of each import package, from the roof down; what each may import is in ``pyproject.toml``."""

COLUMN, MARGIN, GAP, PADDING = 500, 12, 6, 7
LINE, SMALL, TITLE = 15, 11, 22  # px
CHARACTER = 6.8  # px, mean width of a character of 12 px in a wide sans serif
SENTENCE_END = re.compile(r"(?<!\beq)\. ")  # "eq. 13" goes on
COLUMNS = (("benchmarks", "nodule_diag_export", "nodule_diag_training"), ("nodule_diag_cli", "nodule_diag"))
STYLE = """
  text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", Helvetica, sans-serif; fill: #1c2733 }
  .title, .name { font-weight: 600; font-size: 13px } .title { font-size: 14px }
  .uses { fill: #5b6b7a; font-size: 11px }
  .package { fill: #f2f5f8; stroke: #b9c5d0 } .room { fill: #ffffff; stroke: #7f95a8 }
""".strip("\n")


@dataclass(frozen=True)
class Room:
    """A folder or file directly below a package.

    Attributes:
        name: What it is called.
        purpose: The first sentence of its docstring.
        uses: The rooms of its own package that it imports.
    """

    name: str
    purpose: str
    uses: tuple[str, ...]


def rooms(graph: grimp.ImportGraph, package: str, *, root: Path = ROOT) -> list[Room]:
    """The rooms of a package: its folders, and in the SDK its files too. A package of files alone has none."""
    modules = sorted(graph.find_children(package))
    kept = [module for module in modules if package == "nodule_diag" or graph.find_children(module)]

    def uses(room: str) -> tuple[str, ...]:
        others = (other for other in kept if other != room)
        imported = (o for o in others if graph.direct_import_exists(importer=room, imported=o, as_packages=True))
        return tuple(other.rpartition(".")[2] for other in imported)

    folder = root / PACKAGES[package][0] / package if package != "benchmarks" else root / package
    return [Room(m.rpartition(".")[2], _purpose(folder, m.rpartition(".")[2]), uses(m)) for m in kept]


def floors(found: Iterable[Room]) -> list[list[Room]]:
    """Rooms by floor, the highest first: a room is one floor above the highest that it uses.

    Raises:
        ValueError: Where rooms use each other in a circle.
    """
    by_name = {room.name: room for room in found}
    height: dict[str, int] = {}

    def of(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ValueError(f"rooms in a circle: {' -> '.join([*above, name])}")
        if name not in height:
            height[name] = 1 + max((of(other, (*above, name)) for other in by_name[name].uses), default=-1)
        return height[name]

    levels = sorted({of(name, ()) for name in by_name}, reverse=True)
    return [[by_name[name] for name in sorted(by_name) if height[name] == level] for level in levels]


def _purpose(package: Path, name: str) -> str:
    source = package / name / "__init__.py"
    if not source.is_file():
        source = package / f"{name}.py"
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    first, *_ = SENTENCE_END.split(" ".join(docstring.split("\n\n")[0].split()))
    return first.rstrip(".").replace("`", "")


def drawing(root: Path = ROOT) -> str:
    """The house as SVG: what a vendor installs to the right, what makes it to the left."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    parts: list[str] = []
    bottoms = []
    for column, packages in enumerate(COLUMNS):
        top = MARGIN
        for package in packages:
            left = MARGIN + column * (COLUMN + GAP)
            folder, purpose = PACKAGES[package]
            levels = floors(rooms(graph, package, root=root))
            top = _draw_package(parts, left, top, f"{folder}: {purpose}", levels)
        bottoms.append(top)
    width, height = 2 * (MARGIN + COLUMN) + GAP, max(bottoms) - GAP + MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    title = "<title>The rooms of nodule-diag on their floors: a room uses rooms below it only</title>"
    page = f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
    return "\n".join([head, title, f"<style>\n{STYLE}\n</style>", page, *parts, "</svg>"]) + "\n"


def _draw_package(parts: list[str], left: int, top: int, title: str, levels: list[list[Room]]) -> int:
    """Draw a package from ``top`` down; returns where the next one begins."""
    frame = len(parts)
    y = top + TITLE
    for level in levels:
        width = (COLUMN - GAP * (len(level) + 1)) / len(level)
        texts = [_lines(room, width) for room in level]
        height = max(len(lines) for lines in texts) * LINE + 2 * PADDING
        for at, lines in enumerate(texts):
            x = left + GAP + at * (width + GAP)
            parts.append(f'<rect class="room" x="{x:.0f}" y="{y}" width="{width:.0f}" height="{height}" rx="4"/>')
            for number, (kind, text) in enumerate(lines):
                baseline = y + PADDING + SMALL + number * LINE
                parts.append(f'<text class="{kind}" x="{x + PADDING:.0f}" y="{baseline}">{escape(text)}</text>')
        y += height + GAP
    bottom = y if levels else y + PADDING
    parts.insert(frame, f'<text class="title" x="{left + GAP}" y="{top + LINE}">{escape(title)}</text>')
    box = f'x="{left}" y="{top}" width="{COLUMN}" height="{bottom - top}" rx="6"'
    parts.insert(frame, f'<rect class="package" {box}/>')
    return bottom + GAP


def _lines(room: Room, width: float) -> list[tuple[str, str]]:
    """Name, purpose and what the room uses, wrapped."""
    characters = int((width - 2 * PADDING) / CHARACTER)
    lines = [("name", room.name), *(("purpose", text) for text in textwrap.wrap(room.purpose, characters))]
    if room.uses:
        lines += (("uses", text) for text in textwrap.wrap(f"uses {', '.join(room.uses)}", characters))
    return lines


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # benchmarks is not an installed package
    DRAWING.write_text(drawing(), encoding="utf-8")
