"""What a run leaves behind: TensorBoard's file, provenance, and its checkpoint when the disk is full."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from nodule_diag.errors import BackendError, OutputError, UsageError
from nodule_diag_training.config import Stage, TrainingConfig
from nodule_diag_training.engine.checkpoint import CHECKPOINT, MODEL, load_model
from nodule_diag_training.engine.eventfile import FOLDER, EventFile
from nodule_diag_training.engine.execution import Execution
from nodule_diag_training.engine.provenance import Origin
from nodule_diag_training.engine.run import PROVENANCE, Run
from nodule_diag_training.engine.runlog import LOG, RunLog, StepLog, read_log

resource = pytest.importorskip("resource", reason="file size limits are POSIX's")

CONFIG = TrainingConfig(stages=(Stage(size=32, steps=2),), cohort="all", checkpoint_every=1)
SMALL_BYTES = 2**20
"""Holds the logs, and no checkpoint."""


def events(path):
    """The records of an event file, by its published framing: length, its checksum, data, its checksum."""
    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        found.append(Event.FromString(data[at + 12 : at + 12 + length]))
        at += 12 + length + 4
    return found


def test_a_full_disk_is_named_and_costs_no_checkpoint(tmp_path, tiny_nodules, tiny_voxels):
    run = Run(tmp_path, config=CONFIG, nodules=tiny_nodules, voxels=tiny_voxels)
    run.train(until=1)
    before = (tmp_path / CHECKPOINT).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_BYTES, hard))  # Python ignores SIGXFSZ: writing fails
    try:
        with pytest.raises(OutputError, match=r"cannot write .*checkpoint\.safetensors: File too large") as caught:
            run.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "space" in caught.value.hint
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert not list(tmp_path.glob(".*")), "a temporary file was left"
    Run(tmp_path, config=CONFIG, nodules=tiny_nodules, voxels=tiny_voxels).train()
    assert [line.step for line in read_log(tmp_path / LOG)] == [0, 1]
    _, _, provenance = load_model(tmp_path / MODEL)
    written = json.loads((tmp_path / PROVENANCE).read_text())
    assert written.items() <= provenance.items()


def step_log(step):
    return StepLog(
        step=step, total=1.0 / (step + 1), classification=0.0, cam=0.0, segmentation=0.0, score=0.0,
        learning_rate=1e-3, patch_size=32,
    )  # fmt: skip


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path):
    """A viewer forgets the steps from a session's start on, by TensorFlow's rule for SessionLog.START."""
    for begin, end, checkpoint in ((0, 4, 2), (2, 5, 5)):  # killed at 4, after the checkpoint of 2
        with RunLog(tmp_path, steps=begin) as log:
            for step in range(begin, end):
                log.add(step_log(step), seconds=0.5)
                if step + 1 == checkpoint:
                    log.write()
    shown: dict[int, float] = {}
    for path in sorted((tmp_path / FOLDER).iterdir(), key=lambda path: int(path.suffix[1:])):
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                shown = {step: value for step, value in shown.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == "train/total":
                    assert event.step not in shown
                    shown[event.step] = value.simple_value
    assert shown == pytest.approx({step: 1.0 / (step + 1) for step in range(5)})
    assert [line.step for line in read_log(tmp_path / LOG)] == [0, 1, 2, 3, 4]


def test_an_event_file_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / FOLDER).write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        EventFile(tmp_path, begin=0)


def test_the_data_fingerprint_sees_every_change_and_no_order(tiny_nodules, tiny_voxels):
    first = Origin.of(tiny_nodules, tiny_voxels)
    assert Origin.of(tiny_nodules[::-1], tiny_voxels) == first
    relabelled = [replace(tiny_nodules[0], reader_scores=(5,)), *tiny_nodules[1:]]
    assert Origin.of(relabelled, tiny_voxels).labels_sha256 != first.labels_sha256
    name = tiny_nodules[0].case_id
    for part in ("channels", "occupancy"):
        array = getattr(tiny_voxels[name], part).copy()
        array.flat[17] += np.float16(0.25)
        changed = {**tiny_voxels, name: replace(tiny_voxels[name], **{part: array})}
        assert Origin.of(tiny_nodules, changed).voxels_sha256 != first.voxels_sha256
    moved = {**tiny_voxels, name: replace(tiny_voxels[name], center=(0.0, 0.0, 0.0))}
    assert Origin.of(tiny_nodules, moved).voxels_sha256 != first.voxels_sha256


def test_devices_that_are_not_there_are_refused():
    assert Execution().torch_device().type == "cpu"
    with pytest.raises(UsageError, match="'gpu' is not a device"):
        Execution(device="gpu").torch_device()
    with pytest.raises(UsageError, match="cannot train on 'meta'"):
        Execution(device="meta").torch_device()
    with pytest.raises(BackendError, match="'cuda:99' was asked for"):
        Execution(device="cuda:99").torch_device()


READS_RECORDS = "luna25_blocks.py"
"""LUNA25's metadata are pickles. It reads them as records, by an unpickler of its own that knows no other class."""


def test_nothing_pickled_is_ever_loaded(repo_root):
    forbidden = re.compile(r"torch\.load\(|\bpickle\b(?!=False)|joblib|allow_pickle=True|torch\.save\(")
    for package in ("sdk", "cli", "training", "export"):
        for path in (repo_root / package).rglob("*.py"):
            if path.name == READS_RECORDS:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                assert not forbidden.search(line.replace("allow_pickle=False", "")), f"{path}:{number}: {line}"
