"""The objects that all requests of one service share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from os import PathLike
from typing import Any

from fastapi import Request

from nodule_diag.diagnoser import Diagnoser
from nodule_diag.process import LOG
from nodule_diag.service.batching import BatchingBackend
from nodule_diag.service.metrics import Metrics
from nodule_diag.service.predictor import Predictor
from nodule_diag.service.problems import CLIENT_GONE, ServiceError
from nodule_diag.service.settings import Settings
from nodule_diag.service.sources import Sources
from nodule_diag.service.store import CTStore
from nodule_diag.service.uploads import Gate
from nodule_diag.service.work import Job, WorkQueue

GPU_WORKERS = 4
"""Several, so that one request is read and resampled while the network computes the nodules of another."""
DISCONNECT_S = 0.1
"""How often the service checks whether a client still waits."""


class Service:
    """One loaded network, the CTs in memory, and the queued work.

    Args:
        settings: Its settings.
        diagnoser: The loaded network.
        cases: As for :class:`Predictor`.

    Attributes:
        metrics: Its metrics.
        ready: Whether it accepts work.
    """

    def __init__(self, settings: Settings, diagnoser: Diagnoser, *, cases: str | PathLike[str] | None = None) -> None:
        self.settings, self.metrics = settings, Metrics()
        on_cpu = diagnoser.runtime.device == "cpu"
        if not on_cpu:
            diagnoser = diagnoser.sharing(through=BatchingBackend)
        self.predictor = Predictor(diagnoser, self.metrics, cases=cases)
        self.sources = Sources(settings, threads=diagnoser.threads)
        self.store = CTStore(count=settings.cts, limit_bytes=settings.cts_bytes, expires_s=settings.expires_s)
        workers = settings.workers or (1 if on_cpu else GPU_WORKERS)
        self.work = WorkQueue(workers=workers, waiting=settings.queue, seconds=settings.work_s)
        self.gate = Gate(settings)
        self.ready = True

    async def done(self, request: Request, work: Callable[[Job], Any], held: ExitStack | None = None) -> Any:  # noqa: ANN401 - of the work
        """Do work while a client waits; if the client disconnects, the work is cancelled.

        Args:
            request: The client's request.
            work: The work to do.
            held: Resources of the work, closed when the work has ended, which may be after this call returns.

        Raises:
            NoduleDiagError: The error of the work, or of the queue.
        """
        job = self.work.submit(work, request_id=request.state.request_id)
        if held is not None:
            kept = held.pop_all()
            job.future.add_done_callback(lambda _: kept.close())
        answered = asyncio.wrap_future(job.future)
        try:
            while not answered.done():
                await asyncio.wait([answered], timeout=DISCONNECT_S)
                if not answered.done() and await request.is_disconnected():
                    raise ServiceError("the client has gone", status=CLIENT_GONE, code="client-gone")
            return answered.result()
        finally:
            if not answered.done():
                self.work.cancel(job)
                answered.cancel()

    def stop(self) -> None:
        """Finish running work, reject queued work, and release all CTs; blocks at most ``stop_s``."""
        self.ready = False
        self.work.stop(seconds=self.settings.stop_s)
        self.store.clear()
        LOG.info("the service has stopped")
