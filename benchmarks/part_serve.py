"""``bench serve``: the waiting time of a client, alone and among others, compared with the same call in process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np

from benchmarks.results import Cell, Check, Column, Plot, Table
from benchmarks.served import Client, Reply, Served, form, served
from benchmarks.session import Findings
from benchmarks.subject import Bench
from nodule_diag.ct import read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.process import document_text
from nodule_diag.results import prediction_document

CLIENTS = (1, 2, 4, 8, 16, 32)
OPEN = (0.5, 0.8, 1.2)
"""Arrivals, in multiples of the service's capacity."""
SECONDS, QUICK_SECONDS = 20.0, 1.5
ALONE, QUICK_ALONE = 30, 3
MOST_OVERHEAD_MS = 15.0
STEP_MM = 1e-3
"""Each question is about another place, so that it is not answered from memory."""
COLUMNS = {
    "load": "load",
    "clients": "clients",
    "answers": "answers",
    "refused": "429",
    "rate": "nodules a second",
    "p50_ms": "p50, ms",
    "p90_ms": "p90, ms",
    "p99_ms": "p99, ms",
    "queue_ms": "of that waiting and HTTP, p50, ms",
    "resident_mib": "service's memory, MiB",
}


@dataclass
class Load:
    """What the clients measured; every client adds to it.

    Attributes:
        waits_s: Waiting time of each answer.
        beyond_s: The part of it that was not the prediction's own time.
        refused: Number of requests that were told to come again.
        seconds: Time of the whole load.
    """

    waits_s: list[float] = field(default_factory=list)
    beyond_s: list[float] = field(default_factory=list)
    refused: int = 0
    seconds: float = 0.0

    def add(self, reply: Reply) -> None:
        """Add an answer."""
        if reply.status == 429:
            self.refused += 1
            return
        if reply.status != 200:
            raise RuntimeError(f"{reply.status}: {reply.body[:500]!r}")
        self.waits_s.append(reply.seconds)
        self.beyond_s.append(reply.seconds - reply.json()["timing_ms"]["total"] / 1000)

    def row(self, name: str, clients: int, served_by: Served) -> tuple[Cell, ...]:
        """As a row of the table."""
        waits = [float(value) * 1000 for value in np.percentile(self.waits_s or [np.nan], (50, 90, 99))]
        beyond = 1000 * float(np.median(self.beyond_s or [np.nan]))
        rate = len(self.waits_s) / self.seconds
        return (name, clients, len(self.waits_s), self.refused, rate, *waits, beyond, served_by.resident_mib)


class Questions:
    """Questions about one held CT, each about another place near its nodule."""

    def __init__(self, ct_id: str, xyz_mm: tuple[float, float, float]) -> None:
        self._ct, self._xyz, self._number = ct_id, xyz_mm, count()

    def place(self) -> tuple[float, float, float]:
        """The next place."""
        x, y, z = self._xyz
        return x + STEP_MM * next(self._number), y, z

    def ask(self, client: Client) -> Reply:
        """Ask about the next place."""
        body = json.dumps({"ct": self._ct, "nodules": [{"xyz": self.place()}]}).encode()
        return client.ask("POST", "/v1/predictions", body, Content_Type="application/json")


def run(bench: Bench) -> Findings:
    """Measure one client, closed load, open load, and one worker compared with two."""
    quick, path, threads = bench.settings.quick, bench.subject.path, bench.settings.threads
    seconds = QUICK_SECONDS if quick else SECONDS
    diagnoser = Diagnoser.load(bench.bundle, backend="onnxruntime", threads=threads)
    rows: list[tuple[Cell, ...]] = []
    bundle = bench.settings.bundle
    with served(bundle, bench.folder / "one", threads=threads) as service:
        questions = Questions(_held(service, path), bench.subject.xyz_mm)
        alone, in_process_ms = _alone(service, questions, diagnoser, path, QUICK_ALONE if quick else ALONE)
        rows.append(alone.row("alone, after each call in process", 1, service))
        best = 0.0
        for clients in CLIENTS[:2] if quick else CLIENTS:
            load = _closed(service, questions, clients, seconds)
            best = max(best, len(load.waits_s) / load.seconds)
            rows.append(load.row("closed", clients, service))
        for share in OPEN[:1] if quick else OPEN:
            load = _open(service, questions, share * best, seconds)
            rows.append(load.row(f"open, {share:g} of capacity", max(CLIENTS), service))
    workers = [_with_workers(bench, number, seconds) for number in (1, 2)]
    overhead_ms = 1000 * float(np.median(alone.beyond_s))
    wait_ms = 1000 * float(np.median(alone.waits_s))
    return Findings(
        title="Service: waiting, alone and among others",
        tables=(_table(rows), _workers_table(workers)),
        checks=(
            Check(
                name="service beyond the prediction's own time, median, alone, without upload",
                value=overhead_ms,
                rule="at most",
                limit=MOST_OVERHEAD_MS,
                unit="ms",
            ),
        ),
        notes=(
            f"the same call in process took {in_process_ms:.1f} ms (median), the service {wait_ms:.1f} ms, in turns",
        ),
    )


