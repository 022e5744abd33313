"""Work done ahead of time by threads, handed out in order: a step never waits for its patches unless all of them do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def ahead(
    function: Callable[[Key], Value], keys: Iterable[Key], *, workers: int, queued: int
) -> Generator[Value, None, None]:
    """``function`` of each key, in order; the next ones are computed meanwhile. numpy lets other threads run.

    An error of ``function`` is raised where its value is due. Closing the generator stops what is queued and waits for
    what has begun.

    Args:
        function: Of the key alone, and safe to call from several threads.
        keys: In the order in which the values are wanted.
        workers: Threads; 0 computes each value when it is due.
        queued: How many values may be finished or under way before they are due.

    Yields:
        The values.
    """
    if workers == 0:
        yield from map(function, keys)
        return
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="prefetch")
    waiting: deque[Future[Value]] = deque()
    try:
        for key in keys:
            waiting.append(pool.submit(function, key))
            if len(waiting) > queued:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
