"""Jobs that are done later. They are kept for a while, with the CT that their answers need."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from nodule_diag.service.problems import ServiceError
from nodule_diag.service.work import Job


@dataclass(frozen=True, eq=False)
class ShelvedJob:
    """A job, and the CT that is released when the job is deleted.

    Attributes:
        job: The job.
        held: Releases the CT.
        ct_id: Its id, where it has one.
    """

    job: Job
    held: ExitStack
    ct_id: str | None


class JobShelf:
    """Keeps jobs; any thread may use it.

    Args:
        count: Finished jobs at a time; the oldest is deleted for a new one.
        seconds: How long a finished job is kept.
        clock: Monotonic seconds.
    """

    def __init__(self, *, count: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._seconds, self._clock = count, seconds, clock
        self._jobs: OrderedDict[str, ShelvedJob] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, job: Job, held: ExitStack, ct_id: str | None = None) -> None:
        """Keep a job."""
        with self._lock:
            self._jobs[job.id] = ShelvedJob(job, held, ct_id)
        self.sweep()

    def get(self, job_id: str) -> Job:
        """A job.

        Raises:
            ServiceError: ``job-unknown``.
        """
        self.sweep()
        with self._lock:
            shelved = self._jobs.get(job_id)
        if shelved is None:
            raise ServiceError(
                f"there is no job {job_id[:80]!r}; an ended job is forgotten after a while",
                status=404,
                code="job-unknown",
                hint="send the request again",
            )
        return shelved.job

    def forget(self, job_id: str) -> None:
        """Delete a job and release its CT."""
        with self._lock:
            shelved = self._jobs.pop(job_id, None)
        if shelved is not None:
            shelved.held.close()

    def forget_oldest(self) -> bool:
        """Delete the job that finished first and release its CT; returns whether there was one."""
        finished = self._finished()
        if finished:
            self.forget(finished[0][0])
        return bool(finished)

    def forget_of(self, ct_id: str) -> None:
        """Delete all finished jobs of a CT."""
        for job_id, _, of in self._finished():
            if of == ct_id:
                self.forget(job_id)

    def sweep(self) -> None:
        """Delete finished jobs that are too old or too many."""
        now, finished = self._clock(), self._finished()
        surplus = len(finished) - self._count
        for number, (job_id, at, _) in enumerate(finished):
            if number < surplus or now - at > self._seconds:
                self.forget(job_id)

    def _finished(self) -> list[tuple[str, float, str | None]]:
        """The id, end time and CT of each finished job; the first that ended comes first."""
        with self._lock:
            ended = [(job_id, shelved.job.ended, shelved.ct_id) for job_id, shelved in self._jobs.items()]
        return sorted(((job_id, at, ct) for job_id, at, ct in ended if at is not None), key=lambda one: one[1])

    def clear(self) -> None:
        """Delete all jobs."""
        with self._lock:
            jobs = list(self._jobs)
        for job_id in jobs:
            self.forget(job_id)
