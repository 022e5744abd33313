"""``bench batch``: CTs an hour by cores, processes and threads; the local engine and Ray; the whole command.

Every way runs in a separate process, in turns, and on as many cores as it states: one worker reads a CT while it works
on another, and so uses more than one core where it may. The rate counts answers from the time when every worker has
given two: in a study of thousands, the loading time does not matter; it has its own column.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.child import ChildError, run_module
from benchmarks.part_predict import around
from benchmarks.results import Cell, Check, Column, Plot, Table
from benchmarks.session import Findings
from benchmarks.subject import Bench

TITLE = "Many CTs: processes, threads and engines"
CTS, CTS_A_CORE = 24, 3
"""At least this many CTs, and this many for each core; quick takes only the latter."""
ROUNDS, QUICK_ROUNDS = 3, 1
MORE_NODULES = 4
LEAST_GAIN = 1.7
"""Least gain of two processes on two cores over one on one."""


@dataclass(frozen=True)
class Way:
    """How a batch is run.

    Attributes:
        engine: ``local`` or ``ray``.
        cores: Cores that it may use.
        workers: Number of processes.
        threads: Threads of each process.
        nodules: Nodules of each CT.
    """

    engine: str
    cores: int
    workers: int
    threads: int = 1
    nodules: int = 1


@dataclass(frozen=True)
class Batch:
    """The measurements of one run.

    Attributes:
        cts_per_hour: Rate once every worker has given two answers.
        start_s: Time until the first worker was ready, and from the last answer to the end.
        cpu_s: CPU time of a CT, over all processes; None where these are not this process's own.
        peak_mib: Peak memory of the largest process; likewise.
    """

    cts_per_hour: float
    start_s: float
    cpu_s: float | None
    peak_mib: float | None


def ways(cores: int) -> list[Way]:
    """One process for each core, for one core up to all; then other ways to use all cores."""
    counts = sorted({2**power for power in range(cores.bit_length()) if 2**power <= cores} | {cores})
    found = [Way("local", count, count) for count in counts]
    found += [Way("local", cores, 1), Way("local", cores, 1, cores)] * (cores > 1)
    found += [Way("ray", cores, cores)] * bool(find_spec("ray"))
    return [*found, Way("local", cores, cores, nodules=MORE_NODULES)]


def run(bench: Bench) -> Findings:
    """Run all ways in turns."""
    quick = bench.settings.quick
    count = max(CTS_A_CORE * bench.settings.threads, 0 if quick else CTS)
    plan = ways(bench.settings.threads)
    manifests = {nodules: _manifest(bench, count, nodules) for nodules in sorted({way.nodules for way in plan})}
    found: dict[Way, list[Batch]] = defaultdict(list)
    notes = [] if find_spec("ray") else ["Ray is not installed: pip install 'nodule-diag[ray]'"]
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        for way in list(plan):
            try:
                found[way].append(_batch(bench, way, manifests[way.nodules], count))
            except ChildError as error:
                if way.engine != "ray":
                    raise
                notes.append(f"Left out: {error}")  # Ray does not start on a machine that is too busy
                plan.remove(way)
                found.pop(way, None)
    return Findings(title=TITLE, tables=(_table(found, count),), checks=tuple(_checks(found)), notes=tuple(notes))


def _manifest(bench: Bench, count: int, nodules: int) -> Path:
    """The subject under many names: each is read from its file, which is in memory after the first read."""
    folder = bench.folder / f"nodules-{nodules}"
    folder.mkdir()
    suffix = "".join(bench.subject.path.suffixes)
    lines = ["path,x,y,z"]
    for number in range(count):
        name = f"ct{number:03}{suffix}"
        (folder / name).symlink_to(bench.subject.path.absolute())
        lines += [",".join(map(str, (name, *point))) for point in around(bench.subject.xyz_mm, nodules)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def _batch(bench: Bench, way: Way, manifest: Path, count: int) -> Batch:
    out = bench.folder / "out"
    words = ["--engine", way.engine, "--workers", str(way.workers), "--threads", str(way.threads), "--json"]
    words += [] if bench.settings.bundle is None else ["--bundle", str(bench.settings.bundle)]
    with _on_cores(way.cores):
        done = run_module(["nodule_diag_cli", "batch", str(manifest), "--out", str(out), *words])
    written = sorted(path.stat().st_mtime_ns for path in (out / "cts").iterdir())
    shutil.rmtree(out)
    said = json.loads(done.stdout)
    mine = way.engine == "local"
    return Batch(
        cts_per_hour=steady_rate(written, way.workers),
        start_s=done.wall_s - said["seconds"],
        cpu_s=done.cpu_s / count if mine else None,
        peak_mib=done.peak_mib if mine else None,
    )


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Processes that are started meanwhile run on this many of this process's cores; only Linux can do this."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def steady_rate(written_ns: Sequence[int], workers: int) -> float:
    """CTs an hour, from the times at which answers were written, in order."""
    warm = 2 * workers
    return (len(written_ns) - warm) * 3600e9 / max(1, written_ns[-1] - written_ns[warm - 1])


def gain(found: dict[Way, list[Batch]], way: Way, over: Way) -> float:
    """Ratio of CTs an hour: the median over rounds, since within a round the machine was the same for both."""
    rounds = zip(found[way], found[over], strict=True)
    return statistics.median(one.cts_per_hour / other.cts_per_hour for one, other in rounds)


def _table(found: dict[Way, list[Batch]], count: int) -> Table:
    first = next(iter(found))
    rows: list[tuple[Cell, ...]] = []
    for way, batches in found.items():
        rate = statistics.median(one.cts_per_hour for one in batches)
        rows.append(
            (
                f"{way.engine}, {way.cores} cores: {way.workers} x {way.threads}, {way.nodules} a CT",
                *(way.engine, way.cores, way.workers, way.threads, way.nodules),
                *(rate, rate * way.nodules),
                gain(found, way, first) if way.nodules == first.nodules else None,
                *(_median([getattr(one, name) for one in batches]) for name in ("cpu_s", "peak_mib", "start_s")),
            )
        )
    columns = {
        "way": "way",
        "engine": "engine",
        "cores": "cores",
        "workers": "processes",
        "threads": "threads of each",
        "nodules": "nodules a CT",
        "cts": "CTs an hour",
        "nodules_an_hour": "nodules an hour",
        "gain": "times one core",
        "cpu_s": "CPU s a CT",
        "peak_mib": "largest process, MiB",
        "start_s": "start and end, s",
    }
    return Table(
        name="batch",
        title="CTs an hour",
        columns=tuple(Column(key=key, label=label) for key, label in columns.items()),
        rows=tuple(rows),
        note=f"Medians of {len(found[first])} rounds of {count} CTs; 'times one core' is that of the rounds.",
        plot=Plot(kind="bars", x="way", y=("cts",), y_label="CTs an hour"),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _checks(found: dict[Way, list[Batch]]) -> list[Check]:
    one, two = Way("local", 1, 1), Way("local", 2, 2)
    if two not in found:
        return []
    more = [b.cpu_s / a.cpu_s for a, b in zip(found[one], found[two], strict=True) if a.cpu_s and b.cpu_s]
    return [
        Check(name="two cores, times one", value=gain(found, two, one), rule="at least", limit=LEAST_GAIN),
        Check(
            name="CPU time of a CT on two cores, times that on one",
            value=statistics.median(more),
            rule="at most",
            limit=2 / LEAST_GAIN,
        ),
    ]
