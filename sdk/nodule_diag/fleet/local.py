"""The engine that an embedded use needs: worker processes of this machine, a thread of this process for each."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

from nodule_diag.fleet.manifest import ListedCT
from nodule_diag.fleet.order import Order
from nodule_diag.fleet.worker import Worker
from nodule_diag.process import available_cores

Answer = tuple[ListedCT, dict[str, Any]]


class _Work:
    """What is to be done, shared by the workers' threads.

    Args:
        cts: In order.
        workers: How many share them.

    Attributes:
        one_alone: Held by who tries a CT alone: a second of its size might be what it lacks memory for.
    """

    def __init__(self, cts: Sequence[ListedCT], workers: int) -> None:
        self._lock = threading.Lock()
        self._cts = deque(cts)
        self._alone: deque[ListedCT] = deque()
        self._workers = workers
        self.one_alone = threading.Lock()

    def take(self) -> tuple[ListedCT | None, bool]:
        """The next CT, if any, and whether it is to be tried alone."""
        with self._lock:
            if self._cts:
                return self._cts.popleft(), False
            return (self._alone.popleft(), True) if self._alone else (None, False)

    def take_ahead(self) -> ListedCT | None:
        """One to be read in advance, unless another worker may soon want it."""
        with self._lock:
            return self._cts.popleft() if len(self._cts) >= self._workers else None

    def put_back(self, ct: ListedCT) -> None:
        """Try this one alone, behind all others."""
        with self._lock:
            self._alone.append(ct)


class LocalEngine:
    """Workers of this machine.

    Args:
        workers: How many; as many as there are cores for their threads when left out, and one on a GPU.
    """

    name = "local"

    def __init__(self, workers: int | None = None) -> None:
        self._wanted = workers
        self._first: Worker | None = None
        self.workers = 0

    def __enter__(self) -> LocalEngine:
        """The engine itself; no process is started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the first worker, if no others have been started."""
        if self._first is not None:
            self._first.__exit__()

    def ready(self, order: Order) -> dict[str, Any]:
        """Bundle, case base and runtime of the first worker; raises as :meth:`Worker.ready`."""
        self._first = Worker(order)
        return self._first.ready()

    def answers(self, cts: Sequence[ListedCT], order: Order) -> Generator[Answer, None, None]:
        """Diagnose CTs; answers come as they are ready. Closing what this returns ends the workers.

        Args:
            cts: At least one.
            order: What workers are to do.

        Raises:
            NoduleDiagError: When a worker cannot be started any more.
        """
        on_gpu = order.options.device.startswith("cuda")
        fitting = 1 if on_gpu else max(1, available_cores() // order.options.threads)
        self.workers = min(self._wanted or fitting, len(cts))
        work = _Work(cts, self.workers)
        answers: SimpleQueue[Answer | BaseException] = SimpleQueue()
        first = self._first or Worker(order)
        first.order = order
        with ExitStack() as stack:
            staff = [first, *(stack.enter_context(Worker(order)) for _ in range(self.workers - 1))]
            threads = [threading.Thread(target=_serve, args=(worker, work, answers)) for worker in staff]
            try:
                for thread in threads:
                    thread.start()
                for _ in cts:
                    answer = answers.get()
                    if isinstance(answer, BaseException):
                        raise answer
                    yield answer
            finally:
                for worker in staff:
                    worker.stop()
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()


def _serve(worker: Worker, work: _Work, answers: SimpleQueue[Answer | BaseException]) -> None:
    """Do one's part of the work until there is none."""
    try:
        ahead: ListedCT | None = None
        while True:
            ct, alone = (ahead, False) if ahead is not None else work.take()
            if ct is None:
                return
            if alone:  # the second try
                ahead = None
                with work.one_alone:
                    worker.restart()
                    told = worker.judge(ct, tries=1)
                answers.put((ct, told))
                continue
            ahead = work.take_ahead()
            said = worker.say(ct, ahead)
            if not said.again:
                answers.put((ct, said.told))
                continue
            work.put_back(ct)
            if said.died and ahead is not None:
                work.put_back(ahead)
                ahead = None
    except BaseException as error:  # noqa: BLE001 - raised where the answers are taken
        answers.put(error)
