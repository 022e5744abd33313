"""``bench roofline``: the network's rate compared with that of a plain matrix product on the same cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
import torch

from benchmarks.environment import Environment
from benchmarks.flops import direct_flops, graph_flops
from benchmarks.measure import Plan, in_turns
from benchmarks.part_predict import around
from benchmarks.peers.networks import Network, given_graphs, sdk_networks
from benchmarks.results import Cell, Check, Column, Plot, Table
from benchmarks.session import Findings
from benchmarks.subject import Bench
from benchmarks.threads import limited
from nodule_diag.ct import read_ct
from nodule_diag.preprocessing import extract_patches

TITLE = "The network beside the machine's ceiling"
PLAN = Plan(warmup=2, settle=1, window=5, agreeing=3, spread=0.03, budget_s=6.0)
CEILING_PLAN = Plan(warmup=2, window=5, agreeing=3, spread=0.02, budget_s=5.0)
MATRIX_SIZE, QUICK_MATRIX_SIZE = 2048, 256
LEAST_SHARE = 0.8
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The best rate of a square matrix product.

    Attributes:
        precision: Precision of its operands.
        library: The library that reached it.
        gflops: Rate of its fastest call.
    """

    precision: str
    library: str
    gflops: float


def measure_ceiling(precision: str, *, size: int, plan: Plan) -> Ceiling:
    """Multiply square matrices by every available library, in turns; the fastest single call counts."""
    rng = np.random.default_rng(0)
    a, b = (rng.random((size, size), dtype=np.float32) for _ in range(2))
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.from_numpy(matrix).to(kind) for matrix in (a, b))
    calls: dict[str, Callable[[], object]] = {"torch": lambda: torch.mm(left, right)}
    if precision == "fp32":
        calls["numpy"] = lambda: a @ b
    best = {name: timing.best_ms for name, timing in in_turns(calls, plan=plan).items()}
    library = min(best, key=best.__getitem__)
    return Ceiling(precision=precision, library=library, gflops=2 * size**3 / (best[library] / 1000.0) / GIGA)


def run(bench: Bench) -> Findings:
    """Measure ceilings and networks, on one thread and on all."""
    most = bench.settings.threads
    notes: list[str] = []
    rows: list[tuple[Cell, ...]] = []
    checks: list[Check] = []
    ct = read_ct(bench.subject.path)
    patches = extract_patches(ct, around(bench.subject.xyz_mm, 1))
    size = QUICK_MATRIX_SIZE if bench.settings.quick else MATRIX_SIZE
    direct = direct_flops()
    for threads in sorted({1, most}):
        with limited(threads):
            ceilings = {
                precision: measure_ceiling(precision, size=size, plan=bench.plan(CEILING_PLAN))
                for precision in _precisions()
            }
            networks = list(_networks(bench, notes if threads == most else [], threads=threads))
            timings = in_turns(
                {one.name: partial(one.runs.infer, patches) for one in networks},
                plan=bench.plan(PLAN),
            )
        shares: dict[str, float] = {}
        for one in networks:
            seconds, ceiling = timings[one.name].p50_ms / 1000.0, ceilings.get(one.precision)
            asked = graph_flops(onnx.load_from_string(one.graph)) if one.graph else direct
            share = direct / seconds / GIGA / ceiling.gflops if ceiling else None
            if share is not None:
                shares[one.precision] = max(share, shares.get(one.precision, 0.0))
            rows.append(
                (
                    f"{one.name}, {threads} threads" if threads > 1 else f"{one.name}, 1 thread",
                    one.precision,
                    threads,
                    timings[one.name].p50_ms,
                    direct / seconds / GIGA,
                    asked / seconds / GIGA,
                    ceiling.gflops if ceiling else None,
                    ceiling.library if ceiling else None,
                    share,
                    asked / seconds / GIGA / ceiling.gflops if ceiling else None,
                )
            )
        if threads == most:
            checks += [
                Check(
                    name=f"best {precision} network, effective share of the measured ceiling",
                    value=share,
                    rule="at least",
                    limit=LEAST_SHARE,
                )
                for precision, share in shares.items()
            ]
    return Findings(title=TITLE, tables=(_table(rows, direct, size),), checks=tuple(checks), notes=tuple(notes))


def _precisions() -> Iterator[str]:
    yield "fp32"
    if BF16_FLAGS & set(Environment.now(threads=1).cpu_flags):
        yield "bf16"


def _networks(bench: Bench, notes: list[str], *, threads: int) -> Iterator[Network]:
    yield from sdk_networks(bench, notes, threads=threads)
    yield from given_graphs(list(bench.settings.networks), threads=threads)


def _table(rows: list[tuple[Cell, ...]], direct: int, size: int) -> Table:
    columns = {
        "network": "network",
        "precision": "precision",
        "threads": "threads",
        "p50_ms": "p50 ms",
        "effective": "effective GFLOP/s",
        "asked": "the graph's own GFLOP/s",
        "ceiling": "ceiling, GFLOP/s",
        "library": "ceiling by",
        "share": "effective share",
        "own_share": "the graph's share",
    }
    return Table(
        name="roofline",
        title="Achieved rate and ceiling",
        columns=tuple(Column(key=key, label=label) for key, label in columns.items()),
        rows=tuple(rows),
        note=f"One patch takes {direct / GIGA:.1f} GFLOP when every tap of every convolution is computed directly: the"
        " effective rate. A graph that saves products (Winograd) asks for fewer, which is its own rate. The ceiling is"
        f" the fastest product of two {size} x {size} matrices, by torch or numpy, in that precision.",
        plot=Plot(kind="bars", x="network", y=("effective", "asked", "ceiling"), y_label="GFLOP/s"),
    )
