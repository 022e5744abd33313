"""``bench cases``: the usual queries of an own case base, with 10,000 cases and free columns, in process."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.measure import Call, Plan, in_turns
from benchmarks.results import Check, Column, Table
from benchmarks.session import Findings
from benchmarks.subject import Bench
from benchmarks.threads import limited
from nodule_diag.cases import Case, CaseBase, CaseIndex, matching, rows, selected

TITLE = "A case base of one's own"
CASES, QUICK_CASES = 10_000, 100
WHERE = "age > 60 and sex = 'F'"
SHOWN = 100
"""Number of cases that ``nodule-diag cases list`` shows by default."""
PLAN = Plan(warmup=2, window=3, agreeing=3, spread=0.1, budget_s=4.0)
MOST_MS = 50.0
LISTED, FILTERED, RETRIEVED = "list", "list with a filter", "retrieval"


def run(bench: Bench) -> Findings:
    """Run each query in turns with the others."""
    count = QUICK_CASES if bench.settings.quick else CASES
    path = bench.folder / "hospital.sqlite"
    CaseBase.of(made_cases(count), name="hospital", model_sha256="0" * 64).save(path)
    base = CaseBase.open(path)
    index = CaseIndex(base)
    calls: dict[str, Call] = {
        LISTED: partial(listed, base, None),
        FILTERED: partial(listed, base, WHERE),
        RETRIEVED: partial(index.search, "machine+expert", malignancy=0.5, expert_score=3.0, k=20),
        "list, all rows": partial(every_row, base),
        "a base of those that match": partial(selected, base, WHERE),
        "open": partial(CaseBase.open, path),
    }
    with limited(bench.settings.threads):
        timings = in_turns(calls, plan=bench.plan(PLAN))
    checks = [
        Check(
            name=f"{count:,} cases: {name}, CPU time",
            value=timings[name].cpu_ms,
            rule="at most",
            limit=MOST_MS,
            unit="ms",
        )
        for name in (LISTED, FILTERED, RETRIEVED)
    ]
    columns = {"what": "what", "cpu_ms": "CPU ms", "best_ms": "best ms", "p50_ms": "p50 ms", "p90_ms": "p90 ms"}
    table = Table(
        name="cases",
        title=f"{count:,} cases with five free columns, in process",
        columns=tuple(Column(key=key, label=label) for key, label in columns.items()),
        rows=tuple((name, one.cpu_ms, one.best_ms, one.p50_ms, one.p90_ms) for name, one in timings.items()),
        note=(
            f"A list is what the command shows: how many match, and the first {SHOWN} of them. The filter is {WHERE}."
            " All is one thread's work: its CPU time is its wall time where no other process wants the core."
        ),
    )
    return Findings(
        title=TITLE, subject="made-up cases", tables=(table,), checks=tuple(checks), timings=tuple(timings.values())
    )


def listed(base: CaseBase, where: str | None) -> int:
    """The query of ``nodule-diag cases list``."""
    found = matching(base, where)
    return len(list(rows(base, [case_id for case_id, _ in found[:SHOWN]])))


def every_row(base: CaseBase) -> int:
    """The query of ``nodule-diag cases list --json``."""
    return len(list(rows(base)))


def made_cases(count: int) -> list[Case]:
    """Cases with readers' scores and free columns, two for each patient."""
    random = np.random.default_rng(0)
    return [
        Case(
            case_id=f"C{number:06d}",
            patient_id=f"P{number // 2:06d}",
            label=int(random.random() < 0.4),
            label_source="biopsy",
            label_certainty="nodule",
            malignancy=float(random.random()),
            expert_score=float(1 + 4 * random.random()),
            diameter_mm=float(3 + 27 * random.random()),
            reader_scores=(3.0, 4.0),
            columns={
                "age": int(random.integers(30, 90)),
                "sex": "FM"[int(random.integers(2))],
                "lobe": ("RUL", "RML", "RLL", "LUL", "LLL")[int(random.integers(5))],
                "pack years": float(random.integers(0, 60)),
                "follow-up": int(random.integers(2, 10)),
            },
        )
        for number in range(count)
    ]
