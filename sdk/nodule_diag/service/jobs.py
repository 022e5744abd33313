"""Jobs that are done later: remembered for a while, with the CT that their answers are written from."""

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
    """A job, and what is let go when it is forgotten.

    Attributes:
        job: The job.
        held: Releases the CT.
    """

    job: Job
    held: ExitStack


class JobShelf:
    """Remembers jobs; any thread may use it.

    Args:
        count: Finished jobs at a time; the oldest is forgotten for a new one.
        seconds: For which a finished job is remembered.
        clock: Monotonic seconds.
    """

    def __init__(self, *, count: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._seconds, self._clock = count, seconds, clock
        self._jobs: OrderedDict[str, ShelvedJob] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, job: Job, held: ExitStack) -> None:
        """Remember a job."""
        with self._lock:
            self._jobs[job.id] = ShelvedJob(job, held)
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
                "there is no such job; it may have been forgotten", status=404, code="job-unknown", hint="ask again"
            )
        return shelved.job

    def forget(self, job_id: str) -> None:
        """Let a job go, with its CT."""
        with self._lock:
            shelved = self._jobs.pop(job_id, None)
        if shelved is not None:
            shelved.held.close()

    def sweep(self) -> None:
        """Forget finished jobs that are too old or too many."""
        now = self._clock()
        with self._lock:
            ended = [(job_id, shelved.job.ended) for job_id, shelved in self._jobs.items()]
        finished = [(job_id, at) for job_id, at in ended if at is not None]
        surplus = len(finished) - self._count
        for number, (job_id, at) in enumerate(sorted(finished, key=lambda item: item[1])):
            if number < surplus or now - at > self._seconds:
                self.forget(job_id)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            jobs = list(self._jobs)
        for job_id in jobs:
            self.forget(job_id)
