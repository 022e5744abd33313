"""Training's rooms: every door opens, and their docstrings name doors that are there."""

from __future__ import annotations

import importlib
import re

import pytest

ROOMS = ("data", "engine", "evaluation", "experiments", "losses", "model", "recipe")


@pytest.mark.parametrize("name", ROOMS)
def test_the_doors_of_a_room_open(name):
    room = importlib.import_module(f"nodule_diag_training.{name}")
    for door in room.__all__:
        assert getattr(room, door) is not None


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_names_its_doors(name):
    room = importlib.import_module(f"nodule_diag_training.{name}")
    _, doors = room.__doc__.split("Doors: ")
    named = re.findall(r"``(\w+)``", doors)
    assert named
    assert set(named) <= set(room.__all__)
