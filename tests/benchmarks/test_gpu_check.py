"""The GPU check as far as a CPU goes: isolation, time boxes, resuming, the document, its figures on CPU backends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu_check import __main__ as command
from benchmarks.gpu_check import runner, torch_peer
from benchmarks.gpu_check.examine import Infer, Way, beyond_gate, differences, examine
from benchmarks.gpu_check.findings import Findings, IncompleteError, UnavailableError, WrongAnswerError, in_words, lacks
from benchmarks.gpu_check.machine import driver_says
from benchmarks.gpu_check.networks import backend, patches_of, reference
from benchmarks.gpu_check.plan import DEADLINE_S, SCHEMA, STEPS, Settings, Step
from nodule_diag.backends.backend import Outputs
from nodule_diag.errors import BackendError, MissingExtraError

STATES = {"done", "unavailable", "failed", "timed-out", "skipped"}

CHILD = """
import json, os, pathlib, subprocess, sys, time
step, settings, *arguments = sys.argv[1:]
work = pathlib.Path(json.loads(settings)["work"])
with open(work / "ran", "a") as file:
    file.write(step + "\\n")
def found(**document):
    (work / f"{step}.json").write_text(json.dumps(document))
if step == "crash":
    found(result={"rows": [1]})
    os.abort()
if step == "hang":
    found(doing="timing batch 8", result={"rows": [1, 2]})
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"])
    (work / "grandchild").write_text(str(child.pid))
    time.sleep(900)
if step == "silent":
    sys.exit(0)
if step == "exit":
    print("told on the way out")
    sys.exit(3)
if step == "lacks":
    found(state="unavailable", reason="no CUDA device: nobody home", result={})
if step == "good":
    found(state="done", reason="", result={"arguments": arguments})
"""


def run(tmp_path: Path, *steps: Step, **options: Any) -> dict[str, Any]:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    settings = Settings(work=tmp_path / "work")
    return runner.run_all(
        settings, out=tmp_path / "out.json", steps=steps, child=(sys.executable, "-S", str(script)), **options
    )


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_step_that_dies_or_hangs_costs_nothing_but_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("crash", "hang", "silent", "exit", "lacks")
    fragile = [Step(name=name, limit_s=8 if name == "hang" else 240) for name in names]
    document = run(tmp_path, *fragile, Step(name="good", limit_s=240, arguments=("a", "b")))
    steps = document["steps"]
    assert {name: entry["state"] for name, entry in steps.items()} == {
        "crash": "failed",
        "hang": "timed-out",
        "silent": "failed",
        "exit": "failed",
        "lacks": "unavailable",
        "good": "done",
    }
    assert steps["crash"]["reason"] == "signal SIGABRT"
    assert steps["crash"]["result"] == {"rows": [1]}  # what it had found stays
    assert steps["hang"]["result"] == {"rows": [1, 2]}
    assert steps["hang"]["wall_s"] < 240, "it would hang for 900"
    assert "told on the way out" in steps["exit"]["log"]
    assert steps["lacks"]["reason"] == "no CUDA device: nobody home"
    assert steps["good"]["result"] == {"arguments": ["a", "b"]}
    assert json.loads((tmp_path / "out.json").read_text()) == document
    assert "hang: timed-out: killed after 8 s, timing batch 8" in capsys.readouterr().out
    grandchild = int((tmp_path / "work" / "grandchild").read_text())
    deadline = time.monotonic() + 120
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(grandchild)


def test_the_file_is_written_after_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[list[str]] = []
    write = runner.write_json
    monkeypatch.setattr(
        runner, "write_json", lambda path, document: (written.append(list(document["steps"])), write(path, document))
    )
    run(tmp_path, Step(name="lacks", limit_s=240), Step(name="good", limit_s=240))
    assert written == [[], ["lacks"], ["lacks", "good"]]


def test_time_for_all_steps_is_bounded(tmp_path: Path) -> None:
    document = run(tmp_path, Step(name="hang", limit_s=600), Step(name="good", limit_s=600), deadline_s=8)
    assert document["steps"]["hang"]["state"] == "timed-out"
    assert document["steps"]["good"]["state"] == "skipped"
    assert document["wall_s"] < 240


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    steps = (Step(name="good", limit_s=240), Step(name="exit", limit_s=240))
    run(tmp_path, *steps)
    document = run(tmp_path, *steps, resume=True)
    assert (tmp_path / "work" / "ran").read_text().split() == ["good", "exit", "exit"]
    assert document["steps"]["good"]["state"] == "done"
    run(tmp_path, *steps)
    assert (tmp_path / "work" / "ran").read_text().split()[3:] == ["good", "exit"]


def test_a_run_that_is_cut_off_ends_its_step(tmp_path: Path) -> None:
    """Whoever limits the command sends SIGTERM; the step has a session of its own and would compute on."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    out = tmp_path / "new" / "out.json"
    code = (
        "import runpy, sys; from benchmarks.gpu_check import runner;"
        f"runner.run_all.__kwdefaults__['child'] = (sys.executable, '-S', {str(script)!r});"
        "from benchmarks.gpu_check import plan; import dataclasses;"
        "runner.STEPS = plan.STEPS = (plan.Step(name='hang', limit_s=600),);"
        f"sys.argv = ['x', '--out', {str(out)!r}, '--work', {str(tmp_path / 'work')!r}];"
        "runpy.run_module('benchmarks.gpu_check', run_name='__main__', alter_sys=False)"
    )
    told = tmp_path / "work" / "grandchild"
    deadline = time.monotonic() + 240
    with subprocess.Popen([sys.executable, "-c", code], cwd=runner.ROOT) as process:
        try:
            while not (told.is_file() and told.read_text()) and time.monotonic() < deadline:
                time.sleep(0.05)
            process.terminate()
            assert process.wait(timeout=120) == 128 + signal.SIGTERM
        finally:
            process.kill()
    grandchild = int(told.read_text())
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(grandchild)
    assert json.loads(out.read_text())["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (ModuleNotFoundError("No module named 'triton'", name="triton"), True),
        (ModuleNotFoundError("No module named 'benchmarks.x'", name="benchmarks.x"), False),
        (ImportError("cannot import name 'x' from 'torch'", name="torch"), False),
        (MissingExtraError("tensorrt", "tensorrt"), True),
        (BackendError("no GPU", code="device-unavailable"), True),
        (BackendError("not finite", code="output-not-finite"), False),
        (RuntimeError("broken"), False),
        (UnavailableError("no wheels"), True),
        (WrongAnswerError("P by 1"), False),
    ],
)
def test_what_a_machine_lacks_is_no_failure(error: Exception, lacking: bool) -> None:
    assert lacks(error) == lacking


