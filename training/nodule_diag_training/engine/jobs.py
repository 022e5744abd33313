"""Several runs at a time, each a process with a log of its own: folds or seeds side by side on one GPU.

A step of this model leaves most of a large GPU idle, so runs in parallel processes finish sooner than runs one after
the other. The processes share nothing, and a failed run does not affect the others.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nodule_diag.errors import NoduleDiagError, OutputError, UsageError

LAST_LINES = 3
"""Lines of a failed process's log that the error shows."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command and where its output goes.

    Attributes:
        name: A readable name.
        argv: Program and arguments.
        log: File for stdout and stderr; existing content is kept.
    """

    name: str
    argv: tuple[str, ...]
    log: Path


class JobsFailedError(NoduleDiagError):
    """Some of the runs side by side failed; the others are finished."""

    code = "runs-failed"


def run_side_by_side(jobs: Sequence[Job], *, at_once: int, on_end: Callable[[Job, int], None] | None = None) -> None:
    """Run all jobs, ``at_once`` at a time, and return when every one has ended.

    Args:
        jobs: Started in this order.
        at_once: How many run at a time.
        on_end: Called with each job and its exit code when it has ended, from that job's thread.

    Raises:
        UsageError: If ``at_once`` is not positive.
        JobsFailedError: If any job failed; the error says which, with the end of its log.
    """
    if at_once < 1:
        raise UsageError(f"{at_once} runs at a time", hint="give 1 or more")

    def finish(job: Job) -> int:
        code = _run(job)
        if on_end is not None:
            on_end(job, code)
        return code

    with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="side-by-side") as pool:
        codes = list(pool.map(finish, jobs))
    failed = [(job, code) for job, code in zip(jobs, codes, strict=True) if code != 0]
    if failed:
        described = "; ".join(f"{job.name} ended with {code} ({_end(job.log)})" for job, code in failed)
        logs = ", ".join(str(job.log) for job, _ in failed)
        raise JobsFailedError(
            f"{len(failed)} of {len(jobs)} runs failed: {described}", hint=f"see {logs}; a repeated command goes on"
        )


def _run(job: Job) -> int:
    try:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            done = subprocess.run(job.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False)  # noqa: S603
    except OSError as error:
        raise OutputError(f"cannot run {job.name}: {error}", hint=f"check {job.argv[0]} and {job.log}") from error
    return done.returncode


def _end(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-LAST_LINES:]) or "nothing written"
