"""Python's steps from HU to the answer, timed as ``nodule-diag-cpp --repeat`` times its own.

python -m benchmarks.cpp_peer CT BUNDLE BACKEND THREADS ROUNDS X Y Z: JSON with the milliseconds of each round.
"""

from __future__ import annotations

import json
import sys
import time

from nodule_diag.ct import CTVolume, read_ct
from nodule_diag.diagnoser import Diagnoser


def main() -> None:
    """Check the voxels and diagnose one nodule, again and again."""
    path, bundle, backend, threads, rounds, *xyz = sys.argv[1:]
    diagnoser = Diagnoser.load(bundle, backend=backend, device="cpu", precision="fp32", threads=int(threads))
    ct = read_ct(path)
    point = [float(value) for value in xyz]
    taken: dict[str, list[float]] = {"check": [], "predict": []}
    for _ in range(int(rounds)):
        begin = time.perf_counter()
        checked = CTVolume.from_array(
            ct.hu, spacing_zyx_mm=ct.spacing_zyx_mm, origin_xyz_mm=ct.origin_xyz_mm, direction=ct.direction
        )
        middle = time.perf_counter()
        diagnoser.predict(checked, [point], check_lung=False)
        taken["check"].append((middle - begin) * 1000.0)
        taken["predict"].append((time.perf_counter() - middle) * 1000.0)
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
