"""How long one nodule takes with fewer products: eager torch, the direct backends and ``winograd``, in turns.

``OMP_NUM_THREADS=1 python -m benchmarks.winograd [--bundle B] [--rounds 12] [--threads 1]`` prints CPU and wall time of
each, the loads, and the difference of each backend's P from onnxruntime's. CPU time is what a busy machine can tell.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nodule_diag.backends import create_backend
from nodule_diag.bundle import Bundle
from nodule_diag.errors import NoduleDiagError
from nodule_diag.parity import probe_patch
from nodule_diag_training.model import SynergicModel

BACKENDS = ("onnxruntime", "openvino", "winograd")


def eager(*, channels_last: bool) -> Callable[[], object]:
    """The model in torch, with random weights, which take as long as others."""
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    model = SynergicModel().eval()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 5:
            tensor.data = tensor.data.contiguous(memory_format=layout)
    patch = torch.from_numpy(probe_patch()).contiguous(memory_format=layout)

    def call() -> object:
        with torch.inference_mode():
            return model(patch)

    return call


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    bundle = Bundle.default() if args.bundle is None else Bundle.open(args.bundle)
    torch.set_num_threads(args.threads)
    calls = {"torch eager": eager(channels_last=False), "torch eager, channels last": eager(channels_last=True)}
    patch, answers = probe_patch(), {}
    for name in BACKENDS:
        started = time.process_time()
        try:
            made = create_backend(bundle, name=name, device="cpu", precision="fp32", threads=args.threads)
        except NoduleDiagError as error:
            print(f"{name}: {error.message}")
            continue
        print(f"{name}: loaded in {time.process_time() - started:.2f} s of CPU time")
        calls[name] = lambda made=made: made.infer(patch)  # type: ignore[misc]
        answers[name] = made.infer(patch).malignancy
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    wall: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        for name, call in calls.items():
            clocks = time.perf_counter(), time.process_time()
            call()
            wall[name].append((time.perf_counter() - clocks[0]) * 1000)
            cpu[name].append((time.process_time() - clocks[1]) * 1000)
    print("| | CPU ms, least | CPU ms, median | wall ms, median | difference of P |\n|---|---|---|---|---|")
    for name in calls:
        difference = f"{np.abs(answers[name] - answers[BACKENDS[0]]).max():.1e}" if name in answers else ""
        middle = statistics.median(cpu[name]), statistics.median(wall[name])
        print(f"| {name} | {min(cpu[name]):.0f} | {middle[0]:.0f} | {middle[1]:.0f} | {difference} |")


if __name__ == "__main__":
    main()
