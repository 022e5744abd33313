"""A few thousand damaged files over every reader: none crashes, hangs, eats memory, lies, or fails in its own words.

The number of mutants is fixed, not their time, and each is the same on every machine: `make fuzz` looks further.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("workers are watched through /proc", allow_module_level=True)

from fuzz.campaign import BAD, Worker, pickled
from fuzz.seeds import all_seeds
from fuzz.worker import Question

RUN, MUTANTS = 11, 60
"""Of each seed."""
SEEDS = {seed.name: seed for seed in all_seeds()}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with pickled(list(SEEDS.values()), tmp_path_factory.mktemp("fuzz")) as path, Worker(path) as one:
        yield one


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files(name: str, worker: Worker) -> None:
    outcomes = {number: worker.ask(Question(name, RUN, number)) for number in range(MUTANTS)}
    bad = {f"{RUN}/{name}/{number}": one for number, one in outcomes.items() if one.kind in (*BAD, "unread")}
    assert bad == {}
    assert len({one.kind for one in outcomes.values()}) > 1
