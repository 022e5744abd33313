"""The store's bounds: number, bytes, time, and never a CT that is in use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from nodule_diag.ct.made_up import made_up_ct
from nodule_diag.results import Prediction
from nodule_diag.service.problems import ServiceError
from nodule_diag.service.requests import Nodule, Question
from nodule_diag.service.store import REMEMBERED, CTStore, ReadCT

CT = made_up_ct()
BYTES = CT.hu.nbytes


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def store_of(count: int = 9, limit: int = 9 * BYTES, expires_s: float = 10.0) -> tuple[CTStore, Clock]:
    clock = Clock()
    return CTStore(count=count, limit_bytes=limit, expires_s=expires_s, clock=clock), clock


def ids(store: CTStore) -> list[str]:
    return [document["id"] for document in store.documents()]


@pytest.mark.parametrize("bounds", [{"count": 2}, {"limit": 2 * BYTES}, {"limit": 3 * BYTES - 1}])
def test_the_least_recently_used_goes(bounds):
    store, _ = store_of(**bounds)
    first, second = (store.add(ReadCT(CT)).id for _ in range(2))
    store.get(first)
    third = store.add(ReadCT(CT)).id
    assert ids(store) == [first, third]
    with pytest.raises(ServiceError) as caught:
        store.get(second)
    assert (caught.value.status, caught.value.code) == (404, "ct-expired-or-unknown")


def test_what_is_in_use_stays_and_is_counted():
    store, clock = store_of(count=2)
    held = [store.add(ReadCT(CT)) for _ in range(2)]
    with store.lease(held[0].id), store.lease(held[1].id):
        clock.now = 100.0
        with pytest.raises(ServiceError) as caught:
            store.add(ReadCT(CT))
        assert (caught.value.status, caught.value.code) == (503, "ct-store-full")
        assert caught.value.retry_after_s
        store.remove(held[0].id)
        assert store.counts == (2, 2 * BYTES), "it is deleted, and still in memory"
        with pytest.raises(ServiceError, match="in use"):
            store.add(ReadCT(CT))
    assert store.counts == (1, BYTES)
    store.add(ReadCT(CT))


def test_it_expires_when_it_was_not_used():
    store, clock = store_of()
    held = store.add(ReadCT(CT))
    clock.now = 9.0
    assert store.document(store.get(held.id))["expires_s"] == 10
    clock.now = 18.0
    with store.lease(held.id):
        clock.now = 50.0
        store.sweep()
    clock.now = 59.0
    assert ids(store) == [held.id]
    clock.now = 61.0
    store.sweep()
    assert store.counts == (0, 0)


def test_a_ct_of_one_request_has_no_name():
    store, _ = store_of()
    with store.for_one_request(ReadCT(CT)) as held:
        assert ids(store) == []
        assert store.counts[0] == 1
        with pytest.raises(ServiceError):
            store.get(held.id)
    assert store.counts == (0, 0)


def test_one_that_is_larger_than_all_is_refused():
    store, _ = store_of(limit=BYTES - 1)
    with pytest.raises(ServiceError) as caught:
        store.add(ReadCT(CT))
    assert (caught.value.status, caught.value.code) == (413, "ct-too-large")


def question(nodules: int, k: int) -> Question:
    return Question(nodules=[Nodule(xyz=(0.0, 0.0, float(z))) for z in range(nodules)], k=k)


def prediction(nodules: int) -> Prediction:
    return cast(Prediction, SimpleNamespace(diagnoses=(None,) * nodules))


def test_so_many_nodules_are_remembered():
    held = store_of()[0].add(ReadCT(CT))
    for k in range(1, 6):
        held.remember(question(REMEMBERED // 3, k), prediction(REMEMBERED // 3))
    assert [asked.k for asked, _ in held.known().values()] == [3, 4, 5]
    held.remember(question(2 * REMEMBERED, 6), prediction(2 * REMEMBERED))
    assert [asked.k for asked, _ in held.known().values()] == [6], "the last is kept"


def test_what_is_known_is_looked_through_while_others_remember():
    held = store_of()[0].add(ReadCT(CT))
    held.remember(question(1, 1), prediction(1))
    for _ in reversed(held.known().values()):
        held.remember(question(1, 2), prediction(1))  # a dictionary that is looked through must not grow
    assert len(held.known()) == 2


def test_the_files_of_a_dicom_series_count_too():
    store, _ = store_of(limit=2 * BYTES)
    store.add(ReadCT(CT))
    store.add(ReadCT(CT, files=[], files_bytes=1))
    assert store.counts == (1, BYTES + 1)
