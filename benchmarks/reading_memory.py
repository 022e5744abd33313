"""``python -m benchmarks.reading_memory CT THREADS``: the memory that ``read_ct`` takes beyond its volume, MiB."""

from __future__ import annotations

import sys

from benchmarks.child import peak_growth_mib
from nodule_diag.ct import CTVolume, read_ct


def main() -> None:
    """Read once; print a number, or nothing where the system does not say."""
    path, threads = sys.argv[1:]
    kept: list[CTVolume] = []
    growth = peak_growth_mib(lambda: kept.append(read_ct(path, threads=int(threads))))
    sys.stdout.write("" if growth is None else str(growth - kept[0].hu.nbytes / 2**20))


if __name__ == "__main__":
    main()
