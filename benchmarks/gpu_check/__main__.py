"""The command; see the package."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu_check import __doc__ as description
from benchmarks.gpu_check.plan import BATCHES, BUDGET_S, DEADLINE_S, MATRIX, STEPS, Settings
from benchmarks.gpu_check.runner import run_all


def main(arguments: list[str] | None = None) -> int:
    """Run it.

    Returns:
        1 if a step failed or was cut off; else 0. A step that the machine cannot run is not a failure.
    """
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu_check", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="the file to write")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, and pycuda's source, to install from")
    parser.add_argument("--bundle", type=Path, help="a bundle; the packaged one when left out")
    parser.add_argument("--patches", type=Path, help=".npy of (N, 2, 64, 64, 64) float32; made-up ones when left out")
    parser.add_argument("--batches", type=int, nargs="+", help="batch sizes to time")
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="cpu: the same code without a GPU, a small run"
    )
    parser.add_argument("--matrix", type=int, help="edge of the ceiling's matrices")
    parser.add_argument("--budget", type=float, help="seconds of each timing")
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, help="seconds for everything")
    parser.add_argument("--steps", nargs="+", choices=[step.name for step in STEPS], help="these alone")
    parser.add_argument("--work", type=Path, help="folder to keep what steps hand on in; needed to resume")
    parser.add_argument("--resume", action="store_true", help="keep the steps that --out says are done")
    options = parser.parse_args(arguments)
    if options.resume and options.work is None:
        parser.error("--resume needs --work, the folder of the run that it goes on with")
    with tempfile.TemporaryDirectory(prefix="nodule-diag-gpu-") as folder:
        settings = Settings(
            work=(options.work or Path(folder)).resolve(),
            device=options.device,
            wheels=options.wheels and options.wheels.resolve(),
            bundle=options.bundle and options.bundle.resolve(),
            patches=options.patches and options.patches.resolve(),
            batches=tuple(options.batches or BATCHES[options.device]),
            budget_s=BUDGET_S[options.device] if options.budget is None else options.budget,
            matrix=options.matrix or MATRIX[options.device],
        )
        chosen = [step for step in STEPS if not options.steps or step.name in options.steps]
        document = run_all(settings, out=options.out, steps=chosen, deadline_s=options.deadline, resume=options.resume)
    return int(any(document["steps"][step.name]["state"] in {"failed", "timed-out"} for step in chosen))


if __name__ == "__main__":
    # If this run is stopped, it must end its step too, which would otherwise compute on in its own session.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
