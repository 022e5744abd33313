"""Nodules of several requests in one run: each gets its own answer, or its own error."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nodule_diag.backends.backend import Outputs
from nodule_diag.errors import BackendError
from nodule_diag.service.batching import BatchingBackend
from service_client import wait_for


class Slow:
    """Answers the sum of each patch, refuses negative ones, and waits for the first call to be let go."""

    name, device, precision, threads, batch = "slow", "cuda:0", "fp32", 1, 4

    def __init__(self) -> None:
        self.open, self.sizes = threading.Event(), []

    def infer(self, patches: np.ndarray) -> Outputs:
        self.sizes.append(len(patches))
        assert self.open.wait(60)
        if (patches < 0).any():
            raise BackendError("negative")
        sums = patches.reshape(len(patches), -1).sum(axis=1)
        maps = np.zeros((len(patches), 16, 16, 16), np.float32)
        return Outputs(sums, sums, sums, maps, maps)


def asked_together(values: list[list[float]]) -> tuple[Slow, list[object]]:
    """Ask from a thread each, all while a first call is running."""
    slow = Slow()
    joined = BatchingBackend(slow)
    patches = [
        np.array(each, np.float32)[:, None, None, None, None] * np.ones((1, 1, 1, 1, 1), np.float32) for each in values
    ]
    with ThreadPoolExecutor(len(values)) as pool:
        first = pool.submit(joined.infer, patches[0])
        wait_for(lambda: slow.sizes)
        rest = []
        for number, each in enumerate(patches[1:], start=1):
            rest.append(pool.submit(joined.infer, each))
            wait_for(lambda number=number: len(joined._waiting) == number)
        slow.open.set()
        return slow, [one.exception(60) or one.result().malignancy.tolist() for one in (first, *rest)]


def test_what_waits_is_run_together_up_to_a_batch():
    slow, answers = asked_together([[1], [2], [3, 4], [5], [6, 7], [8]])
    assert answers == [[1], [2], [3, 4], [5], [6, 7], [8]]
    assert slow.sizes == [1, 4, 3]


def test_more_than_a_batch_is_run_alone():
    slow, answers = asked_together([[1], [2] * 9, [3]])
    assert answers == [[1], [2] * 9, [3]]
    assert slow.sizes == [1, 9, 1]


def test_the_fault_of_one_is_not_that_of_the_others():
    slow, answers = asked_together([[1], [2], [-1], [4]])
    assert answers[0:2] == [[1], [2]]
    assert answers[3] == [4]
    assert isinstance(answers[2], BackendError)
    assert slow.sizes == [1, 3, 1, 1, 1]


def test_many_threads_get_their_own(diagnoser):
    joined = BatchingBackend(diagnoser.network)
    patches = np.random.default_rng(1).random((12, 1, 2, 64, 64, 64), dtype=np.float32)
    with ThreadPoolExecutor(6) as pool:
        found = [outputs.logit[0] for outputs in pool.map(joined.infer, patches)]
    wanted = [diagnoser.network.infer(patch).logit[0] for patch in patches]
    assert found == pytest.approx(wanted, abs=1e-6)
