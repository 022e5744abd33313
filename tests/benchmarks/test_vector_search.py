"""Every engine finds the nearest cases, after saving and loading; the recall is counted by distance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

faiss = pytest.importorskip("faiss", reason="the extra bench is not installed")

from benchmarks.part_retrieval import K, _recall  # noqa: E402
from benchmarks.peers.vector_search import Base, Engine, Faiss, Numpy, OwnCases  # noqa: E402


def nearest(base: Base, query: np.ndarray) -> set[int]:
    difference = base.points.astype(np.float64) - query.astype(np.float64)
    return set(np.argsort((difference**2).sum(axis=1), kind="stable")[:K].tolist())


@pytest.fixture(params=["own", "numpy", "flat", "graph"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return {
        "own": OwnCases,
        "numpy": Numpy,
        "flat": lambda: Faiss(graph=False),
        "graph": lambda: Faiss(graph=True),
    }[request.param]()


@pytest.mark.parametrize("duplicates", [0.0, 0.3])
def test_engines(engine: Engine, duplicates: float, tmp_path: Path) -> None:
    base = Base.random(300, seed=4, duplicates=duplicates)
    queries = base.queries(20)
    engine.build(base)
    engine.save(tmp_path)
    engine.forget()
    engine.load(tmp_path)
    limits = base.farthest_of_nearest(queries, K)
    assert _recall(engine, base, queries, limits) == 1.0
    if not duplicates:
        for query in queries:
            assert set(engine.nearest(query, K).tolist()) == nearest(base, query)


class Wrong(Numpy):
    """Gives half of the right rows, and the rest twice."""

    def nearest(self, query: np.ndarray, k: int) -> np.ndarray:
        return np.repeat(super().nearest(query, k // 2), 2)


def test_recall_counts_what_was_missed_and_nothing_twice() -> None:
    base = Base.random(500, seed=5)
    queries = base.queries(10)
    engine = Wrong()
    engine.build(base)
    assert _recall(engine, base, queries, base.farthest_of_nearest(queries, K)) == 0.5


def test_duplicates_are_exact() -> None:
    assert len(np.unique(Base.random(1000, seed=6).points, axis=0)) > 990
    assert 690 < len(np.unique(Base.random(1000, seed=6, duplicates=0.3).points, axis=0)) < 740


def test_a_base_smaller_than_k_is_all_right() -> None:
    base = Base.random(7, seed=7)
    engine = Numpy()
    engine.build(base)
    queries = base.queries(3)
    assert _recall(engine, base, queries, base.farthest_of_nearest(queries, K)) == 1.0
