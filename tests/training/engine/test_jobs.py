"""Runs side by side: all at once, logs apart, one failure harms no other."""

from __future__ import annotations

import sys
import time

import pytest

from nodule_diag.errors import UsageError
from nodule_diag_training.engine.jobs import Job, JobsFailedError, run_side_by_side


def job(tmp_path, name, code):
    return Job(name=name, argv=(sys.executable, "-S", "-c", code), log=tmp_path / name / "run.log")


def test_they_run_at_the_same_time(tmp_path):
    """Each waits for the other's file: one after the other they would never end."""
    wait = (
        "import pathlib, time\n"
        "pathlib.Path({own!r}).touch()\n"
        "while not pathlib.Path({other!r}).exists(): time.sleep(0.01)"
    )
    names = [str(tmp_path / name) for name in ("x", "y")]
    jobs = [
        job(tmp_path, "one", wait.format(own=names[0], other=names[1])),
        job(tmp_path, "two", wait.format(own=names[1], other=names[0])),
    ]
    ended = []
    run_side_by_side(jobs, at_once=2, on_end=lambda done, code: ended.append((done.name, code)))
    assert sorted(ended) == [("one", 0), ("two", 0)]


def test_no_more_at_once_than_asked_for(tmp_path):
    stamp = "import time; print(time.monotonic()); time.sleep(0.05); print(time.monotonic())"
    begin = time.monotonic()
    jobs = [job(tmp_path, str(number), stamp) for number in range(3)]
    run_side_by_side(jobs, at_once=1)
    spans = [[float(line) for line in done.log.read_text().split()] for done in jobs]
    assert begin <= spans[0][0]
    assert spans[0][1] <= spans[1][0] <= spans[1][1] <= spans[2][0]


def test_a_failure_is_reported_with_its_log_and_the_others_are_finished(tmp_path):
    jobs = [
        job(tmp_path, "bad", "import sys; print('no such fold'); sys.exit(3)"),
        job(tmp_path, "good", "print('done')"),
    ]
    with pytest.raises(JobsFailedError, match=r"1 of 2 runs failed: bad ended with 3 \(no such fold\)") as caught:
        run_side_by_side(jobs, at_once=1)
    assert str(jobs[0].log) in caught.value.hint
    assert jobs[1].log.read_text() == "done\n"
    with pytest.raises(UsageError, match="0 runs at a time"):
        run_side_by_side(jobs, at_once=0)
