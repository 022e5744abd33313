"""Wall time of the stages of one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Sums the wall time of each stage, and of everything since it was made.

    Args:
        stages: Their names.
        watch: Called with a stage's name when it begins; its exceptions are passed on.
    """

    def __init__(self, stages: Sequence[str], watch: Callable[[str], None] | None = None) -> None:
        self._start = perf_counter()
        self._ms = dict.fromkeys(stages, 0.0)
        self._watch = watch

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the block's time to a stage."""
        if self._watch is not None:
            self._watch(stage)
        start = perf_counter()
        try:
            yield
        finally:
            self._ms[stage] += (perf_counter() - start) * 1000.0

    def result(self) -> dict[str, float]:
        """Milliseconds by stage, and ``total``."""
        return {**self._ms, "total": (perf_counter() - self._start) * 1000.0}
