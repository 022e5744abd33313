"""The stopwatch on a clock of its own: what counts, when it stops, and whose turn it is."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure import ONCE, Clock, Plan, agree, in_turns, measure

PLAN = Plan(warmup=0, settle=0, window=2, agreeing=3, spread=0.05, budget_s=1e6)


@dataclass(eq=False)
class FakeTime:
    """Time that passes only in calls, as long as each is told to take."""

    now: float = 100.0
    cpu: float = 5.0
    log: list[str] = field(default_factory=list)

    @property
    def clock(self) -> Clock:
        return Clock(wall=lambda: self.now, cpu=lambda: self.cpu)

    def call(self, seconds: Iterable[float], *, name: str = "call", threads: float = 1.0):
        steps = iter(seconds)

        def run() -> None:
            step = next(steps)
            self.now += step
            self.cpu += threads * step
            self.log.append(name)

        return run


def forever(seconds: float) -> Iterable[float]:
    while True:
        yield seconds


@given(st.lists(st.floats(0.001, 10.0), min_size=4, max_size=40))
def test_percentiles_of_all_calls(seconds: list[float]) -> None:
    time = FakeTime()
    timing = measure("a", time.call(seconds), plan=replace(ONCE, window=len(seconds)), clock=time.clock)
    ms = np.sort(np.array(seconds)) * 1000.0
    assert timing.calls == len(seconds)
    assert timing.p50_ms == pytest.approx(statistics.median(ms.tolist()), rel=1e-6)
    # Linear interpolation between order statistics, written out.
    for share, found in ((0.9, timing.p90_ms), (0.99, timing.p99_ms)):
        at = share * (len(ms) - 1)
        low = int(at)
        high = min(low + 1, len(ms) - 1)
        assert found == pytest.approx(ms[low] + (at - low) * (ms[high] - ms[low]), rel=1e-6)
    assert timing.best_ms == pytest.approx(ms[0], rel=1e-6)


def test_stops_when_the_last_windows_agree() -> None:
    time = FakeTime()
    seconds = [9, 9, 5, 5, 1.0, 1.0, 1.02, 1.02, 1.04, 1.04, *forever_list(7.0, 20)]
    timing = measure("a", time.call(seconds), plan=PLAN, clock=time.clock)
    assert timing.settled
    assert timing.window_medians_ms == pytest.approx((9000, 5000, 1000, 1020, 1040))
    assert timing.calls == 10, "no call is thrown away afterwards, the slow ones neither"


def forever_list(value: float, count: int) -> list[float]:
    return [value] * count


def test_gives_up_when_the_budget_is_spent_and_says_so() -> None:
    time = FakeTime()
    timing = measure("a", time.call([1.0, 1.0, 2.0, 2.0] * 10), plan=replace(PLAN, budget_s=11.9), clock=time.clock)
    assert not timing.settled
    assert timing.calls == 8, "windows of 2, 4, 2 and 4 seconds: the fourth began at 8 and ended at 12"


def test_warm_up_and_settling_calls_do_not_count() -> None:
    time = FakeTime()
    # Two to warm up; then each window: one to settle, two that count.
    seconds = [50.0, 50.0] + [20.0, 1.0, 1.0] * 3
    timing = measure("a", time.call(seconds), plan=replace(PLAN, warmup=2, settle=1), clock=time.clock)
    assert timing.settled
    assert (timing.calls, timing.p99_ms) == (6, pytest.approx(1000.0))


def test_calls_take_turns_until_the_last_has_settled_or_spent_its_time() -> None:
    time = FakeTime()
    calls = {
        "steady": time.call(forever(1.0), name="s"),
        "wild": time.call([1.0, 1.0, 9.0, 9.0] * 9, name="w", threads=2.0),
    }
    found = in_turns(calls, plan=replace(PLAN, budget_s=25.0), clock=time.clock)
    assert "".join(time.log) == "ssww" * 4
    assert list(found) == ["steady", "wild"]
    assert found["steady"].settled
    assert not found["wild"].settled
    assert found["steady"].cpu_ms == pytest.approx(1000.0)
    assert found["wild"].cpu_ms == pytest.approx(10_000.0), "two threads for 5 s a call on average"


def test_calls_are_compared_round_by_round() -> None:
    """The machine slows down after two rounds, when one call's time is spent and the other goes on alone."""
    time = FakeTime()
    calls = {
        "slow": time.call([6.0] * 4),
        "fast": time.call([2.0, 1.0, 2.0, 3.0] + [4.0, 9.0] * 4),
    }
    found = in_turns(calls, plan=replace(PLAN, agreeing=2, budget_s=20.0), clock=time.clock)
    assert [len(timing.window_medians_ms) for timing in found.values()] == [2, 3]
    assert found["fast"].times_as_fast_as(found["slow"]) == pytest.approx((6 / 1.5 + 6 / 2.5) / 2)


def test_once_is_one_call_and_settles_nothing() -> None:
    time = FakeTime()
    timing = measure("a", time.call([3.0]), plan=ONCE, clock=time.clock)
    assert (timing.calls, timing.p50_ms, timing.settled) == (1, pytest.approx(3000.0), False)


@pytest.mark.parametrize(
    ("medians", "expected"),
    [
        ([1.0, 1.0], False),  # too few
        ([1.0, 1.049, 1.0], True),
        ([1.0, 1.06, 1.0], False),
        ([5.0, 1.0, 1.0, 1.0], True),
        ([1.0, 1.0, 1.0, 2.0], False),
    ],
)
def test_agreement(medians: list[float], expected: bool) -> None:
    assert agree(medians, PLAN) is expected
