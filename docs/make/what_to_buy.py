"""The page ``docs/what-to-buy.md``, made from what ``nodule-diag bench batch`` measured.

``python docs/make/what_to_buy.py`` writes it from every ``results/benchmarks/batch*.json``, one a machine, and a test
says when it is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.report import number  # noqa: E402
from benchmarks.results import Cell, Part, read_part  # noqa: E402

PAGE = ROOT / "docs" / "what-to-buy.md"
RESULTS = ROOT / "results" / "benchmarks"
STUDY = 20_000
"""CTs of the study whose days are told."""
MIB_A_GIB = 1024

INTRODUCTION = """# What to buy

How many nodules an hour does a machine diagnose? `nodule-diag bench batch` measured it, and
`docs/make/what_to_buy.py` makes this page from its results. The whole command [`nodule-diag batch`](batch.md) ran, from
files on disk to results on disk. A rate is measured while every process works, without start and end.

"""
GPU = "| any GPU | | | | | **not measured** | | | |"
READING = """
- **Processes x threads**: use one thread per process and as many processes as there are cores, the default of
  `batch`. The rows of one process with all threads show the alternative.
- **Memory**: each process takes about what the largest one does. It holds the network, the CT that it works on and the
  next one.
- **Other numbers of cores** were not measured. Processes share nothing but memory bandwidth and the disk.
- **GPUs** were not measured with `batch`. A GPU speeds up the network, but not reading the CT and finding the lungs.
  [GPU check](gpu-check.md) says how much it speeds up the network.
- **A cluster**: the table has `--engine ray` on one machine; several machines were not measured.

Measure your own machine and CTs, from a checkout:

```
nodule-diag bench batch --ct scan.nii.gz --xyz -56.94 131.27 -520.6 --out batch.json
```
"""


def page(parts: Sequence[Part]) -> str:
    """The page from the parts, one a machine."""
    lines = [
        "## Measured",
        "",
        "| machine | engine | cores | processes x threads | nodules a CT | CTs an hour | nodules an hour |"
        f" {STUDY:,} CTs take | largest process |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for part in parts:
        lines += [_line(part, row) for row in _rows(part)]
    lines += [GPU, ""]
    for part in parts:
        lines += [f"- {_machine(part)}"]
        lines += [f"- {check.name}: {number(check.value)}, {_verdict(check.holds)} {check.rule} {number(check.limit)}."
                  for check in part.checks]  # fmt: skip
        lines += [f"- {note}" for note in part.notes]
        lines += ["", *_cost(part)]
    return INTRODUCTION + "\n".join(lines) + "\n## How to read it\n" + READING


def _rows(part: Part) -> list[dict[str, Cell]]:
    (table,) = part.tables
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def _line(part: Part, row: dict[str, Cell]) -> str:
    rate, peak = float(row["cts"] or 0), row["peak_mib"]
    days = STUDY / rate / 24
    cells = (
        part.environment.cpu,
        row["engine"],
        row["cores"],
        f"{row['workers']} x {row['threads']}",
        row["nodules"],
        number(rate),
        number(float(row["nodules_an_hour"] or 0)),
        f"{number(days)} days" if days >= 2 else f"{number(days * 24)} hours",
        "–" if peak is None else f"{number(float(peak) / MIB_A_GIB)} GiB",
    )
    return f"| {' | '.join(map(str, cells))} |"


def _machine(part: Part) -> str:
    machine = part.environment
    load = machine.load_average[0]
    busy = " **The machine was not quiet.**" if load > 0.5 * machine.cores else ""
    return (
        f"{machine.cpu} ({', '.join(machine.cpu_flags)}), {machine.cores} cores, {number(machine.memory_gib or 0)} GiB;"
        f" {part.subject}; `{part.command}`; {machine.date}; load average at the start {load:.2f}.{busy}"
    )


def _verdict(holds: bool) -> str:
    return "which holds the bound of" if holds else "which **misses** the bound of"


def _cost(part: Part) -> list[str]:
    """What a CT and a nodule cost in time of a core, from the rows of all cores with few and more nodules."""
    rows = [row for row in _rows(part) if row["engine"] == "local" and row["workers"] == row["cores"]]
    cost = {
        (row["workers"], row["nodules"]): float(row["workers"] or 0) * 3600 / float(row["cts"] or 0) for row in rows
    }
    workers, more = max(cost, key=lambda key: int(key[1] or 0))
    if more == 1 or (workers, 1) not in cost:
        return []
    each = (cost[workers, more] - cost[workers, 1]) / (int(more or 0) - 1)
    fixed = cost[workers, 1] - each
    return [
        f"On this machine a CT takes {number(fixed)} s of a core, and each of its nodules {number(each)} s more.",
        "",
    ]


def made() -> str:
    """The page from the committed results."""
    return page([read_part(path) for path in sorted(RESULTS.glob("batch*.json"))])


if __name__ == "__main__":
    PAGE.write_text(made(), encoding="utf-8")
    sys.stderr.write(f"wrote {PAGE.relative_to(ROOT)}\n")
