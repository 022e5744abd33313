"""How fast and how correct each way of taking a step is on this machine; written as soon as it is known."""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.gpu_day.carry import read_carry
from benchmarks.gpu_day.convolutions import Convolutions
from benchmarks.gpu_day.files import replace_file
from benchmarks.gpu_day.patches import batch_of, render
from benchmarks.gpu_day.prepared import Store, load_store
from benchmarks.gpu_day.step import Mode
from benchmarks.gpu_day.train import DayRun, use_gpu_well

WAYS: Final[tuple[tuple[Mode, Convolutions], ...]] = (
    ("eager", "split"),
    ("graph", "split"),
    ("graph", "direct"),
    ("eager", "direct"),
    ("compiled-graph", "split"),
)
PROFILED_KERNELS: Final = 14
COMPARED_STEPS: Final = {"cuda": 5, "cpu": 1}
TIMED_S: Final = {"cuda": 2.0, "cpu": 0.1}
DRAWN_STEPS: Final = 20


Measure = Callable[[DayRun, int], dict[str, Any]]


def wait(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(run: DayRun, size: int) -> dict[str, Any]:
    """A row: the mean loss of the first steps, equal in every mode up to rounding, and the time of a step."""
    begin = time.monotonic()
    stepper = run.stepper()
    compared = COMPARED_STEPS[run.device.type]
    tables = [run.draw(step, size=size) for step in range(compared)]
    stepper.warm_up(tables[0])
    wait(run.device)
    ready = time.monotonic() - begin
    for step, own in enumerate(tables, start=1):
        stepper.take(own, rate=run.config.learning_rate / 10, step=step)
    losses = (stepper.seen / compared).tolist()
    steps, begin = 0, time.monotonic()
    while steps == 0 or time.monotonic() - begin < TIMED_S[run.device.type]:
        for own in tables:
            stepper.take(own, rate=0.0, step=compared + 1)
        steps += len(tables)
        wait(run.device)
    row = {"size": size, "losses": losses, "ready_s": ready, "step_ms": 1000 * (time.monotonic() - begin) / steps}
    if run.device.type == "cuda":
        row["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return row


def drawn(run: DayRun, prepared: Path, store: Store, size: int) -> dict[str, Any]:
    """A row: the steps that a core draws in a second, and the difference of the device's patches from the CPU's."""
    begin = time.monotonic()
    for step in range(DRAWN_STEPS):
        tables = run.draw(step, size=size)
    rate = DRAWN_STEPS / (time.monotonic() - begin)
    cpu = torch.device("cpu")
    here = render(load_store(prepared, cpu), batch_of(tables, cpu))
    there = render(store, batch_of(tables, run.device))
    apart = [float((one - other.cpu()).abs().max()) for one, other in zip(here, there, strict=True)]
    return {"size": size, "drawn_steps_per_s": rate, "patch_differs": apart[0], "mask_differs": apart[1]}


def profiled(run: DayRun, size: int) -> dict[str, Any]:
    """A row: the kernels that a step spends most time in, in ms."""
    from torch.profiler import ProfilerActivity, profile

    stepper = run.stepper()
    tables = run.draw(0, size=size)
    stepper.warm_up(tables)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        stepper.take(tables, rate=0.0, step=1)
        wait(run.device)
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)[:PROFILED_KERNELS]
    return {"size": size, "kernels": {e.key[:90]: [e.count, e.self_device_time_total / 1000] for e in events}}


def main(arguments: list[str] | None = None) -> None:
    """Try every way: the most likely first, those that take longest to compile last."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu_day.speed")
    parser.add_argument("--carried", type=Path, required=True)
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--modes", nargs="+", help="these alone")
    parser.add_argument("--sizes", type=int, nargs="+")
    options = parser.parse_args(arguments)
    use_gpu_well()
    carry = read_carry(options.carried)
    sizes = tuple(options.sizes or (stage.size for stage in carry.config.stages))
    store = load_store(options.prepared, torch.device(options.device))
    found: dict[str, Any] = {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version(), "rows": []}
    if options.device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()

    def tried(name: str, size: int, mode: Mode, convolutions: Convolutions, measure: Measure) -> None:
        row: dict[str, Any] = {"mode": name, "convolutions": convolutions, "size": size}
        try:
            run = DayRun(
                carry.parts[0],
                carry,
                options.prepared,
                device=options.device,
                mode=mode,
                convolutions=convolutions,
                sizes=sizes,
                store=store,
            )
            run.model.train()
            row |= measure(run, size)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what this found out
            traceback.print_exc()
            row |= {"error": f"{type(error).__name__}: {error}"[:500]}
        found["rows"].append(row)
        replace_file(options.out, json.dumps(found).encode())
        print(json.dumps(row), flush=True)

    tried("draws", sizes[-1], "eager", "direct", lambda run, size: drawn(run, options.prepared, store, size))
    for mode, convolutions in WAYS:
        if options.modes and mode not in options.modes:
            continue
        for size in reversed(sizes):
            tried(mode, size, mode, convolutions, timed)
        if mode == "eager" and options.device == "cuda":
            tried("profile", sizes[-1], mode, convolutions, profiled)


if __name__ == "__main__":
    main()
