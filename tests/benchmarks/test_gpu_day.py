"""The day on a GPU, on a CPU in miniature: draws, losses and Adam against those of training, and all of it at once."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu_day.carry import (
    HIGHEST_HU,
    LOWEST_HU,
    STEP_HU,
    chosen_lung,
    hu_of,
    levels_of,
    packed,
    read_block,
    read_carry,
    unpacked,
)
from benchmarks.gpu_day.convolutions import split_dilation, use
from benchmarks.gpu_day.draws import Draws
from benchmarks.gpu_day.files import replace_file
from benchmarks.gpu_day.pack import pack
from benchmarks.gpu_day.patches import batch_of, render
from benchmarks.gpu_day.prepared import load_store, prepare
from benchmarks.gpu_day.runner import REPORT, Day, Runner
from benchmarks.gpu_day.schedule import rate_at
from benchmarks.gpu_day.step import BETAS, Adam, Stepper, nodule_losses, total_of
from benchmarks.gpu_day.train import DayRun
from benchmarks.gpu_day.unpack import revision_of, unpack
from nodule_diag_training.data import LungPlace, PairSource, TrainingData, TrainingDataError, once
from nodule_diag_training.data.lidc import diagnosed
from nodule_diag_training.engine import Origin, code_digest, load_model, read_log, step_losses
from nodule_diag_training.engine.optimiser import learning_rate, rated_parameters
from nodule_diag_training.engine.validation import Validation
from nodule_diag_training.evaluation.crossval import judge_fold
from nodule_diag_training.model import build_model
from tiny_data_folder import DIAGNOSES, PATIENTS, write_data_folder

CPU = torch.device("cpu")
SIZE = 32


@pytest.fixture(scope="module")
def carried(tmp_path_factory) -> Path:
    """A small data folder, packed."""
    root = tmp_path_factory.mktemp("data")
    write_data_folder(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosed, "read_diagnoses", lambda _: DIAGNOSES)
        pack(root, root / "carry", lung=4)
        pack(root, root / "again", lung=4)
    return root / "carry"


@pytest.fixture(scope="module")
def prepared(carried, tmp_path_factory) -> Path:
    """All voxels of the small data folder."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(carried, folder, processes=1)
    return folder


@pytest.fixture(scope="module")
def voxels(carried):
    """By case id, as training holds them."""
    carry = read_carry(carried)
    return dict(pair for block in carry.blocks for pair in read_block(carried, block, carry.nodules))


def nodules_of(carried: Path, name: str = "fold-0"):
    carry = read_carry(carried)
    part = next(part for part in carry.parts if part.name == name)
    return carry, part, [carry.nodules[case_id] for case_id in part.learned]


def test_the_same_data_make_the_same_bytes(carried):
    for name in ("index.json", "volumes.xz"):
        assert (carried / name).read_bytes() == (carried.parent / "again" / name).read_bytes()


