"""A run in a process of its own: ``python -m benchmarks.gpu_day.part``, which the runner starts."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from benchmarks.gpu_day.carry import read_carry
from benchmarks.gpu_day.files import replace_file
from benchmarks.gpu_day.train import DayRun, use_gpu_well


def main(arguments: list[str] | None = None) -> None:
    """Train one part until its time is up."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu_day.part")
    parser.add_argument("--part", required=True)
    parser.add_argument("--carried", type=Path, required=True)
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--until", type=float, required=True, help="seconds of the clock since 1970")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mode", default="graph")
    parser.add_argument("--convolutions", default="direct")
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--most-steps", type=int)
    options = parser.parse_args(arguments)
    use_gpu_well()
    if options.device == "cpu":
        torch.set_num_threads(1)
    carry = read_carry(options.carried)
    part = next(part for part in carry.parts if part.name == options.part)
    sizes = None if options.sizes is None else tuple(options.sizes)
    run = DayRun(
        part,
        carry,
        options.prepared,
        device=options.device,
        mode=options.mode,
        convolutions=options.convolutions,
        sizes=sizes,
    )

    def write(own: DayRun) -> None:
        replace_file(options.weights, own.weights())
        replace_file(options.log, json.dumps({**own.facts(), **own.lines()}).encode())

    try:
        run.train(
            seconds=options.until - time.time(),
            most_steps=options.most_steps,
            write=write,
            say=lambda text: print(text, flush=True),
        )
    finally:
        replace_file(options.log, json.dumps({**run.facts(), **run.lines()}).encode())


if __name__ == "__main__":
    main()
