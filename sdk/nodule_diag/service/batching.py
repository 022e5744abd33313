"""Runs the nodules of several requests together, where this is faster: on a GPU."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends import Backend, Outputs


@dataclass(eq=False)
class _Asked:
    patches: NDArray[np.float32]
    answer: Outputs | Exception | None = None


class BatchingBackend:
    """A backend that joins simultaneous requests of several threads, for ``Diagnoser.sharing``.

    A request that comes while the network is idle runs at once. Requests that come during a run wait. One of the
    waiting threads then runs them together, up to ``batch`` patches. No request waits for others to join.

    Args:
        backend: The backend that runs the network.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name, self.device, self.precision = backend.name, backend.device, backend.precision
        self.threads, self.batch = backend.threads, backend.batch
        self._changed = threading.Condition()
        self._waiting: deque[_Asked] = deque()
        self._running = False

    def infer(self, patches: NDArray[np.float32]) -> Outputs:
        """As :meth:`Backend.infer`."""
        mine = _Asked(patches)
        with self._changed:
            self._waiting.append(mine)
        while True:
            with self._changed:
                while self._running and mine.answer is None:
                    self._changed.wait()
                if mine.answer is not None:
                    break
                self._running, together = True, self._together()
            try:
                self._answer(together)
            finally:
                with self._changed:
                    self._running = False
                    self._changed.notify_all()
        if isinstance(mine.answer, Exception):
            raise mine.answer
        return mine.answer

    def _together(self) -> list[_Asked]:
        """The oldest requests, as many as fit into a batch; at least one."""
        taken = [self._waiting.popleft()]
        count = len(taken[0].patches)
        while self._waiting and count + len(self._waiting[0].patches) <= self.batch:
            taken.append(self._waiting.popleft())
            count += len(taken[-1].patches)
        return taken

    def _answer(self, together: list[_Asked]) -> None:
        try:
            outputs = self._backend.infer(np.concatenate([asked.patches for asked in together]))
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
            if len(together) == 1:
                together[0].answer = error
                return
            for asked in together:  # one request's fault must not fail the others
                self._answer([asked])
            return
        start = 0
        for asked in together:
            end = start + len(asked.patches)
            asked.answer = Outputs(**{name: array[start:end] for name, array in outputs.given().items()})
            start = end