def test_carried_hu_are_off_by_half_a_step_within_the_windows(rng_seed=3):
    rng = np.random.default_rng(rng_seed)
    hu = rng.integers(-1500, 1500, (5, 6, 7)).astype(np.int16)
    mask = rng.random(hu.shape) < 0.5
    other = (levels_of(hu[:3] // 2), ~mask[:3])
    (levels, found), (_, beside) = unpacked(packed([(levels_of(hu), mask), other]), [hu.shape, (3, 6, 7)])
    assert np.abs(hu_of(levels) - np.clip(hu, LOWEST_HU, HIGHEST_HU)).max() <= STEP_HU / 2
    assert (found == mask).all() and (beside == ~mask[:3]).all()


def test_lung_is_carried_of_every_patient_and_kind_alike(carried):
    places = [
        LungPlace(case_id=f"{p}{k}{i}", patient_id=p, image=Path("x"), mask=None, kind=k)
        for p, many in (("A", 20), ("B", 5))
        for k in ("blob", "lung")
        for i in range(many)
    ]
    kept = chosen_lung(places, count=24)
    counts = {(p, k): sum(n.patient_id == p and n.kind == k for n in kept) for p in "AB" for k in ("blob", "lung")}
    assert counts == {("A", "blob"): 7, ("A", "lung"): 7, ("B", "blob"): 5, ("B", "lung"): 5}
    assert kept == [place for place in places if place in kept]


def test_a_damaged_carried_folder_is_an_error(tmp_path):
    with pytest.raises(TrainingDataError, match="cannot be read"):
        read_carry(tmp_path)


def test_a_step_has_the_patches_that_training_draws(carried, prepared, voxels):
    carry, _, nodules = nodules_of(carried)
    source = PairSource(carry.config, nodules, voxels)
    store = load_store(prepared, CPU)
    draws = Draws(carry.config, nodules, store.volumes)
    for step in range(12):
        drawn, _ = source.draw(step)
        patch, occupancy = render(store, batch_of(draws.step(step, size=40), CPU))
        np.testing.assert_allclose(patch.numpy(), np.stack([d.sample.patch for d in drawn]), atol=1e-6)
        np.testing.assert_allclose(occupancy.numpy(), np.stack([d.sample.occupancy for d in drawn]), atol=1e-6)


def test_a_step_has_the_losses_of_training(carried, prepared, voxels):
    carry, _, nodules = nodules_of(carried)
    store = load_store(prepared, CPU)
    draws = Draws(carry.config, nodules, store.volumes)
    model = build_model(carry.config).eval()
    for step in range(3):
        drawn, _ = PairSource(carry.config, nodules, voxels).draw(step)
        batch = batch_of(draws.step(step, size=40), CPU)
        patch, occupancy = render(store, batch)
        with torch.no_grad():
            output = model(patch)
        wanted = step_losses(output, drawn, [], carry.config)
        total, terms = total_of(*nodule_losses(output, occupancy, batch, carry.config), carry.config)
        assert float(total) == pytest.approx(float(wanted.total), abs=1e-5)
        assert float(terms[2]) == pytest.approx(float(wanted.segmentation), abs=1e-6)


def test_the_validation_patients_are_measured_as_in_training(carried, prepared, voxels):
    carry, part, nodules = nodules_of(carried)
    carry = type(carry)(**{**vars(carry), "config": carry.config.model_copy(update={"precision": "fp32"})})
    run = DayRun(part, carry, prepared, device="cpu", mode="eager", sizes=(SIZE, 40))
    aside = [n for n in nodules if n.patient_id in part.validation_patients]
    assert aside and len(once(aside)) < len(aside)
    wanted = Validation(run.config, nodules=aside, voxels=voxels, lenders=nodules)

    def measure(unsure, sure):
        patch = torch.from_numpy(np.stack([draw.sample.patch for draw in unsure]))
        return step_losses(run.model(patch), unsure, sure, run.config)

    run.model.eval()
    log = wanted.log(wanted.sums(measure), step=0)
    with torch.no_grad():
        assert run._measured(run.stepper(), step=1).total == pytest.approx(log.total, abs=1e-4)


@pytest.mark.parametrize("dilation", [2, 4])
@pytest.mark.parametrize("side", [8, 10])
def test_a_split_convolution_is_the_dilated_one(side, dilation):
    torch.manual_seed(0)
    x = torch.randn(2, 3, side, side + 1, side, dtype=torch.float64)
    weight = torch.randn(5, 3, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    found = split_dilation(x, weight, dilation=dilation)
    wanted = torch.nn.functional.conv3d(x, weight, padding=dilation, dilation=dilation)
    torch.testing.assert_close(found, wanted)
    (one,) = torch.autograd.grad(found.square().sum(), weight)
    (other,) = torch.autograd.grad(wanted.square().sum(), weight)
    torch.testing.assert_close(one, other)


def test_a_model_with_split_convolutions_says_the_same(carried):
    model = build_model(read_carry(carried).config).eval()
    patch = torch.rand(2, 2, SIZE, SIZE, SIZE)
    with torch.no_grad():
        wanted = model(patch)
        use(model, "split")
        found = model(patch)
    assert "forward" in vars(model.resnet.head) and "forward" in vars(model.resnet.blocks[2].conv2)
    torch.testing.assert_close(found.cam, wanted.cam, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.logit, wanted.logit, rtol=1e-4, atol=1e-5)


def test_adam_is_torchs():
    torch.manual_seed(0)
    starts = [torch.randn(3, 4), torch.randn(5)]
    own, theirs = [s.clone() for s in starts], [s.clone().requires_grad_() for s in starts]
    adam = Adam([(own[:1], 1.0), (own[1:], 10.0)], CPU)
    groups = [{"params": theirs[:1], "factor": 1.0}, {"params": theirs[1:], "factor": 10.0}]
    reference = torch.optim.Adam(groups, lr=1.0, betas=BETAS)
    for step in range(1, 6):
        rate = 0.1 / step
        gradients = [torch.randn_like(s) for s in starts]
        for group in reference.param_groups:
            group["lr"] = rate * group["factor"]
        for tensor, gradient in zip(theirs, gradients, strict=True):
            tensor.grad = gradient.clone()
        reference.step()
        adam.set_rate(rate, step=step)
        adam.step([gradients[:1], gradients[1:]])
        for one, other in zip(own, theirs, strict=True):
            torch.testing.assert_close(one, other.detach(), rtol=1e-5, atol=1e-6)


def test_the_rate_is_the_recipes_at_the_same_share_of_its_steps(carried):
    config = read_carry(carried).config
    for step in (400, 1000, 2399, 2400, 3898):
        assert rate_at(config, step / config.steps) == pytest.approx(learning_rate(config, step), rel=0.01)


@pytest.mark.parametrize(("capability", "precision"), [("AVX2", "fp32"), ("AVX512", "bf16")])
def test_a_cpu_that_is_slow_in_bf16_tries_the_day_in_fp32(carried, prepared, monkeypatch, capability, precision):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    carry, part, _ = nodules_of(carried)
    run = DayRun(part, carry, prepared, device="cpu", mode="eager", sizes=(SIZE, SIZE))
    assert carry.config.precision == "bf16"
    assert run.config.precision == precision


def test_warming_up_changes_nothing_and_a_step_moves_weights_and_average(carried, prepared):
    carry, part, _ = nodules_of(carried)
    run = DayRun(part, carry, prepared, device="cpu", mode="eager", sizes=(SIZE, SIZE))
    run._average = [p.detach().clone() for p in run._parameters]
    before = [p.detach().clone() for p in run._parameters]
    stepper: Stepper = run.stepper()
    stepper.warm_up(run.draw(0, size=SIZE), steps=1)
    assert all((a == b).all() for a, b in zip(run._parameters, before, strict=True))
    assert float(stepper.seen.abs().sum()) == 0.0
    stepper.take(run.draw(0, size=SIZE), rate=1e-3, step=1)
    moved = [p.detach() - b for p, b in zip(run._parameters, before, strict=True)]
    averaged = [a - b for a, b in zip(run._average, before, strict=True)]
    assert sum(float(m.abs().sum()) > 0 for m in moved) == len(moved)
    for move, average in zip(moved, averaged, strict=True):
        torch.testing.assert_close(average, 0.002 * move, rtol=0.05, atol=1e-7)
    heads = rated_parameters(run.model, run.config)[1]
    assert heads["factor"] == run.config.head_rate


def test_files_are_replaced_whole_and_nothing_is_left_beside(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    for data in (b"one", b"two"):
        replace_file(folder / "file", data)
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_a_day_comes_back_as_runs(carried, tmp_path, monkeypatch):
    day = Day(
        carried=carried,
        out=tmp_path / "out",
        work=tmp_path / "work",
        device="cpu",
        parts=("speed", "train"),
        prepare_s=900.0,
        speed_s=900.0,
        train_s=900.0,
        mode="eager",
        modes=("eager",),
        runs=("fold-0", "all"),
        sizes=(SIZE, SIZE),
        most_steps=1,
    )
    document = Runner(day).run()
    assert {name: part["state"] for name, part in document["parts"].items()} == dict.fromkeys(
        ("prepare", "speed", "fold-0", "all"), "done"
    ), document
    assert sorted(path.name for path in day.out.iterdir()) == ["all.safetensors", REPORT, "fold-0.safetensors"]
    rows = document["runs"]["speed"]["rows"]
    assert [row["mode"] for row in rows] == ["draws", "eager", "eager", "eager", "eager"]
    assert rows[0]["patch_differs"] == 0.0
    lines = unpack(day.out, tmp_path / "runs")
    assert len(lines) == 2
    model, config, provenance = load_model(tmp_path / "runs" / "fold-0" / "model.safetensors")
    assert (
        config.stages[0].steps >= 1 and config.steps == read_log(tmp_path / "runs" / "fold-0" / "log.csv")[-1].step + 1
    )
    assert len(provenance["held_out_patients"]) == PATIENTS // 3
    assert provenance["best"]["weights"] in ("raw", "average")
    assert provenance["patients"] == PATIENTS - PATIENTS // 3 - len(provenance["validation_patients"])
    monkeypatch.setattr(diagnosed, "read_diagnoses", lambda _: DIAGNOSES)
    judged = judge_fold(tmp_path / "runs" / "fold-0" / "model.safetensors", TrainingData.of(carried.parent))
    assert {j.patient_id for j in judged.judgements} == set(provenance["held_out_patients"])
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_the_commit_is_named_only_where_its_code_is_what_ran():
    assert revision_of("0" * 64) is None
    assert revision_of(code_digest()) == Origin.of([], {}).revision


def test_a_carried_wheel_is_used_where_its_package_is_missing(carried, tmp_path):
    wheels = tmp_path / "carry" / "wheels"
    wheels.mkdir(parents=True)
    for name in ("surely_missing", "numpy"):
        with zipfile.ZipFile(wheels / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "print('carried', __name__)")
    runner = Runner(Day(carried=tmp_path / "carry", out=tmp_path / "out", work=tmp_path / "work", device="cpu"))
    process = runner._started("part", ["surely_missing"])
    assert process.wait() == 0
    assert runner._end("part") == "carried __main__\n"
    assert [path.name for path in (tmp_path / "work" / "site").iterdir()] == ["surely_missing.py"]


def test_a_run_that_dies_begins_anew_in_the_surest_mode(carried, tmp_path, monkeypatch):
    day = Day(carried=carried, out=tmp_path / "out", work=tmp_path / "work", device="cpu", train_s=200.0, runs=("all",))
    runner = Runner(day)
    commands = []

    def started(name, command):
        commands.append(command)
        code = 3 if "graph" in command else 0
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"], start_new_session=True)

    monkeypatch.setattr(runner, "_started", started)
    runner._train([])
    assert [command[command.index("--mode") + 1] for command in commands] == ["graph", "eager"]
    assert json.loads((day.out / REPORT).read_text())["parts"]["all"]["state"] == "done"


def test_a_run_that_dies_with_weights_keeps_them(carried, tmp_path, monkeypatch):
    day = Day(carried=carried, out=tmp_path / "out", work=tmp_path / "work", device="cpu", train_s=200.0, runs=("all",))
    runner = Runner(day)
    (day.out / "all.safetensors").write_bytes(b"weights")
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(runner, "_started", lambda *_: subprocess.Popen(command, start_new_session=True))
    runner._train([])
    assert runner.document["parts"]["all"] == {"state": "exit code 3", "mode": "graph", "log": ""}


def test_what_hangs_is_killed_and_said(carried, tmp_path, monkeypatch):
    day = Day(carried=carried, out=tmp_path / "out", work=tmp_path / "work", device="cpu")
    runner = Runner(day)
    monkeypatch.setattr(
        runner,
        "_started",
        lambda *_: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True),
    )
    assert not runner._alone("speed", [], limit_s=0.2)
    assert runner.document["parts"]["speed"]["state"] == "timed-out"
