"""Time and memory of a diagnosis: the whole command, cold, and each stage of warm calls.

Example:
    python benchmarks/predict.py ../shared/data/ct/LIDC-IDRI-0314.nii.gz --xyz -56.94 131.27 -520.6 --out predict.json

The cold figures come from `nodule-diag predict` in a process of its own, the warm ones from repeated calls in this one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nodule_diag.pipeline import Diagnoser
from nodule_diag.volume import read_ct

MIB = 1024.0


def cold(ct: Path, xyz: list[float]) -> dict[str, Any]:
    """One run of the command: wall time, peak memory, and what it says of its stages."""
    command = [sys.executable, "-m", "nodule_diag_cli", "predict", str(ct), "--xyz", *map(str, xyz), "--json"]
    begin = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / MIB
    return {"wall_s": wall, "peak_mib": peak, "timing_ms": json.loads(done.stdout)["timing_ms"]}


def warm(ct: Path, xyz: list[float], *, repeats: int) -> dict[str, Any]:
    """Median and worst time of each stage over repeated calls, after one that is not counted."""
    diagnoser = Diagnoser.load()
    begin = time.perf_counter()
    volume = read_ct(ct)
    read = (time.perf_counter() - begin) * 1000.0
    runs = [dict(diagnoser.predict_timed(volume, [tuple(xyz)]).timing_ms) for _ in range(repeats + 1)][1:]
    stages = {name: [run[name] for run in runs] for name in runs[0]}
    return {
        "read_ms": read,
        "median_ms": {name: statistics.median(values) for name, values in stages.items()},
        "worst_ms": {name: max(values) for name, values in stages.items()},
        "repeats": repeats,
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--xyz", type=float, nargs=3, required=True, help="LPS mm")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report = {
        "ct": options.ct.name,
        "ct_mib": read_ct(options.ct).hu.nbytes / MIB**2,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "load_average": os.getloadavg()[0],
        "cold": cold(options.ct, options.xyz),
        "warm": warm(options.ct, options.xyz, repeats=options.repeats),
    }
    text = json.dumps(report, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
