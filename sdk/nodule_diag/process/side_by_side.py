"""Work on many items at once, with the results in order: they do not depend on which thread was first."""

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
    """``map(work, items)`` with threads beside the caller's, and a limit on the work done in advance.

    An error is raised in its item's turn, whichever thread meets one first. Leaving the block, with an error or before
    the last result, drops the items not yet started and waits for the others.

    Args:
        work: Called once per item, in any thread.
        items: Taken one by one in the caller's thread, at most ``ahead`` beyond the result being used.
        threads: How many threads work at once; with 0 the caller's own thread works, when it asks for a result.
        ahead: Results, finished or in work, beyond the caller's current one; twice ``threads`` when left out.

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
                del result  # free it now: the next result may take long
        finally:
            for future in pending:
                future.cancel()
