"""``bench evidence``: what a report costs, in pairs of fresh processes with and without it."""

from __future__ import annotations

import statistics

from benchmarks.child import RUN_COLUMNS, ChildRun, run_module, run_rows
from benchmarks.results import Check, Table
from benchmarks.session import Findings
from benchmarks.subject import Bench
from nodule_diag.ct import read_ct
from nodule_diag_cli.demo import write_ct

TITLE = "What a report costs"
PAIRS = 9
MOST_S, MOST_MIB = 1.0, 150e6 / 2**20
"""Limits of what a report adds to the same command without a report."""
WITHOUT, WITH = "predict", "predict --report"


def run(bench: Bench) -> Findings:
    """Run the command without and with a report in turns, after one run of each that is not counted."""
    threads = bench.settings.threads
    plain = write_ct(bench.folder / "ct.nii", read_ct(bench.subject.path))
    report = bench.folder / "report.html"
    words = ["nodule_diag_cli", "predict", str(plain), "--xyz", *map(str, bench.subject.xyz_mm), "--json"]
    words += ["--bundle", str(bench.settings.bundle)] if bench.settings.bundle else []
    commands = {WITHOUT: words, WITH: [*words, "--report", str(report)]}
    found: dict[str, list[ChildRun]] = {name: [] for name in commands}
    for number in range(1) if bench.settings.quick else range(-1, PAIRS):
        for name, command in commands.items():
            ended = run_module(command, threads=threads)
            if number >= 0:
                found[name].append(ended)
    pairs = list(zip(found[WITHOUT], found[WITH], strict=True))
    wall = statistics.median(on.wall_s - off.wall_s for off, on in pairs)
    cpu = statistics.median(on.cpu_s - off.cpu_s for off, on in pairs)
    memory = statistics.median(on.peak_mib - off.peak_mib for off, on in pairs)
    return Findings(
        title=TITLE,
        tables=(_table(found, report.stat().st_size, threads),),
        checks=(
            Check(name="a report, time beyond the command", value=wall, rule="at most", limit=MOST_S, unit="s"),
            Check(name="a report, CPU time beyond the command", value=cpu, rule="at most", limit=MOST_S, unit="s"),
            Check(
                name="a report, peak memory beyond the command",
                value=memory,
                rule="at most",
                limit=MOST_MIB,
                unit="MiB",
            ),
        ),
    )


def _table(found: dict[str, list[ChildRun]], size: int, threads: int) -> Table:
    return Table(
        name="evidence",
        title="With a report and without, in fresh processes",
        columns=RUN_COLUMNS,
        rows=run_rows(found, peak=statistics.median),
        note=(
            f"Medians; {threads} threads, one nodule, an uncompressed NIfTI file that was read before. The report has"
            f" {size / 1e6:.2f} MB. The checks are medians over the pairs, each of two processes one after the other."
        ),
    )
