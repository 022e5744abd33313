"""Retrieval against an exhaustive sort in numpy (paper 3.3, eq. 13 and 14)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle_factory import make_tiny_bundle, tiny_base, tiny_cases
from nodule_diag.cases.case import Case
from nodule_diag.cases.points import Points
from nodule_diag.cases.retrieval import CaseIndex, features, mean_label
from nodule_diag.errors import CaseBaseError, UsageError
from nodule_diag.results.spaces import Space

SPACES: tuple[Space, ...] = ("machine", "expert", "machine+expert")


def index_of(cases: Sequence[Case]) -> CaseIndex:
    return CaseIndex(tiny_base(cases))


def brute_force(
    cases: Sequence[Case], space: str, p: float, score: float, k: int, exclude: Sequence[str] = ()
) -> list[tuple[str, float]]:
    """Independent of the SDK: features by hand, all distances, one lexicographic sort."""

    def vector(malignancy: float, expert: float) -> np.ndarray:
        values = {
            "machine": [malignancy],
            "expert": [(expert - 1) / 4],
            "machine+expert": [malignancy, (expert - 1) / 4],
        }
        return np.array(values[space], dtype=np.float32).astype(np.float64)

    query = vector(p, score)
    kept = [case for case in cases if case.case_id not in exclude and case.patient_id not in exclude]
    distances = [float(np.sqrt(((vector(c.malignancy, c.expert_score) - query) ** 2).sum())) for c in kept]
    ranked = sorted(zip(distances, [case.case_id for case in kept], strict=True))
    return [(case_id, distance) for distance, case_id in ranked[:k]]


def found(
    index: CaseIndex, space: Space, p: float, score: float, k: int, exclude: Sequence[str] = ()
) -> list[tuple[str, float]]:
    similar = index.search(space, malignancy=p, expert_score=score, k=k, exclude=exclude)
    return [(case.case_id, case.distance) for case in similar]


def case(number: int, p: float, score: float, *, label: int = 0, patient: int | None = None) -> Case:
    return Case(
        case_id=f"c{number:05}",
        patient_id=f"p{number if patient is None else patient:05}",
        label=label,
        label_source="biopsy",
        label_certainty="nodule",
        malignancy=p,
        expert_score=score,
    )


coarse = st.integers(0, 4).map(lambda n: n / 4)  # few values: duplicates and ties at every boundary
fine = st.floats(0, 1, width=32)
close = st.integers(0, 3).map(lambda n: 0.5 + n * 2.0**-24)  # float32 neighbours
value = st.one_of(coarse, fine, close)


@settings(max_examples=100)
@given(
    pairs=st.lists(st.tuples(value, value), min_size=1, max_size=60),
    query=st.tuples(value, value),
    k=st.integers(1, 70),
    space=st.sampled_from(SPACES),
    exclude=st.lists(st.integers(0, 60), max_size=6),
)
def test_exact_search_is_the_exhaustive_sort(
    pairs: list[tuple[float, float]], query: tuple[float, float], k: int, space: Space, exclude: list[int]
) -> None:
    cases = [case(i, p, 1 + 4 * s, patient=i // 2) for i, (p, s) in enumerate(pairs)]
    names = [f"c{n:05}" if n % 2 else f"p{n // 2:05}" for n in exclude]
    p, score = query[0], 1 + 4 * query[1]
    expected = brute_force(cases, space, p, score, k, names)
    index = index_of(cases[::-1])  # the order they are given in must not matter
    if not expected:
        with pytest.raises(UsageError):
            found(index, space, p, score, k, names)
        return
    assert found(index, space, p, score, k, names) == expected


@pytest.mark.parametrize("k", [1, 20, 499, 500, 600])
def test_five_hundred_cases_in_one_place(k: int) -> None:
    """All tied: the answer is the first K ids, although hnswlib returns them in an order of its own."""
    cases = [case(i, 0.5, 3.0) for i in np.random.default_rng(0).permutation(500)]
    assert [name for name, _ in found(index_of(cases), "machine", 0.25, 1.0, k)] == [
        f"c{i:05}" for i in range(min(k, 500))
    ]


def test_a_circle_round_the_query() -> None:
    """Distances that differ by less than float32 can tell: hnswlib's own order is scrambled, ours is not."""
    angles = np.repeat(np.random.default_rng(2).random(100) * 2 * np.pi, 4)
    cases = [case(i, 0.5 + 0.3 * float(np.cos(a)), 3.0 + 1.2 * float(np.sin(a))) for i, a in enumerate(angles)]
    index = index_of(cases)
    for k in (1, 10, 50, 97, 399):
        assert found(index, "machine+expert", 0.5, 3.0, k) == brute_force(cases, "machine+expert", 0.5, 3.0, k)


def test_ties_on_both_sides_of_the_query() -> None:
    cases = [case(0, 0.75, 3.0), case(1, 0.25, 3.0), case(2, 0.75, 3.0), case(3, 0.25, 3.0)]
    assert found(index_of(cases), "machine", 0.5, 3.0, 3) == [("c00000", 0.25), ("c00001", 0.25), ("c00002", 0.25)]


