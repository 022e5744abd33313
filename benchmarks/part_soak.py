"""``bench soak``: thousands of predictions over good and bad inputs in one process, as on a server that runs for weeks.

No resource of the process may grow, and every input must give the same answer each time, bit by bit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.results import Cell, Check, Column, Table
from benchmarks.session import Findings
from benchmarks.soak_inputs import Ask, made_inputs, tiny_bundle
from benchmarks.subject import Bench
from nodule_diag.diagnoser import Diagnoser

TITLE = "Soak: memory, handles and answers over thousands of predictions"
TINY, PACKAGED = 10_000, 500
QUICK_ROUNDS = 8
WARMED_UP = 0.1
"""Share of the predictions after which memory is first measured: pools have filled and lazy imports are done."""
LEAST_WARM_UP_ROUNDS = 3
MOST_GROWTH_MIB = 20.0
SAMPLES = 200


@dataclass(frozen=True)
class State:
    """The resources that a process holds.

    Attributes:
        resident_mib: Resident memory.
        handles: Number of open files.
        threads: Number of running threads.
        children: Number of processes that it started and that still exist.
    """

    resident_mib: float
    handles: int
    threads: int
    children: int

    @classmethod
    def now(cls) -> State:
        """The state of this process, from proc(5)."""
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        tasks = list(Path("/proc/self/task").iterdir())
        children = sum(_children(task) for task in tasks)
        handles = len(list(Path("/proc/self/fd").iterdir()))
        return cls(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, handles, len(tasks), children)


def _children(task: Path) -> int:
    """The processes that one of this process's threads has started; none if the thread has just ended."""
    try:
        return len((task / "children").read_text(encoding="ascii").split())
    except (FileNotFoundError, ProcessLookupError):
        return 0


@dataclass(frozen=True)
class Soaked:
    """The results of one network's predictions.

    Attributes:
        predictions: Number of predictions.
        answered: How many of them gave a diagnosis; the others were refused.
        other: How many gave another answer than the same input gave before.
        states: States after the warm-up, evenly spaced over the rest.
        at: The number of predictions at each state.
        wall_s: Time of all predictions.
    """

    predictions: int
    answered: int
    other: int
    states: tuple[State, ...]
    at: tuple[int, ...]
    wall_s: float

    @property
    def slope_mib(self) -> float:
        """Growth over all predictions, by the straight line that fits the states best."""
        line = np.polyfit(self.at, [state.resident_mib for state in self.states], 1)
        return float(line[0]) * self.predictions

    @property
    def growth_mib(self) -> float:
        """The mean of the last fifth of the states minus the mean of the first fifth."""
        resident = [state.resident_mib for state in self.states]
        part = max(1, len(resident) // 5)
        return float(np.mean(resident[-part:]) - np.mean(resident[:part]))

    def rise(self, name: str) -> int:
        """The rise of a number in the states, from the highest of the first fifth to the last state."""
        values = [int(getattr(state, name)) for state in self.states]
        return values[-1] - max(values[: max(1, len(values) // 5)])


def run(bench: Bench) -> Findings:
    """Soak both networks, the tiny one first."""
    quick = bench.settings.quick
    inputs = made_inputs(bench.folder / "inputs")
    few = QUICK_ROUNDS * len(inputs)
    counts = {
        "the tests' tiny network": (tiny_bundle(bench.folder / "tiny"), few if quick else TINY),
        f"the bundle {bench.bundle.manifest.name}": (bench.bundle, few if quick else PACKAGED),
    }
    found = {}
    for name, (bundle, count) in counts.items():
        diagnoser = Diagnoser.load(bundle, threads=bench.settings.threads)
        found[name] = soak(diagnoser, inputs, count)
        del diagnoser
    return Findings(
        title=TITLE,
        subject=f"{len(inputs)} inputs, good and bad: " + ", ".join(inputs),
        tables=(_table(found),),
        checks=tuple(check for name, one in found.items() for check in _checks(name, one)),
    )


def soak(diagnoser: Diagnoser, inputs: dict[str, Ask], count: int) -> Soaked:
    """Run predictions, one input after the other, again and again."""
    known: dict[str, bytes] = {}
    names = list(inputs)
    answered = other = 0
    states: list[State] = []
    at: list[int] = []
    first = max(int(count * WARMED_UP), LEAST_WARM_UP_ROUNDS * len(names))
    # After whole rounds, so that each state follows the same input.
    step = max(len(names), (count - first) // SAMPLES // len(names) * len(names))
    begin = perf_counter()
    for number in range(count):
        name = names[number % len(names)]
        answer = inputs[name](diagnoser)
        answered += answer.startswith(b"{")
        other += known.setdefault(name, answer) != answer
        if number + 1 >= first and (number + 1) % step == 0:
            states.append(State.now())
            at.append(number + 1)
    return Soaked(count, answered, other, tuple(states), tuple(at), perf_counter() - begin)


COLUMNS = {
    "network": "network",
    "predictions": "predictions",
    "answered": "answered",
    "refused": "refused",
    "other": "answers that differed",
    "first_mib": "memory after the warm-up, MiB",
    "last_mib": "at the end, MiB",
    "slope_mib": "slope, MiB over the run",
    "handles": "open files, rise",
    "threads": "threads, rise",
    "children": "child processes, rise",
    "wall_s": "seconds",
}


def _table(found: dict[str, Soaked]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            *(name, one.predictions, one.answered, one.predictions - one.answered, one.other),
            *(one.states[0].resident_mib, one.states[-1].resident_mib, one.slope_mib),
            *(one.rise(word) for word in ("handles", "threads", "children")),
            one.wall_s,
        )
        for name, one in found.items()
    ]
    return Table(
        name="soak",
        title="Predictions in one process",
        columns=tuple(Column(key=key, label=label) for key, label in COLUMNS.items()),
        rows=tuple(rows),
        note="Resident memory is read after whole rounds of the inputs, from the first tenth of the predictions on.",
    )


def _checks(name: str, one: Soaked) -> list[Check]:
    return [
        Check(name=f"{name}: answers that differed from the first", value=one.other, rule="at most", limit=0),
        Check(
            name=f"{name}: growth of memory, slope",
            value=one.slope_mib,
            rule="at most",
            limit=MOST_GROWTH_MIB,
            unit="MiB",
        ),
        Check(
            name=f"{name}: growth of memory, last fifth over first",
            value=one.growth_mib,
            rule="at most",
            limit=MOST_GROWTH_MIB,
            unit="MiB",
        ),
        *(
            Check(name=f"{name}: {what}, rise", value=one.rise(word), rule="at most", limit=0)
            for word, what in (("handles", "open files"), ("threads", "threads"), ("children", "child processes"))
        ),
    ]