def test_an_error_in_words() -> None:
    assert in_words(MissingExtraError("tensorrt", "tensorrt")).startswith("tensorrt is not installed; run: pip")
    assert in_words(UnavailableError("no wheels")) == "no wheels"
    assert in_words(KeyError("x")) == "KeyError: 'x'"


def test_a_step_on_the_terminal() -> None:
    rows = [
        {"way": "a", "precision": "fp32", "batch": 1, "p50_ms": 2.0, "nodules_per_s": 500.0},
        {"way": "a", "precision": "fp32", "batch": 8, "p50_ms": 10.0, "nodules_per_s": 800.0},
    ]
    entry = {"state": "failed", "reason": "first\nsecond", "result": {"latency": rows}}
    assert runner.told("x", entry) == [
        "x: failed: first second",
        "  a (fp32): batch 1 in 2.00 ms, at most 800.0 nodules/s at batch 8",
    ]


def test_the_plan_keeps_its_promise() -> None:
    assert DEADLINE_S <= 460  # eight minutes, less what starting costs
    assert len({step.name for step in STEPS}) == len(STEPS)
    settings = Settings(work=Path("a"), wheels=Path("b"), batches=(1, 2), budget_s=0.5)
    assert Settings.of_json(settings.to_json()) == settings


def test_without_a_gpu_each_step_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The real command, steps that need no network: nothing fails, everything is explained."""
    if driver_says().partition(" ")[0].isdigit():
        pytest.skip("this machine has a GPU")
    out = tmp_path / "gpu_check.json"
    code = command.main(["--out", str(out), "--steps", "wheels", "machine", "pycuda", "ceiling"])
    document = json.loads(out.read_text())
    assert (code, document["schema"]) == (0, SCHEMA)
    steps = document["steps"]
    assert list(steps) == ["wheels", "machine", "pycuda", "ceiling"]
    for entry in steps.values():
        assert entry.keys() == {"state", "reason", "result", "wall_s", "log"}
        assert entry["state"] in STATES
    assert steps["machine"]["state"] == "done"
    assert "libcuda" in steps["machine"]["result"]["driver"]
    assert steps["pycuda"]["state"] == "unavailable"
    assert steps["pycuda"]["reason"]
    assert (steps["ceiling"]["state"], steps["ceiling"]["reason"][:14]) == ("unavailable", "no CUDA device")
    assert "ceiling: unavailable" in capsys.readouterr().out


@pytest.fixture
def settings(tmp_path: Path, tiny_bundle: Path) -> Settings:
    work = tmp_path / "work"
    work.mkdir()
    patches = np.random.default_rng(0).random((3, 2, 64, 64, 64), dtype=np.float32)
    np.save(tmp_path / "patches.npy", patches)
    return Settings(
        work=work,
        device="cpu",
        bundle=tiny_bundle,
        patches=tmp_path / "patches.npy",
        batches=(1, 2),
        budget_s=0.01,
        matrix=128,
    )


def test_parity_and_latency_on_the_cpu(settings: Settings) -> None:
    reference(settings, Findings(settings, "reference"))
    found = Findings(settings, "onnxruntime-fp32")
    backend(settings, found, "onnxruntime", "fp32")
    (parity,) = found.result["parity"]
    assert (parity["malignancy"], parity["beyond_gate"]) == (0.0, [])
    assert [row["batch"] for row in found.result["latency"]] == [1, 2]
    for row in found.result["latency"]:
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["nodules_per_s"] == pytest.approx(1000 * row["batch"] / row["p50_ms"])
    stored = json.loads(settings.found("onnxruntime-fp32").read_text())
    assert stored["result"] == found.result
    ceiling = Findings(settings, "ceiling")
    torch_peer.ceiling(settings, ceiling)
    assert ceiling.result["tflops"].keys() == {"fp32"}
    shares = runner.shares_of_ceiling({"ceiling": {"result": ceiling.result}, "onnxruntime-fp32": stored})
    flops, first = ceiling.result["flops_per_nodule"], found.result["latency"][0]
    assert shares[0]["share"] == pytest.approx(flops * first["nodules_per_s"] / 1e12 / ceiling.result["tflops"]["fp32"])
    assert 30e9 < flops < 40e9  # 34.3 GFLOP a nodule


def test_a_wrong_answer_is_a_failure(settings: Settings) -> None:
    reference(settings, Findings(settings, "reference"))
    patches, _ = patches_of(settings)

    def infer(given: np.ndarray) -> Outputs:
        count = len(given)
        maps = np.full((count, 16, 16, 16), 0.5, np.float32)
        return Outputs(*(np.full(count, 0.5, np.float32) for _ in "abc"), maps, maps)

    found = Findings(settings, "wrong")
    with pytest.raises(WrongAnswerError, match="wrong: malignancy by"):
        examine(settings, found, [way("wrong", infer)], batches=(1,))
    assert len(patches) == 3
    assert found.result["parity"][0]["beyond_gate"][0].startswith("malignancy")
    assert [row["batch"] for row in found.result["latency"]] == [1]  # measured all the same


def way(name: str, infer: Infer) -> Way:
    return Way(name=name, precision="fp32", load=lambda: infer)


def right(settings: Settings) -> Infer:
    with np.load(settings.reference) as stored:
        answers = {field: stored[field] for field in Outputs.__dataclass_fields__ if field in stored}

    return lambda given: Outputs(
        **{name: np.resize(rows, (len(given), *rows.shape[1:])) for name, rows in answers.items()}
    )


def test_a_way_that_cannot_be_loaded_stops_no_other(settings: Settings) -> None:
    """CUDA graphs that a session refuses, say: without them it is measured, and both stand in the file."""
    reference(settings, Findings(settings, "reference"))

    def broken() -> Infer:
        raise RuntimeError("graphs are refused")

    found, bad = Findings(settings, "some"), Way(name="graphs on", precision="fp32", load=broken)
    with pytest.raises(IncompleteError, match="graphs on: RuntimeError: graphs are refused"):
        examine(settings, found, [bad, way("graphs off", right(settings))], batches=(1, 2))
    assert found.result["failures"] == [{"way": "graphs on", "reason": "RuntimeError: graphs are refused"}]
    assert [(row["way"], row["batch"]) for row in found.result["latency"]] == [("graphs off", 1), ("graphs off", 2)]
    with pytest.raises(RuntimeError, match="graphs are refused"):
        examine(settings, Findings(settings, "none"), [bad], batches=(1,))


def test_small_batches_of_every_way_come_first(settings: Settings) -> None:
    """A step that runs out of time has something of each."""
    reference(settings, Findings(settings, "reference"))
    found, infer = Findings(settings, "two"), right(settings)
    examine(settings, found, [way("a", infer), way("b", infer)], batches=(1, 2))
    assert [(row["batch"], row["way"]) for row in found.result["latency"]] == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert json.loads(settings.found("two").read_text())["doing"] == "timing batch 2 of b (fp32)"


def test_the_reference_falls_back_and_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    settings = replace(settings, bundle=None)
    np.save(settings.work / "one.npy", patches_of(settings)[0][:1])
    found = Findings(settings, "reference")
    monkeypatch.setattr("benchmarks.gpu_check.examine.GPU_BATCH", 1)
    reference(replace(settings, patches=settings.work / "one.npy"), found)
    assert found.result["backend"] == "torch"
    assert found.result["passed_over"].keys() == {"onnxruntime", "openvino"}
    assert "onnxruntime is not installed" in found.result["passed_over"]["onnxruntime"]


def test_a_batch_that_fails_stops_no_other(settings: Settings) -> None:
    reference(settings, Findings(settings, "reference"))

    def infer(given: np.ndarray) -> Outputs:
        if len(given) == 1:
            raise MemoryError("no room for one")
        maps = np.zeros((len(given), 16, 16, 16), np.float32)
        return Outputs(*(np.zeros(len(given), np.float32) for _ in "abc"), maps, maps)

    found = Findings(settings, "some")
    with pytest.raises(WrongAnswerError):
        examine(settings, found, [way("some", infer)], batches=(1, 2))
    assert found.result["failures"] == [{"way": "some", "batch": 1, "reason": "MemoryError: no room for one"}]
    assert [row["batch"] for row in found.result["latency"]] == [2]


def test_onnxruntime_without_cuda_says_which_file_is_missing(settings: Settings) -> None:
    if driver_says().partition(" ")[0].isdigit():
        pytest.skip("this machine has a GPU")
    reference(settings, Findings(settings, "reference"))
    found = Findings(settings, "onnxruntime-fp32")
    with pytest.raises(BackendError, match="cuda:0 cannot be used"):
        backend(replace(settings, device="cuda"), found, "onnxruntime", "fp32")
    assert "libonnxruntime_providers_cuda.so: cannot open" in found.result["cuda_provider"]
    assert [row["way"] for row in found.result["failures"]] == [
        "onnxruntime, CUDA graphs on",
        "onnxruntime, CUDA graphs off",
    ]


def test_not_a_number_misses_every_gate() -> None:
    numbers, maps = np.ones(2, np.float32), np.ones((2, 16, 16, 16), np.float32)
    wanted = Outputs(numbers, numbers, numbers, maps, maps)
    found = Outputs(*(array * np.float32(np.nan) for array in (numbers, numbers, numbers, maps, maps)))
    assert len(beyond_gate(differences(found, wanted, precision="fp32"), precision="fp32")) == 4
    assert beyond_gate(differences(wanted, wanted, precision="fp32"), precision="fp32") == []


def test_a_wrong_backend_fails_its_step(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    reference(settings, Findings(settings, "reference"))
    monkeypatch.setattr("benchmarks.gpu_check.examine.beyond_gate", lambda *_, **__: ["P by 1"])
    with pytest.raises(WrongAnswerError, match="P by 1"):
        backend(settings, Findings(settings, "onnxruntime-fp32"), "onnxruntime", "fp32")
    assert settings.found("onnxruntime-fp32").is_file()


def test_the_peer_in_torch_has_the_bundles_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged network in both memory formats, on the CPU and so in fp32: within 1e-4."""
    monkeypatch.setattr("benchmarks.gpu_check.examine.GPU_BATCH", 1)
    np.save(tmp_path / "one.npy", patches_of(Settings(work=tmp_path))[0][:1])
    settings = Settings(work=tmp_path, device="cpu", batches=(), patches=tmp_path / "one.npy")
    reference(settings, Findings(settings, "reference"))
    found = Findings(settings, "torch")
    torch_peer.eager(settings, found)
    assert [row["precision"] for row in found.result["parity"]] == ["fp32", "fp32"]
    assert [row["beyond_gate"] for row in found.result["parity"]] == [[], []]
