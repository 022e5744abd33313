"""The stopwatch: warm up, call in windows until the windows agree, and take turns where calls are compared.

A window is a few calls in a row. A call is settled when the medians of its last windows lie within a given spread, and
unsettled when its time is spent before; the result says which. Compared calls take turns window by window, all until
the last has settled, so that a machine that slows down slows all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Source of the time; tests give another one.

    Attributes:
        wall: Wall time in seconds.
        cpu: CPU time of all threads of this process, in seconds.
    """

    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = time.process_time


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to measure.

    Attributes:
        warmup: Calls before the first window, not counted.
        settle: Calls at the start of each window, not counted: another call may have emptied the caches.
        window: Calls in a window.
        agreeing: Number of successive windows that must agree.
        spread: Largest distance of their medians, as a share of the smallest.
        budget_s: Seconds of counted calls after which no more windows begin.
    """

    warmup: int = 1
    settle: int = 0
    window: int = 5
    agreeing: int = 3
    spread: float = 0.05
    budget_s: float = 15.0


ONCE = Plan(warmup=0, window=1, agreeing=1, budget_s=0.0)
"""For calls that take minutes: one call, which settles nothing."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The times of calls.

    Attributes:
        name: Name of the call.
        calls: Number of counted calls.
        p50_ms: Median wall time; p90_ms and p99_ms likewise, by linear interpolation between calls.
        best_ms: Shortest wall time.
        cpu_ms: Mean CPU time of a call, over all threads.
        window_medians_ms: Median of each window, in order.
        settled: Whether enough successive windows agreed; never after a single window.
    """

    name: str
    calls: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    best_ms: float
    cpu_ms: float
    window_medians_ms: tuple[float, ...]
    settled: bool

    def times_as_fast_as(self, other: Timing) -> float:
        """The ratio to a call that took turns with this one: the median over the rounds that both ran.

        Within a round, the machine was the same for both; over all rounds, one of them may have had more slow phases.
        """
        rounds = zip(other.window_medians_ms, self.window_medians_ms, strict=False)
        return statistics.median(theirs / ours for theirs, ours in rounds)


@dataclass(eq=False)
class _Record:
    """The windows of one call so far, in seconds."""

    windows: list[list[float]] = field(default_factory=list)
    cpu_s: float = 0.0

    @property
    def wall_s(self) -> float:
        return sum(map(sum, self.windows))

    def timing(self, name: str, *, settled: bool) -> Timing:
        samples = np.concatenate([np.asarray(window) for window in self.windows]) * 1000.0
        p50, p90, p99 = (float(value) for value in np.percentile(samples, (50, 90, 99)))
        return Timing(
            name=name,
            calls=len(samples),
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            best_ms=float(samples.min()),
            cpu_ms=self.cpu_s * 1000.0 / len(samples),
            window_medians_ms=tuple(statistics.median(window) * 1000.0 for window in self.windows),
            settled=settled,
        )


def agree(medians: Sequence[float], plan: Plan) -> bool:
    """Whether the last windows lie within the plan's spread of each other."""
    last = medians[-plan.agreeing :]
    return len(last) == plan.agreeing >= 2 and max(last) - min(last) <= plan.spread * min(last)


def measure(name: str, call: Call, *, plan: Plan, clock: Clock | None = None) -> Timing:
    """Measure one call; see :func:`in_turns`."""
    return in_turns({name: call}, plan=plan, clock=clock)[name]


def in_turns(calls: Mapping[str, Call], *, plan: Plan, clock: Clock | None = None) -> dict[str, Timing]:
    """Measure calls window by window in turns, until each has settled or spent its time.

    A call that has settled continues while others have not, so that they can be compared over many rounds.

    Args:
        calls: What to call, by name.
        plan: How long to measure.
        clock: A clock other than the machine's.

    Returns:
        A timing for each name, in the order given.
    """
    watch = clock or Clock()
    records = {name: _Record() for name in calls}
    for call in calls.values():
        for _ in range(plan.warmup):
            call()
    settled, spent = (dict.fromkeys(calls, False) for _ in range(2))
    while not all(settled[name] or spent[name] for name in calls):
        for name, call in calls.items():
            if spent[name]:
                continue
            record = records[name]
            _run_window(call, record, plan=plan, watch=watch)
            settled[name] |= agree([statistics.median(window) for window in record.windows], plan)
            spent[name] = record.wall_s >= plan.budget_s
    return {name: records[name].timing(name, settled=settled[name]) for name in calls}


def _run_window(call: Call, record: _Record, *, plan: Plan, watch: Clock) -> None:
    for _ in range(plan.settle):
        call()
    window = []
    cpu = watch.cpu()
    for _ in range(plan.window):
        begin = watch.wall()
        call()
        window.append(watch.wall() - begin)
    record.cpu_s += watch.cpu() - cpu
    record.windows.append(window)
