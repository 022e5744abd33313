"""Several threads, one order: results, errors, bounds and what is left behind."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice

import pytest

from nodule_diag.process.side_by_side import in_order


@pytest.mark.parametrize("threads", [0, 1, 2, 8])
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number**2

    with in_order(slow_first, range(50), threads=threads) as results:
        assert list(results) == [number**2 for number in range(50)]


@pytest.mark.parametrize("threads", [0, 1, 2, 8])
def test_the_first_error_by_order_is_raised_not_the_first_by_time(threads: int) -> None:
    def fail(number: int) -> int:
        if number == 3:
            time.sleep(0.05)
            raise ValueError("three")
        if number > 3:
            raise KeyError(number)
        return number

    got = []
    with pytest.raises(ValueError, match="three"), in_order(fail, range(20), threads=threads) as results:
        got.extend(results)
    assert got == [0, 1, 2]  # extend() keeps what came before the error
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nodule-diag")]


def test_they_really_run_at_the_same_time() -> None:
    together = threading.Barrier(4)
    with in_order(lambda _: together.wait(timeout=120), range(4), threads=4) as results:
        assert sorted(results) == [0, 1, 2, 3]


def test_endless_items_are_taken_only_so_far_ahead() -> None:
    begun: list[int] = []
    with in_order(lambda number: begun.append(number) or number, count(), threads=2, ahead=3) as results:
        assert list(islice(results, 5)) == [0, 1, 2, 3, 4]
    assert len(begun) <= 5 + 3


def test_leaving_early_waits_for_what_runs_and_drops_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second item ends only when its pool is being closed: by then all the others have been dropped."""
    running, closing, done = threading.Event(), threading.Event(), []
    shutdown = ThreadPoolExecutor.shutdown

    def told(pool: ThreadPoolExecutor, *arguments: bool, **options: bool) -> None:
        closing.set()
        shutdown(pool, *arguments, **options)

    def work(number: int) -> int:
        if number == 1:
            running.set()
            closing.wait(timeout=120)
        done.append(number)
        return number

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", told)
    with in_order(work, range(100), threads=1, ahead=50) as results:
        next(results)
        assert running.wait(timeout=120)
    assert done == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nodule-diag")]
