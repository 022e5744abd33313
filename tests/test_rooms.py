"""The rooms of the three packages: every door opens, a docstring names doors that are there, and nobody climbs in."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import grimp
import pytest

ROOMS = {
    "nodule_diag": (
        "backends bundle cases ct dicom_objects exchange fleet pacs preprocessing process report results service tables"
    ),
    "nodule_diag_training": "data engine evaluation experiments losses model recipe",
    "nodule_diag_export": "bundle engines fused graph parity triton winograd",
}
NAMES = tuple(f"{package}.{room}" for package, rooms in ROOMS.items() for room in rooms.split())
MEASURES_IMPORTS = "benchmarks.yardstick"
"""It loads single files, since what they cost to import is what it measures."""


def test_these_are_all_rooms(repo_root: Path) -> None:
    found = {
        f"{package.name}.{door.parent.name}"
        for package in (repo_root / "sdk/nodule_diag", *repo_root.glob("[te][rx]*/nodule_diag_*"))
        for door in package.glob("*/__init__.pyi")
    }
    assert found == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_doors_of_a_room_open(name: str) -> None:
    room = importlib.import_module(name)
    for door in room.__all__:
        assert getattr(room, door) is not None


@pytest.mark.parametrize("name", NAMES)
def test_no_door_is_named_as_a_file_of_its_room(name: str) -> None:
    """Python would give the file to whoever asks after it was loaded, and the door to whoever asks before."""
    room = importlib.import_module(name)
    files = {file.stem for file in Path(room.__file__ or "").parent.glob("*.py")}
    assert not files & set(room.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_a_room_names_its_doors(name: str) -> None:
    room = importlib.import_module(name)
    _, doors = room.__doc__.split("Doors: ")
    named = re.findall(r"``(\w+)``", doors)
    assert named
    assert set(named) <= set(room.__all__)


def test_from_outside_only_doors_are_used() -> None:
    """A file of a room is imported by files of that room; all others go through its door."""
    graph = grimp.build_graph(*ROOMS, "nodule_diag_cli", "benchmarks", cache_dir=None)
    climbed = [
        f"{module} imports {imported}"
        for module in graph.modules
        if module != MEASURES_IMPORTS
        for imported in graph.find_modules_directly_imported_by(module)
        for room in NAMES
        if imported.startswith(f"{room}.") and module != room and not module.startswith(f"{room}.")
    ]
    assert sorted(climbed) == []
