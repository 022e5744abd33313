"""The engine for one machine: worker processes of this machine, with one thread of this process for each."""

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
    """The work to do, shared by the workers' threads.

    Args:
        cts: The CTs, in order.
        workers: The number of workers.

    Attributes:
        one_alone: Held while a CT is tried alone: memory may be too small for two CTs of this size.
    """

    def __init__(self, cts: Sequence[ListedCT], workers: int) -> None:
        self._lock = threading.Lock()
        self._cts = deque(cts)
        self._alone: deque[ListedCT] = deque()
        self._workers = workers
        self.one_alone = threading.Lock()

    def take(self) -> tuple[ListedCT | None, bool]:
        """The next CT, if any, and whether to try it alone."""
        with self._lock:
            if self._cts:
                return self._cts.popleft(), False
            return (self._alone.popleft(), True) if self._alone else (None, False)

    def take_ahead(self) -> ListedCT | None:
        """A CT to read in advance, unless another worker may soon need it."""
        with self._lock:
            return self._cts.popleft() if len(self._cts) >= self._workers else None

    def put_back(self, ct: ListedCT) -> None:
        """Try this CT alone, after all others."""
        with self._lock:
            self._alone.append(ct)


class LocalEngine:
    """Workers of this machine.

    Args:
        workers: The number of workers; when left out, as many as there are cores for their threads, and one on a GPU.
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
        """Diagnose CTs; answers come as they are ready. Closing the generator ends the workers.

        Args:
            cts: At least one CT.
            order: The workers' order.

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
    """Let one worker diagnose CTs until there are none."""
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
