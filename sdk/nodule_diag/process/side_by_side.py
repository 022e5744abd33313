"""Work on many items at once, results in order: what the caller sees does not depend on which thread was first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int | None = None
) -> Iterator[Iterator[Result]]:
    """``map(work, items)`` with threads beside the caller's, and a bound on what is done in advance.

    An error is raised in its item's turn, whichever thread meets one first. Leaving the block, with an error or before
    the last result, drops the items not yet begun and waits for those that are.

    Args:
        work: Called once an item, in any thread.
        items: Taken one by one in the caller's thread, at most ``ahead`` beyond the result being used.
        threads: How many work at once; with 0 the caller's own does, when it asks for a result.
        ahead: Results, finished or in work, beyond the one that the caller has; twice ``threads`` when left out.

    Yields:
        The results in the order of the items.
    """
    if threads == 0:
        yield map(work, items)
        return
    with closing(_results(work, iter(items), threads, ahead or 2 * threads)) as results:
        yield results


def _results(
    work: Callable[[Item], Result], source: Iterator[Item], threads: int, ahead: int
) -> Generator[Result, None, None]:
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="nodule-diag") as pool:
        try:
            pending.extend(pool.submit(work, item) for item in islice(source, ahead))
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(work, item) for item in islice(source, 1))
                yield result
                del result  # the caller may be done with it, and the next one be long in coming
        finally:
            for future in pending:
                future.cancel()
