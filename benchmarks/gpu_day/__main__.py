"""The command; see the package."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu_day import __doc__ as description
from benchmarks.gpu_day.runner import ROOT, Day, Runner

CARRIED = ROOT / "benchmarks" / "gpu_day" / ".carry"
PARTS = ("speed", "train", "check")
DRY_RUN = Day(
    carried=CARRIED,
    out=Path(),
    work=Path(),
    device="cpu",
    parts=PARTS,
    prepare_s=240.0,
    speed_s=90.0,
    train_s=150.0,
    check_s=90.0,
    mode="eager",
    modes=("eager",),
    runs=("fold-0", "all"),
    sizes=(32, 36),
    most_steps=3,
)
"""On the CPU, small; the limits are nine and a half minutes in all, of which an idle machine needs five."""


def main(arguments: list[str] | None = None) -> int:
    """Run it.

    Returns:
        1 when a part did not end well, else 0.
    """
    parser = argparse.ArgumentParser("python -m benchmarks.gpu_day", description=description)
    parser.add_argument(
        "--dry-run", action="store_true", help="all of it in miniature on the CPU, in at most ten minutes"
    )
    parser.add_argument("--carried", type=Path, default=CARRIED, help="folder that pack makes and run takes")
    commands = parser.add_subparsers(dest="command")
    packing = commands.add_parser("pack", help="make the carried folder")
    packing.add_argument("--data", type=Path, default=os.environ.get("NODULE_DIAG_DATA", "../shared/data"))
    running = commands.add_parser("run", help="on the GPU machine")
    running.add_argument("--out", type=Path, required=True, help="folder of what comes back")
    running.add_argument("--work", type=Path, help="folder of everything else")
    running.add_argument("--parts", nargs="+", choices=PARTS, default=("train", "check"))
    running.add_argument("--runs", nargs="+", default=(), help="only these runs")
    running.add_argument("--speed-s", type=float, default=Day.speed_s)
    running.add_argument("--train-s", type=float, default=Day.train_s)
    running.add_argument("--check-s", type=float, default=Day.check_s)
    running.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    running.add_argument("--mode", choices=("graph", "compiled-graph", "compiled", "eager"), default=Day.mode)
    running.add_argument("--convolutions", choices=("direct", "split"), default=Day.convolutions)
    running.add_argument("--modes", nargs="+", default=(), help="what speed tries")
    unpacking = commands.add_parser("unpack", help="make run folders of what came back")
    unpacking.add_argument("results", type=Path)
    unpacking.add_argument("runs", type=Path)
    options = parser.parse_args(arguments)
    if options.dry_run:
        return dry_run(options.carried)
    if options.command == "pack":
        from benchmarks.gpu_day.pack import pack

        print(pack(options.data, options.carried))
        return 0
    if options.command == "unpack":
        return unpacked(options.results, options.runs)
    if options.command != "run":
        parser.error("give pack, run or unpack, or --dry-run")
    with tempfile.TemporaryDirectory(prefix="gpu-day-") as folder:
        day = Day(
            carried=options.carried.resolve(),
            out=options.out.resolve(),
            work=(options.work or Path(folder)).resolve(),
            device=options.device,
            parts=tuple(options.parts),
            speed_s=options.speed_s,
            train_s=options.train_s,
            check_s=options.check_s,
            mode=options.mode,
            convolutions=options.convolutions,
            modes=tuple(options.modes),
            runs=tuple(options.runs),
        )
        return _code(Runner(day).run())


def dry_run(carried: Path) -> int:
    """Run every part on the CPU, small and short, then make run folders of what came back."""
    with tempfile.TemporaryDirectory(prefix="gpu-day-") as folder:
        day = replace(DRY_RUN, carried=carried.resolve(), out=Path(folder) / "out", work=Path(folder) / "work")
        code = _code(Runner(day).run())
        return unpacked(day.out, Path(folder) / "runs") or code


def unpacked(results: Path, runs: Path) -> int:
    """Make the run folders and report them."""
    from benchmarks.gpu_day.unpack import unpack

    for line in unpack(results, runs):
        print(line)
    return 0


def _code(document: dict[str, dict[str, dict[str, str]]]) -> int:
    return int(any(part["state"] != "done" for part in document["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
