"""Runs that are killed, repeated, or split over processes are the run that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nodule_diag_training.config import Stage, TrainingConfig
from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.engine import provenance
from nodule_diag_training.engine.checkpoint import CHECKPOINT, MODEL
from nodule_diag_training.engine.execution import Execution
from nodule_diag_training.engine.processes import Processes
from nodule_diag_training.engine.run import Run
from nodule_diag_training.engine.runlog import LOG, VALIDATION_LOG, read_log
from nodule_diag_training.model import synergic as model_module
from tiny_run import NARROW

TINY_RUN = Path(__file__).parents[2] / "tiny_run.py"
SECONDS = 240
CONFIG = TrainingConfig(
    stages=(Stage(size=32, steps=6),), cohort="all", checkpoint_every=2, schedule="one-cycle", validation_share=0.2,
    validate_every=3, best_by="total",
)  # fmt: skip


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """As in the processes of ``tiny_run.py``; and a checkout that changes during a test changes nothing."""
    for name, value in NARROW.items():
        monkeypatch.setattr(model_module, name, value)
    monkeypatch.setattr(provenance, "_revision", lambda _: None)


@pytest.fixture(autouse=True)
def one_thread():
    """Another number of threads sums in another order, and an earlier test may have set one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TINY_RUN.parent), *sys.path])}


def test_a_run_killed_at_a_random_moment_ends_byte_for_byte_as_if_it_had_not_been(tmp_path, tiny_nodules, tiny_voxels):
    whole = Run(tmp_path / "whole", config=CONFIG, nodules=tiny_nodules, voxels=tiny_voxels)
    whole.train()
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    killed = tmp_path / "killed"
    command = [sys.executable, str(TINY_RUN), str(killed), CONFIG.model_dump_json(), "--held"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as process:
        try:
            for _ in range(chance.randint(1, CONFIG.steps)):
                assert process.stdout.readline(), "the run died by itself"
            time.sleep(chance.random() * 0.2)
        finally:  # a run that is held would never end, nor let go of its output
            process.kill()
            process.communicate(timeout=SECONDS)
        assert process.returncode == -signal.SIGKILL
    assert not (killed / MODEL).exists()
    Run(killed, config=CONFIG, nodules=tiny_nodules, voxels=tiny_voxels).train()
    for name in (MODEL, CHECKPOINT, LOG, VALIDATION_LOG):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), f"{name}, seed {seed}"


def test_the_same_run_twice_is_the_same_whoever_draws_and_another_seed_is_not(tmp_path, tiny_nodules, tiny_voxels):
    config = CONFIG.model_copy(update={"stages": (Stage(size=32, steps=2),), "validation_share": 0.0})

    def weights(name, *, seed=0, workers=1):
        chosen = config.model_copy(update={"seed": seed})
        execution = Execution(workers=workers)
        run = Run(tmp_path / name, config=chosen, nodules=tiny_nodules, voxels=tiny_voxels, execution=execution)
        run.train()
        return (tmp_path / name / MODEL).read_bytes(), run.model.resnet.head.weight

    first, again, inline, other = (
        weights("one"), weights("two", workers=3), weights("three", workers=0), weights("four", seed=1)
    )  # fmt: skip
    assert first[0] == again[0] == inline[0]
    assert not torch.equal(first[1], other[1])


def test_two_processes_make_the_steps_of_one(tmp_path, tiny_nodules, tiny_voxels):
    """Different numbers of nodules teach the terms in the two; the heads' damping needs the mean of both.

    The rate is small: Adam's first step is the rate times the gradient's sign, so that at a large one the rounding of
    gradients near 0 would move the second step's.
    """
    config = CONFIG.model_copy(
        update={
            "stages": (Stage(size=32, steps=2),),
            "unsure_per_step": 2,
            "accumulate": 2,
            "head_mean_share": 0.1,
            "validate_every": 1,
            "learning_rate": 1e-6,
            "schedule": "constant",
        }
    )
    run = Run(tmp_path / "one", config=config, nodules=tiny_nodules, voxels=tiny_voxels)
    start = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(TINY_RUN), str(tmp_path / "two"), config.model_dump_json(),
    ]  # fmt: skip
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / CHECKPOINT) for name in ("one", "two"))
    squares = {"difference": 0.0, "gradient": 0.0}
    for name, ours in one.items():
        if name.startswith("model."):
            moved = (ours - start[name.removeprefix("model.")]).norm()
            assert moved > 0
            assert (ours - two[name]).norm() <= 1e-6 * ours.norm() + 0.05 * moved, name
        if name.endswith(".exp_avg"):  # the running mean of the gradients
            assert (ours - two[name]).norm() <= 1e-3 * ours.norm(), name
            squares["difference"] += float((ours - two[name]).square().sum())
            squares["gradient"] += float(ours.square().sum())
    assert squares["difference"] <= (1e-4) ** 2 * squares["gradient"]
    logs = [read_log(tmp_path / name / LOG) for name in ("one", "two")]
    assert [line.total for line in logs[0]] == pytest.approx([line.total for line in logs[1]], rel=1e-5)


def test_more_processes_than_nodules_are_refused(tmp_path, tiny_nodules, tiny_voxels):
    with pytest.raises(TrainingDataError, match="a batch has 2 nodules, for 3 processes"):
        Run(tmp_path, config=CONFIG, nodules=tiny_nodules, voxels=tiny_voxels, processes=Processes(size=3))


def test_a_run_of_another_fold_is_not_gone_on_with(tiny_nodules, tiny_voxels, tmp_path):
    """It would have learned from the patients that are now held out."""
    Run(tmp_path, config=CONFIG, nodules=tiny_nodules, voxels=tiny_voxels).train(until=2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(TrainingDataError, match="other nodules"):
        Run(tmp_path, config=CONFIG, nodules=tiny_nodules[:-1], voxels=tiny_voxels).train()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
