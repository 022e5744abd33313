"""Pieces of work in worker threads: a bounded queue, progress, time limits and cancellation."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

from nodule_diag.errors import NoduleDiagError
from nodule_diag.process import LOG
from nodule_diag.service.problems import ServiceError, problem, unforeseen

SHARE = {"read": (0.0, 0.4), "lung_mask": (0.4, 0.6), "patch": (0.6, 0.65), "inference": (0.65, 0.9)}
"""Start and end of each stage as a share of the whole, for the progress of one nodule; later stages are quick."""
STATES = ("queued", "running", "done", "failed", "cancelled")


class CancelledWork(BaseException):
    """Nobody waits for the answer any longer. As a BaseException, it passes every ``except Exception`` of the SDK."""


class Job:
    """One piece of work; any thread may read its state.

    Args:
        work: The work to do; it calls :meth:`check` often.
        seconds: Its time limit.
        request_id: The id of its request, for its error.

    Attributes:
        id: Its id for clients; cannot be guessed.
        state: One of :data:`STATES`.
        stage: The current stage.
        progress: 0 to 1.
        error: Why it failed.
        future: Gets the result, or the error.
    """

    def __init__(self, work: Callable[[Job], Any], *, seconds: float, request_id: str) -> None:
        self.id = secrets.token_urlsafe(12)
        self.state, self.stage, self.progress = "queued", "queued", 0.0
        self.error: NoduleDiagError | None = None
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # a cancelled wait must not cancel the future
        self.request_id = request_id
        self.ended: float | None = None
        self._work, self._seconds = work, seconds
        self._created = datetime.now(UTC)
        self._deadline = float("inf")
        self._cancelled, self._settling = threading.Event(), threading.Lock()

    def check(self) -> None:
        """Raise when the work is no longer wanted, or takes too long.

        Raises:
            CancelledWork: When the work was cancelled.
            ServiceError: ``work-timeout``.
        """
        if self._cancelled.is_set():
            raise CancelledWork
        if time.monotonic() > self._deadline:
            raise ServiceError(
                f"the work was not done within {self._seconds:g} s",
                status=504,
                code="work-timeout",
                hint="ask for fewer nodules at a time, or for a higher limit",
            )

    def at(self, stage: str, share: float = 0.0) -> None:
        """Set the stage and its done ``share``, after :meth:`check`."""
        self.check()
        start, end = SHARE.get(stage, (0.9, 1.0))
        self.stage = stage
        self.progress = max(self.progress, round(start + (end - start) * share, 3))

    def cancel(self) -> None:
        """Ask the job to stop; a queued job is never started."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop."""
        return self._cancelled.is_set()

    def document(self) -> dict[str, Any]:
        """The document for a client."""
        stage = "read" if self.stage == "queued" else self.stage
        return {
            "id": self.id,
            "state": self.state,
            "progress": 1.0 if self.state == "done" else self.progress,
            "stage": "done" if self.state == "done" else stage,
            "created": self._created.isoformat(timespec="milliseconds"),
            "error": None if self.error is None else problem(self.error, request_id=self.request_id),
        }

    def run(self) -> None:
        """Do the work, in a worker's thread."""
        self._deadline = time.monotonic() + self._seconds
        self.state = "running"
        try:
            self.check()
            result = self._work(self)
        except CancelledWork:
            self.end("cancelled", ServiceError("the work was cancelled", status=409, code="cancelled"))
        except Exception as error:  # noqa: BLE001 - a worker survives any error of a request
            if not isinstance(error, NoduleDiagError):
                frame = error.__traceback__
                while frame is not None and frame.tb_next is not None:
                    frame = frame.tb_next
                where = "" if frame is None else f"{frame.tb_frame.f_code.co_name}, line {frame.tb_lineno}"
                LOG.error("a request failed by a bug: %s in %s", type(error).__name__, where)
            told = unforeseen(error)
            told.__traceback__ = told.__cause__ = told.__context__ = None  # frames would keep the voxels
            self.end("failed", told)
        else:
            self.end("done", None, result)

    def end(self, state: str, error: NoduleDiagError | None, result: object = None) -> None:
        """Set the result or error, once; the work, and the CT in it, is released."""
        with self._settling:
            if self.ended is not None:  # given up earlier, and now ended after all
                return
            self._work = _nothing
            self.error, self.state, self.ended = error, state, time.monotonic()
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


def _nothing(_: Job) -> None:
    return None


class WorkQueue:
    """A bounded queue for a few workers.

    Args:
        workers: The number of threads.
        waiting: The most jobs that may wait.
        seconds: The time limit of a job.
    """

    def __init__(self, *, workers: int, waiting: int, seconds: float) -> None:
        self._limit, self._seconds = waiting, seconds
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._mean_s = 1.0
        self._threads = [
            threading.Thread(target=self._serve, name=f"nodule-diag-work-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def counts(self) -> tuple[int, int]:
        """How many jobs wait, and how many run."""
        with self._changed:
            return len(self._waiting), len(self._running)

    @property
    def running(self) -> tuple[Job, ...]:
        """The running jobs."""
        with self._changed:
            return tuple(self._running)

    def require_room(self) -> None:
        """Refuse work when the queue cannot take it.

        Raises:
            ServiceError: ``queue-full`` (429, with the time to ask again) or ``stopping``.
        """
        with self._changed:
            self._require_room()

    def submit(self, work: Callable[[Job], Any], *, request_id: str) -> Job:
        """Queue a piece of work; errors as :meth:`require_room`."""
        job = Job(work, seconds=self._seconds, request_id=request_id)
        with self._changed:
            self._require_room()
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job; a waiting job leaves the queue at once."""
        job.cancel()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.end("cancelled", ServiceError("the work was cancelled", status=409, code="cancelled"))

    def stop(self, *, seconds: float) -> None:
        """Accept no new work, reject waiting jobs, and finish running ones; jobs that still run then are rejected."""
        with self._changed:
            self._stopping = True
            while self._waiting:
                self._waiting.popleft().end("failed", _stopping())
            self._changed.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            for job in self._running:
                job.cancel()
                job.end("failed", _stopping())
        for thread in self._threads:
            thread.join(1.0)

    def _require_room(self) -> None:
        if self._stopping:
            raise _stopping()
        if len(self._waiting) >= self._limit:
            wait = max(1.0, self._mean_s * len(self._waiting) / len(self._threads))
            raise ServiceError(
                f"{len(self._waiting)} requests are waiting already",
                status=429,
                code="queue-full",
                hint=f"ask again in {wait:.0f} s",
                retry_after_s=wait,
            )

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._stopping:
                        return
                    self._changed.wait()
                job = self._waiting.popleft()
                self._running.add(job)
            started = time.monotonic()
            job.run()
            with self._changed:
                self._running.discard(job)
                self._mean_s += 0.2 * (time.monotonic() - started - self._mean_s)
            del job  # it holds its result


def _stopping() -> ServiceError:
    return ServiceError(
        "the service is stopping", status=503, code="stopping", hint="ask again when it is back", retry_after_s=5.0
    )
