"""Work that waits, runs, is watched, is cancelled, and is refused when too much waits."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from nodule_diag.service.problems import ServiceError
from nodule_diag.service.work import Job, WorkQueue
from service_client import MIDDLE, Running, wait_for

LATER = {"Prefer": "respond-async"}


@pytest.fixture
def waiting(start, gated):
    """A service whose network waits until it is let go; one piece of work may wait for it."""
    network, gate = gated
    return start(network=network, queue=2), gate


def ended(running: Running, place: str) -> dict:
    wait_for(lambda: running.client.get(place).json()["state"] not in ("queued", "running"), what="the job's end")
    return running.client.get(place).json()


def test_a_job_from_its_beginning_to_its_result(waiting, scan):
    running, gate = waiting
    ct = running.add(scan)["id"]
    answer = running.ask(ct, headers=LATER)
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    place = answer.headers["location"]
    assert place == f"/v1/jobs/{answer.json()['id']}"
    assert gate.begun.wait(300)
    seen = running.client.get(place).json()
    assert set(seen) == {"id", "state", "progress", "stage", "created", "error"}
    assert (seen["state"], seen["stage"], seen["error"]) == ("running", "inference", None)
    assert 0 < seen["progress"] < 1
    early = running.client.get(f"{place}/result")
    assert (early.status_code, early.json()["code"]) == (409, "job-not-done")
    assert running.client.delete(f"/v1/cts/{ct}").status_code == 204  # which the job has a hold on
    gate.open.set()
    assert ended(running, place) == seen | {"state": "done", "progress": 1.0, "stage": "done"}
    assert running.client.get(f"{place}/result").json()["nodules"][0]["id"] == "1"
    assert "Scroll" in running.client.get(f"{place}/result", headers={"Accept": "text/html"}).text
    assert running.service.store.counts[0] == 1, "its report is still written from the CT"
    assert running.client.delete(place).status_code == 204
    assert running.client.get(place).json()["code"] == "job-unknown"
    assert running.service.store.counts == (0, 0)


def test_a_job_that_is_said_to_be_done_has_its_result(start, scan, monkeypatch):
    """Its state is set a moment before its future is: a crowded machine may make that long."""

    class Slow(Future):
        def set_result(self, result: object) -> None:
            time.sleep(0.3)
            super().set_result(result)

    monkeypatch.setattr("nodule_diag.service.work.Future", Slow)
    running = start()
    place = running.ask(running.add(scan)["id"], headers=LATER).headers["location"]
    assert ended(running, place)["state"] == "done"
    assert running.client.get(f"{place}/result").status_code == 200


def test_an_upload_counts_until_its_job_has_read_it(waiting, scan):
    running, gate = waiting
    form = {"file": (scan.name, scan.read_bytes()), "request": (None, json.dumps({"nodules": [{"xyz": MIDDLE}]}))}
    answer = running.client.post("/v1/predictions", files=form, headers=LATER)
    assert answer.status_code == 202, answer.text
    assert running.service.gate.bytes > scan.stat().st_size
    gate.open.set()
    assert ended(running, answer.headers["location"])["state"] == "done"
    wait_for(lambda: running.service.gate.bytes == 0)


def test_events_tell_every_change_and_end(waiting, scan):
    running, gate = waiting
    place = running.ask(running.add(scan)["id"], headers=LATER).headers["location"]
    seen = []
    with running.client.stream("GET", f"{place}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: ")))
                gate.open.set()
    assert seen[-1]["state"] == "done"
    assert [one["progress"] for one in seen] == sorted(one["progress"] for one in seen)


def test_a_failed_job_says_why(waiting, scan, monkeypatch):
    made, document = set(), Job.document
    monkeypatch.setattr(Job, "document", lambda job: made.add(job) or document(job))
    running, gate = waiting
    gate.open.set()
    place = running.ask(running.add(scan)["id"], nodules=[{"xyz": [0, 0, 0]}], headers=LATER).headers["location"]
    found = ended(running, place)
    assert (found["state"], found["error"]["code"], found["error"]["status"]) == ("failed", "coordinate-outside", 422)
    for _ in range(3):
        answer = running.client.get(f"{place}/result")
        assert (answer.status_code, answer.json()["code"]) == (422, "coordinate-outside")
    (job,) = made
    assert job.error.__traceback__ is None, "it holds no frames, nor what is in them"


def test_too_much_is_refused_and_says_when_to_come_back(waiting, scan):
    running, gate = waiting
    ct = running.add(scan)["id"]
    first = running.ask(ct, headers=LATER).headers["location"]
    assert gate.begun.wait(300)
    others = [running.ask(ct, k=k, headers=LATER) for k in (1, 2)]
    assert [one.status_code for one in others] == [202, 202]
    for answer in (running.ask(ct, k=3), running.ask(ct, k=3, headers=LATER), running.client.post("/v1/cts")):
        assert (answer.status_code, answer.json()["code"]) == (429, "queue-full")
        assert int(answer.headers["retry-after"]) >= 1
    assert running.client.get(f"/v1/cts/{ct}/slices/axial/3.png").status_code == 200, "slices do not wait"
    assert running.client.delete(others[0].headers["location"]).status_code == 204  # which gives its place away at once
    assert running.client.get(others[0].headers["location"]).json()["state"] == "cancelled"
    assert running.ask(ct, k=4, headers=LATER).status_code == 202
    gate.open.set()
    assert ended(running, first)["state"] == "done"


def test_a_running_job_is_cancelled_at_its_next_step(waiting, scan):
    running, gate = waiting
    place = running.ask(running.add(scan)["id"], headers=LATER).headers["location"]
    assert gate.begun.wait(300)
    assert running.client.delete(place).status_code == 204
    gate.open.set()
    assert ended(running, place)["state"] == "cancelled"
    answer = running.client.get(f"{place}/result")
    assert (answer.status_code, answer.json()["code"]) == (409, "cancelled")
    wait_for(lambda: running.service.work.counts == (0, 0))


@pytest.mark.parametrize("which", ["running", "queued"])
def test_when_the_client_goes_its_work_goes(which, waiting, scan, caplog):
    caplog.set_level("INFO")
    running, gate = waiting
    ct = running.add(scan)["id"]
    if which == "queued":
        running.ask(ct, headers=LATER)
        assert gate.begun.wait(300)
    body = json.dumps({"ct": ct, "nodules": [{"xyz": MIDDLE}], "k": 7}).encode()
    head = f"POST /v1/predictions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(head + body)
        wait_for(lambda: running.service.work.counts == ((0, 1) if which == "running" else (1, 1)))
        if which == "running":
            assert gate.begun.wait(300)
    if which == "queued":
        wait_for(lambda: running.service.work.counts == (0, 1), what="the place in the queue being given away")
    else:
        wait_for(lambda: all(job.cancelled for job in running.service.work.running), what="its end being asked for")
    gate.open.set()
    wait_for(lambda: running.service.work.counts == (0, 0))
    held = running.service.store.get(ct)
    assert not any(question.k == 7 for question, _ in held.predictions.values()), "it was never finished"
    gone = 'nodule_diag_requests_total{method="POST",route="/v1/predictions",status="499"} 1.0'
    wait_for(lambda: gone in running.client.get("/metrics").text, what="its being counted")
    told = [record.fields for record in caplog.records if record.name == "nodule_diag.service"]
    assert [one["code"] for one in told if one["status"] == 499] == ["client-gone"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"], "nor is that a bug"


def test_a_job_has_a_time_limit(start, gated, scan):
    network, gate = gated
    gate.open.wait = lambda _: time.sleep(0.3) or True
    running = start(network=network, work_s=0.2)
    answer = running.ask(running.add(scan)["id"])
    assert (answer.status_code, answer.json()["code"]) == (504, "work-timeout")


def test_finished_jobs_are_forgotten_the_oldest_first(start, scan):
    running = start(jobs=2)
    ct = running.add(scan)["id"]
    places = []
    for k in range(1, 5):
        places.append(running.ask(ct, k=k, headers=LATER).headers["location"])
        wait_for(lambda: running.service.work.counts == (0, 0))
    states = [running.client.get(place).status_code for place in places]
    assert states == [404, 404, 200, 200]


def test_finished_jobs_give_their_cts_up_before_an_upload_is_refused(start, scan):
    running = start(cts=2)
    places = []
    for _ in range(2):
        places.append(running.ask(running.add(scan)["id"], headers=LATER).headers["location"])
        assert ended(running, places[-1])["state"] == "done"
    third = running.add(scan)["id"]
    assert [running.client.get(place).status_code for place in places] == [404, 200], "the oldest goes"
    assert running.service.store.counts[0] == 2
    place = running.ask(third, headers=LATER).headers["location"]
    assert ended(running, place)["state"] == "done"
    assert running.client.delete(f"/v1/cts/{third}").status_code == 204
    assert running.client.get(place).json()["code"] == "job-unknown"
    assert running.client.get(places[1]).status_code == 200, "of another CT"
    assert running.service.store.counts[0] == 1


@pytest.mark.parametrize("headers", [LATER, {}], ids=["job", "waiting"])
def test_work_that_was_accepted_keeps_its_ct(headers, waiting, scan):
    running, gate = waiting
    first, second = (running.add(scan)["id"] for _ in range(2))
    running.ask(first, headers=LATER)
    assert gate.begun.wait(300)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(running.ask, second, headers=headers)
        wait_for(lambda: running.service.work.counts == (1, 1))
        assert running.client.delete(f"/v1/cts/{second}").status_code == 204
        gate.open.set()
        answer = asked.result()
    if headers:
        assert ended(running, answer.headers["location"])["state"] == "done"
    else:
        assert answer.status_code == 200, answer.text
        wait_for(lambda: running.service.store.counts[0] == 1, what="its being let go")


def test_work_that_never_began_lets_its_ct_go(waiting, scan):
    running, gate = waiting
    ct = running.add(scan)["id"]
    first = running.ask(ct, headers=LATER).headers["location"]
    assert gate.begun.wait(300)
    queued = running.ask(ct, k=2, headers=LATER).headers["location"]
    assert running.service.store.get(ct).leases == 2
    assert running.client.delete(queued).status_code == 204
    assert running.service.store.get(ct).leases == 1
    gate.open.set()
    assert ended(running, first)["state"] == "done"


def test_a_worker_outlives_a_bug():
    queue = WorkQueue(workers=1, waiting=4, seconds=10)

    def bug(job: Job) -> None:
        raise KeyError("a patient's name")

    failed = queue.submit(bug, request_id="x")
    with pytest.raises(ServiceError) as caught:
        failed.future.result(10)
    assert (caught.value.code, caught.value.status) == ("unforeseen", 500)
    assert "patient" not in caught.value.message
    assert queue.submit(lambda _: 7, request_id="y").future.result(10) == 7
    queue.stop(seconds=10)
    with pytest.raises(ServiceError, match="stopping"):
        queue.submit(bug, request_id="z")
