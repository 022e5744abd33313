"""``bench retrieval``: case bases of 10^2 to 10^6 cases, compared with numpy and faiss, with the recall."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Clock, Plan, in_turns
from benchmarks.peers.vector_search import Base, Engine, Numpy, OwnCases, engines, exhaustive
from benchmarks.results import Cell, Check, Column, Plot, Table
from benchmarks.session import Findings
from benchmarks.subject import Bench
from benchmarks.threads import limited
from nodule_diag.cases import CaseIndex, features
from nodule_diag.results import SPACES

TITLE = "Retrieval from large case bases"
SIZES, QUICK_SIZES = (100, 1_000, 10_000, 100_000, 1_000_000), (100, 300)
QUERIES, QUICK_QUERIES = 200, 5
K = 20
DUPLICATES = 0.3
PLAN = Plan(warmup=0, window=2, agreeing=3, spread=0.05, budget_s=3.0)
"""A call asks all queries once."""
LOOPS = 2_000
"""Loops for the yardstick of a percentile."""
MOST_SPACES_MS, MOST_LOAD_S = 15.0, 2.0
EXACT_QUERIES = 500
"""Answers for the largest base with duplicates that are compared, id by id, with an exhaustive search."""
SAME_DISTANCE = 1e-6
"""Relative tolerance: how far float32 may move a distance that is the same."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The results of an engine on one base; times in seconds, queries in milliseconds.

    ``spaces_p50_ms`` is for all three feature spaces together, for the two engines that are asked this way.
    """

    engine: str
    cases: int
    duplicates: bool
    build_s: float
    save_s: float
    load_s: float
    file_mib: float
    p50_ms: float
    p99_ms: float
    spaces_p50_ms: float | None
    recall: float


def run(bench: Bench) -> Findings:
    """Every engine on every size; the largest size again with exact duplicates, for nodule-diag and the exact peers."""
    sizes = [size for size in (QUICK_SIZES if bench.settings.quick else SIZES) if size <= bench.settings.most_cases]
    found: list[Found] = []
    with limited(bench.settings.threads):
        for size in sizes:
            found += _compare(bench, Base.random(size, seed=size), list(engines()))
        base = Base.random(sizes[-1], seed=1, duplicates=DUPLICATES)
        asked = QUICK_QUERIES if bench.settings.quick else EXACT_QUERIES
        exact = _exact(base, asked)
        found += _compare(bench, base, [one for one in engines() if one.name in {"nodule-diag", "numpy"}])
    own = next(one for one in found if one.engine == "nodule-diag" and one.cases == sizes[-1])
    loop = _of_a_loop(own.p50_ms)
    return Findings(
        title=TITLE,
        subject="made-up cases",
        tables=(_table(found),),
        checks=(
            *_checks(found),
            Check(
                name=f"answers of {asked} that differ from an exhaustive search's, 30 % duplicates",
                value=asked - exact,
                rule="at most",
                limit=0,
            ),
        ),
        notes=(
            f"a plain loop of {loop[0]:.2f} ms at its median took {loop[1]:.2f} ms at its 99th percentile: so much of a"
            " query's is the machine's",
        ),
    )


def _of_a_loop(milliseconds: float) -> tuple[float, float]:
    """Median and 99th percentile, in ms, of additions about as long as a query: what any code shows here."""
    watch = Clock()

    def sample(steps: int) -> float:
        begin, total = watch.wall(), 0
        for step in range(steps):
            total += step
        return (watch.wall() - begin) * 1000.0

    steps = 1_000
    steps = max(1, round(steps * milliseconds / np.median([sample(steps) for _ in range(LOOPS)])))
    p50, p99 = np.percentile([sample(steps) for _ in range(LOOPS)], (50, 99))
    return float(p50), float(p99)


def _compare(bench: Bench, base: Base, candidates: list[Engine]) -> Iterator[Found]:
    """Build, save and load each engine, then query all of them in turns."""
    watch = Clock()
    queries = base.queries(QUICK_QUERIES if bench.settings.quick else QUERIES)
    limits = base.farthest_of_nearest(queries, K)
    times: dict[str, tuple[float, float, float, float]] = {}
    samples, spaces = ({engine.name: list[float]() for engine in candidates} for _ in range(2))
    recall: dict[str, float] = {}
    for engine in candidates:
        folder = bench.folder / f"{engine.name}-{len(base)}-{base.duplicates}"
        folder.mkdir(parents=True)
        start = watch.wall()
        engine.build(base)
        built = watch.wall()
        engine.save(folder)
        saved = watch.wall()
        engine.forget()
        gc.collect()
        before = watch.wall()
        engine.load(folder)
        times[engine.name] = (built - start, saved - built, watch.wall() - before, _size_mib(folder))
        recall[engine.name] = _recall(engine, base, queries, limits)

    def ask(engine: Engine) -> None:
        for query in queries:
            begin = watch.wall()
            engine.nearest(query, K)
            samples[engine.name].append((watch.wall() - begin) * 1000.0)
            if isinstance(engine, OwnCases | Numpy):
                begin = watch.wall()
                engine.all_spaces(query, K)
                spaces[engine.name].append((watch.wall() - begin) * 1000.0)

    for engine in candidates:
        ask(engine)
        samples[engine.name].clear()  # these were for warm-up
        spaces[engine.name].clear()
    in_turns({engine.name: partial(ask, engine) for engine in candidates}, plan=bench.plan(PLAN))
    for engine in candidates:
        build_s, save_s, load_s, file_mib = times[engine.name]
        p50, p99 = np.percentile(samples[engine.name], (50, 99))
        yield Found(
            engine=engine.name,
            cases=len(base),
            duplicates=base.duplicates > 0,
            build_s=build_s,
            save_s=save_s,
            load_s=load_s,
            file_mib=file_mib,
            p50_ms=float(p50),
            p99_ms=float(p99),
            spaces_p50_ms=float(np.median(spaces[engine.name])) if spaces[engine.name] else None,
            recall=recall[engine.name],
        )


def _recall(engine: Engine, base: Base, queries: NDArray[np.float32], limits: NDArray[np.float64]) -> float:
    """Share of the K nearest that were found: by distance, so that any of several equal ones counts."""
    right = 0
    for query, limit in zip(queries, limits, strict=True):
        rows = np.unique(engine.nearest(query, K))
        right += min(K, int((base.distances(query, rows) <= limit * (1.0 + SAME_DISTANCE)).sum()))
    return right / (min(K, len(base)) * len(queries))


def _size_mib(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def _table(found: list[Found]) -> Table:
    columns = {
        "engine": "engine",
        "cases": "cases",
        "duplicates": "30 % duplicates",
        "build": "build s",
        "save": "save s",
        "load": "load s",
        "mib": "files, MiB",
        "p50": "query p50 ms",
        "p99": "query p99 ms",
        "spaces": "all three spaces p50 ms",
        "recall": "recall@20",
    }
    rows: list[tuple[Cell, ...]] = [
        (
            one.engine + (", duplicates" if one.duplicates else ""),
            one.cases,
            one.duplicates,
            one.build_s,
            one.save_s,
            one.load_s,
            one.file_mib,
            one.p50_ms,
            one.p99_ms,
            one.spaces_p50_ms,
            one.recall,
        )
        for one in found
    ]
    return Table(
        name="retrieval",
        title="Case bases",
        columns=tuple(Column(key=key, label=label) for key, label in columns.items()),
        rows=tuple(rows),
        note="Space machine+expert, K = 20, one query a call, one thread a query; all three spaces are what"
        " a prediction asks. nodule-diag saves and loads the whole case base: three spaces, the cases with all known"
        " of them, and every check; the peers hold the vectors of one space. Recall counts by distance: any of several"
        " equally near cases is right.",
        plot=Plot(kind="lines", x="cases", y=("p99",), series="engine", y_label="query p99 ms", log_x=True, log_y=True),
    )


def _exact(base: Base, queries: int) -> int:
    """Number of queries for which nodule-diag equals an exhaustive search in every space, down to the last tie."""
    own = OwnCases()
    own.build(base)
    index = CaseIndex(own.base)
    right = 0
    for query in base.queries(queries):
        p, score = float(query[0]), 1.0 + 4.0 * float(query[1])
        # What the case base compares is the score on the readers' scale, mapped back and rounded to float32.
        asked = features("machine+expert", p, score)
        right += all(
            [int(one.case_id) for one in index.search(space, malignancy=p, expert_score=score, k=K)]
            == exhaustive(base, space, asked, K).tolist()
            for space in SPACES
        )
    return right


def _checks(found: list[Found]) -> Iterator[Check]:
    largest = max(one.cases for one in found)
    for own in (one for one in found if one.engine == "nodule-diag" and one.cases == largest):
        same = (one for one in found if (one.cases, one.duplicates) == (largest, own.duplicates))
        numpy = next(one for one in same if one.engine == "numpy")
        what = f"retrieval from {largest:,} cases" + (", 30 % duplicates" if own.duplicates else "")
        spaces, exhaustively = own.spaces_p50_ms or math.inf, numpy.spaces_p50_ms or 0.0
        yield Check(name=f"{what}: load", value=own.load_s, rule="at most", limit=MOST_LOAD_S, unit="s")
        yield Check(name=f"{what}: three spaces, p50", value=spaces, rule="at most", limit=MOST_SPACES_MS, unit="ms")
        yield Check(name=f"{what}: times numpy's speed", value=exhaustively / spaces, rule="at least", limit=1.0)
        yield Check(name=f"{what}: recall@20", value=own.recall, rule="at least", limit=1.0)