def test_distance_is_euclidean_not_squared() -> None:
    index = index_of([case(0, 0.25, 3.0)])
    assert found(index, "machine+expert", 0.5, 4.0, 1)[0][1] == pytest.approx(np.hypot(0.25, 0.25))


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), space=st.sampled_from(SPACES), k=st.sampled_from([1, 20, 50]))
def test_points_at_random(seed: int, space: Space, k: int) -> None:
    rng = np.random.default_rng(seed)
    cases = [case(i, float(p), 1 + 4 * float(s)) for i, (p, s) in enumerate(rng.random((400, 2)))]
    p, score = float(rng.random()), float(1 + 4 * rng.random())
    assert found(index_of(cases), space, p, score, k) == brute_force(cases, space, p, score, k)


def test_search_survives_duplicates_and_large_k() -> None:
    cases = [case(i, 0.5 if i % 3 else 0.25, 3.0) for i in range(300)]
    index = index_of(cases)
    for k in (5, 299, 300, 1000):
        assert found(index, "machine", 0.3, 3.0, k) == brute_force(cases, "machine", 0.3, 3.0, k)


@settings(max_examples=60)
@given(
    pairs=st.lists(st.tuples(value, value), min_size=12, max_size=60),
    copies=st.integers(0, 40),
    query=st.tuples(value, value),
    k=st.integers(1, 70),
    space=st.sampled_from(SPACES),
    exclude=st.lists(st.integers(0, 60), max_size=6),
)
def test_copies_of_a_few_places(
    pairs: list[tuple[float, float]],
    copies: int,
    query: tuple[float, float],
    k: int,
    space: Space,
    exclude: list[int],
) -> None:
    """Duplicates, ties and neighbours in float32."""
    pairs = [*pairs, *[pairs[i % 5] for i in range(copies)]]
    cases = [case(i, p, 1 + 4 * s, patient=i // 2) for i, (p, s) in enumerate(pairs)]
    names = [f"c{n:05}" if n % 2 else f"p{n // 2:05}" for n in exclude]
    p, score = query[0], 1 + 4 * query[1]
    index = index_of(cases[::-1])
    if len(brute_force(cases, space, p, score, len(cases), names)) == 0:
        return
    assert found(index, space, p, score, k, names) == brute_force(cases, space, p, score, k, names)


@pytest.mark.parametrize("space", SPACES)
def test_a_model_that_is_sure(space: Space) -> None:
    """Probabilities down to 1e-30: their squared differences are nothing in float32, and still they have an order."""
    cases = [case(i, 10.0 ** -(1 + i / 10), 3.0) for i in range(300)]
    index = index_of(cases)
    for p in (0.0, 1e-29, 1e-20, 1e-3):
        assert found(index, space, p, 3.0, 20) == brute_force(cases, space, p, 3.0, 20)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 3_000),
    k=st.integers(1, 60),
    spread=st.sampled_from([1e-30, 1e-3, 0.2, 3.0]),
    columns=st.sampled_from([[0], [1], [0, 1]]),
)
def test_points_hold_the_nearest(seed: int, size: int, k: int, spread: float, columns: list[int]) -> None:
    """Distinct points, each with its first rows; what is left out, which float32 decides, is no nearer than is said."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.7, 0.7, size)
    numbers = np.stack([p, np.clip(p + rng.normal(0.0, spread, size), 0.0, 1.0)], axis=1)
    vectors = np.round(numbers, int(rng.integers(2, 9))).astype(np.float32)[:, columns]
    points = Points(vectors)
    assert len(points) == len(np.unique(vectors, axis=0))
    count = min(k, len(points))
    queries = np.concatenate((rng.random((5, 2)), numbers[:3], [[0.0, 0.0], [1.0, 0.0]]))
    for query in queries.astype(np.float32)[:, columns]:
        every = np.sqrt(((vectors.astype(np.float64) - query) ** 2).sum(axis=1))
        rows, distances, beyond = points.nearest(query, count, limit=size)
        np.testing.assert_array_equal(distances, every[rows])
        assert len({*rows}) == len(rows)
        assert np.delete(every, rows).min(initial=np.inf) >= beyond
        fewer, _, _ = points.nearest(query, count, limit=1)
        _, firsts = np.unique(vectors, axis=0, return_index=True)
        assert set(fewer) <= set(firsts) and len(fewer) == count


def test_a_case_finds_neither_itself_nor_its_patient() -> None:
    cases = tiny_cases()
    index = index_of(cases)
    for own in cases:
        similar = index.search(
            "machine+expert", malignancy=own.malignancy, expert_score=own.expert_score, k=20, exclude=[own.patient_id]
        )
        assert len(similar) == 20
        assert own.patient_id not in {other.patient_id for other in similar}
    only_itself = index.search("machine", malignancy=0.5, expert_score=3.0, k=60, exclude="case-0003")
    assert len(only_itself) == 59


def test_diagnosis_is_the_mean_label() -> None:
    cases = [case(i, i / 10, 3.0, label=int(i in {0, 1, 5})) for i in range(10)]
    index = index_of(cases)
    assert index.base_rate == pytest.approx(0.3)
    assert mean_label(index.search("machine", malignancy=0.0, expert_score=3.0, k=3)) == pytest.approx(2 / 3)
    assert mean_label(index.search("machine", malignancy=0.0, expert_score=3.0, k=99)) == pytest.approx(index.base_rate)


def test_similar_case_carries_the_whole_case() -> None:
    own = tiny_cases()[7]
    nearest = index_of([own]).search("machine", malignancy=0.5, expert_score=2.0, k=1)[0]
    for field in ("case_id", "patient_id", "label", "label_source", "label_certainty", "malignancy", "expert_score"):
        assert getattr(nearest, field) == getattr(own, field)
    assert (nearest.reader_scores, nearest.diameter_mm) == (own.reader_scores, own.diameter_mm)


def test_features() -> None:
    assert features("machine", 0.25, 4.0).tolist() == [0.25]
    assert features("expert", 0.25, 4.0).tolist() == [0.75]
    assert features("machine+expert", 0.25, 4.0).tolist() == [0.25, 0.75]
    assert features("machine", 0.25, 4.0).dtype == np.float32


NO_K = {str(k): k for k in (0, -1, 10_001, 10**30, -(10**30), "20", 2.0, 2.5, float("nan"), True, None, [3])}


@pytest.mark.parametrize("name", [*NO_K, "of 5001 digits"])
def test_a_k_that_is_none(name: str) -> None:
    k = NO_K.get(name, 10**5000)
    with pytest.raises(UsageError, match=r"k is .*whole number of at least 1 and at most 10000") as caught:
        index_of(tiny_cases()).search("machine", malignancy=0.5, expert_score=3.0, k=k)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert len(caught.value.message) < 200


def test_no_cases() -> None:
    with pytest.raises(CaseBaseError) as caught:
        index_of([])
    assert caught.value.code == "case-base-empty"


def test_what_is_added_later_is_not_seen() -> None:
    base = tiny_base()
    index = CaseIndex(base)
    base.remove(["case-0003"])
    assert len(index) == 60
    assert "case-0003" in {c.case_id for c in index.search("machine", malignancy=0.5, expert_score=3.0, k=60)}


def test_several_threads(tmp_path: Path) -> None:
    index = CaseIndex(make_tiny_bundle(tmp_path / "b"))
    queries = [(p / 7, 1 + 4 * p / 7, k) for p in range(8) for k in (1, 7, 59)]
    expected = [found(index, "machine+expert", *query) for query in queries]
    answers: dict[int, list[object]] = {}

    def work(number: int) -> None:
        answers[number] = [found(index, "machine+expert", *query) for query in queries]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[n] for n in range(4)] == [expected] * 4


def test_no_temporary_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    index = CaseIndex(make_tiny_bundle(tmp_path / "b.zip"))
    assert index.search("machine", malignancy=0.5, expert_score=3.0, k=1)
    assert not list((tmp_path / "temp").iterdir())


def duplicated(count: int, *, seed: int = 0) -> tuple[CaseIndex, np.ndarray, np.ndarray]:
    """A base of which 30 % are copies, where a model's certainty crowds the cases, and queries that hit them."""
    rng = np.random.default_rng(seed)
    logits = 3.0 * rng.normal(size=count)
    vectors = 1.0 / (1.0 + np.exp(-np.stack([logits, 0.4 * logits + 0.5 * rng.normal(size=count)], axis=1)))
    copies = rng.random(count) < 0.3
    vectors[copies] = vectors[rng.integers(0, count, copies.sum())]
    index = index_of([case(i, float(p), float(1 + 4 * s)) for i, (p, s) in enumerate(vectors)])
    stored = np.stack([vectors[:, 0], ((1 + 4 * vectors[:, 1]) - 1) / 4], axis=1).astype(np.float32)
    return index, stored, np.concatenate([vectors[rng.integers(0, count, 150)], rng.random((50, 2))])


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_third_are_copies(count: int) -> None:
    """Every answer in every space is the exhaustive sort's, ties in the order of ids."""
    index, stored, queries = duplicated(count)
    for p, s in queries[:: 1 if count == 100_000 else 4]:
        query = np.array([p, (1 + 4 * s - 1) / 4], dtype=np.float32)
        for space, columns in (("machine", [0]), ("expert", [1]), ("machine+expert", [0, 1])):
            distances = np.sqrt(((stored[:, columns].astype(float) - query[columns].astype(float)) ** 2).sum(axis=1))
            expected = [f"c{i:05}" for i in np.lexsort((np.arange(count), distances))[:20]]
            assert [name for name, _ in found(index, space, float(p), float(1 + 4 * s), 20)] == expected