def _held(service: Served, path: Path) -> str:
    body, kind = form(file=(path.name, path.read_bytes()))
    reply = service.client().ask("POST", "/v1/cts", body, Content_Type=kind)
    if reply.status != 201:
        raise RuntimeError(f"{reply.status}: {reply.body[:500]!r}")
    return str(reply.json()["id"])


def _alone(service: Served, questions: Questions, diagnoser: Diagnoser, path: Path, calls: int) -> tuple[Load, float]:
    """One client, and the same call in this process, in turns; the first call of each is for warm-up."""
    ct, client = read_ct(path), service.client()
    load, in_process = Load(), []
    begin = time.perf_counter()
    for number in range(calls + 1):
        started = time.perf_counter()
        found = diagnoser.predict_timed(ct, [questions.place()])
        document_text(prediction_document(ct, found))
        took = time.perf_counter() - started
        reply = questions.ask(client)
        if number:
            in_process.append(took)
            load.add(reply)
    load.seconds = time.perf_counter() - begin
    return load, 1000 * float(np.median(in_process))


def _closed(service: Served, questions: Questions, clients: int, seconds: float) -> Load:
    """Each client asks again as soon as it has its answer."""
    load, deadline = Load(), time.perf_counter() + seconds

    def work(_: int) -> None:
        client = service.client()
        while time.perf_counter() < deadline:
            load.add(questions.ask(client))

    return _timed(load, work, clients)


def _open(service: Served, questions: Questions, rate: float, seconds: float) -> Load:
    """Clients come at random times, whether or not earlier clients have their answer."""
    load = Load()
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1 / rate, size=max(2, int(rate * seconds))))
    begin = time.perf_counter()

    def work(number: int) -> None:
        time.sleep(max(0.0, begin + float(arrivals[number]) - time.perf_counter()))
        with closing(Client(service.port)) as client:
            load.add(questions.ask(client))

    return _timed(load, work, len(arrivals))


def _timed(load: Load, work: Callable[[int], None], threads: int) -> Load:
    begin, failed = time.perf_counter(), []

    def guarded(number: int) -> None:
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 - raised below, by the thread that counts
            failed.append(error)

    running = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    load.seconds = time.perf_counter() - begin
    if failed:
        raise failed[0]
    return load


def _with_workers(bench: Bench, workers: int, seconds: float) -> tuple[Cell, ...]:
    """Four clients, and this many pieces of work at a time."""
    folder, threads = bench.folder / f"workers-{workers}", bench.settings.threads
    with served(bench.settings.bundle, folder, "--workers", str(workers), threads=threads) as service:
        questions = Questions(_held(service, bench.subject.path), bench.subject.xyz_mm)
        questions.ask(service.client())
        return _closed(service, questions, 4, seconds).row(f"{workers} at a time", 4, service)


def _table(rows: list[tuple[Cell, ...]]) -> Table:
    return Table(
        name="serve",
        title="What clients wait",
        columns=tuple(Column(key=key, label=label) for key, label in COLUMNS.items()),
        rows=tuple(rows),
        note="One nodule a request, of a CT that is held, on this machine's loopback. The clients take some CPU too.",
    )


def _workers_table(rows: list[tuple[Cell, ...]]) -> Table:
    return Table(
        name="serve-workers",
        title="One piece of work at a time beside two, four clients",
        columns=tuple(Column(key=key, label=label) for key, label in COLUMNS.items()),
        rows=tuple(rows),
        plot=Plot(kind="bars", x="load", y=("rate",), y_label="nodules a second"),
    )
