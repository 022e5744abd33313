"""``bench load``: minutes of many kinds of clients. Good clients get the right answer, bad ones a typed refusal."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import Check, Column, Table
from benchmarks.served import Client, Served, form, served
from benchmarks.session import Findings
from benchmarks.soak_inputs import tiny_bundle
from benchmarks.subject import Bench, small_chest
from nodule_diag.ct import read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag_cli.demo import write_ct

SECONDS, QUICK_SECONDS = 300.0, 6.0
CLIENTS = 16
BAD, GONE = 1 / 3, 1 / 10
"""Shares of requests that hold bad input, and whose client hangs up."""
LEAST_ANSWERED = 0.99
MOST_GROWTH_MIB = 50.0
WARMED_UP = 0.1
"""Share of the time after which memory is first measured."""
SAMPLED_S = 0.5


class Asker:
    """Asks questions, and counts the answers; one for each client."""

    def __init__(self, service: Served, number: int, good: dict[str, Any], upload: bytes, known: list[Any]) -> None:
        self._service, self._client = service, service.client()
        self._random = random.Random(number)  # noqa: S311 - which request comes next
        self._good, self._upload, self._known = good, upload, known
        self.counts: Counter[str] = Counter()

    def _question(self, **changed: object) -> bytes:
        """The good question with another name each time, so it is not answered from memory; or a changed question."""
        (nodule,) = self._good["nodules"]
        named = {"nodules": [nodule | {"id": f"{self._random.random()}"}]}
        return json.dumps(self._good | named | changed).encode()

    def ask(self) -> None:
        """Send one request of any kind."""
        drawn = self._random.random()
        if drawn < BAD:
            self._bad()
        elif drawn < BAD + GONE:
            self._hang_up()
        else:
            self._ask_well()

    def _ask_well(self) -> None:
        if self._random.random() < 0.2:
            body, kind = form(file=("ct.nii.gz", self._upload), request=("", self._question(ct=None)))
            reply = self._client.ask("POST", "/v1/predictions", body, Content_Type=kind)
        else:
            reply = self._client.ask("POST", "/v1/predictions", self._question(), Content_Type="application/json")
        if reply.status == 429:
            self.counts["told to come again"] += 1
        elif reply.status == 200 and [nodule | {"id": "1"} for nodule in reply.json()["nodules"]] == self._known:
            self.counts["good, answered"] += 1
        else:
            self.counts["good, not answered"] += 1
            self.counts[f"good: {reply.status}"] += 1

    def _bad(self) -> None:
        json_type = "application/json"
        cut, kind = form(file=("ct.nii.gz", self._upload[:-200]))
        no_ct, _ = form(file=("ct.nii.gz", b"hello world" * 1000))
        method, path, body, media = self._random.choice(
            [
                ("POST", "/v1/predictions", b"{", json_type),
                ("POST", "/v1/predictions", self._question(nodules=[{"xyz": [1e4, 0, 0]}]), json_type),
                ("POST", "/v1/predictions", self._question(ct="unknown"), json_type),
                ("POST", "/v1/predictions", self._question(ct={"path": "../x"}), json_type),
                ("POST", "/v1/cts", cut, kind),
                ("POST", "/v1/cts", no_ct, kind),
                ("POST", "/v1/cts", cut[:-50], kind),
                ("POST", "/v2/models/nodule-diag/infer", b'{"inputs": []}', json_type),
                ("GET", "/v1/cts/unknown/slices/axial/1.png", b"", ""),
            ]
        )
        reply = self._client.ask(method, path, body, Content_Type=media)
        typed = reply.kind == "application/problem+json" and bool(reply.json()["code"])
        refused = 400 <= reply.status < 500 and typed
        self.counts["bad, refused" if refused else "bad, not refused"] += 1
        self.counts["5xx without a type"] += reply.status >= 500 and not typed

    def _hang_up(self) -> None:
        body, kind = form(file=("ct.nii.gz", self._upload), request=("", self._question(ct=None)))
        if self._random.random() < 0.5:
            body, kind = self._question(), "application/json"
        head = f"POST /v1/predictions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        sent = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        with socket.create_connection(("127.0.0.1", self._service.port)) as gone:
            gone.sendall(sent[: self._random.randint(1, len(sent))])
            time.sleep(0.05 * self._random.random())
        self.counts["hung up"] += 1


def run(bench: Bench) -> Findings:
    """Run all clients at once, and measure the service's memory meanwhile."""
    seconds, threads = QUICK_SECONDS if bench.settings.quick else SECONDS, bench.settings.threads
    bundle = tiny_bundle(bench.folder / "tiny")
    phantom = small_chest()
    path = write_ct(bench.folder / "ct.nii.gz", phantom.ct)
    center = phantom.nodules[0].center_xyz_mm
    found = Diagnoser.load(bundle, backend="onnxruntime", threads=threads).predict(read_ct(path), [center])
    known = json.loads(json.dumps([one.to_dict() for one in found]))
    with served(bundle.path, bench.folder / "service", threads=threads) as service:
        good = _question(service, path, center)
        askers = [Asker(service, number, good, path.read_bytes(), known) for number in range(CLIENTS)]
        resident, failed = _loaded(service, askers, seconds)
        ended = _settled(service.client())
        left = service.left()
    counts = sum((asker.counts for asker in askers), Counter[str]())
    return _findings(counts, resident, left, ended=ended, seconds=seconds, failed=failed)


def _question(service: Served, path: Path, center: tuple[float, float, float]) -> dict[str, Any]:
    """A question about a CT that is held."""
    body, kind = form(file=(path.name, path.read_bytes()))
    held = service.client().ask("POST", "/v1/cts", body, Content_Type=kind).json()["id"]
    return {"ct": held, "nodules": [{"xyz": center}]}


def _loaded(service: Served, askers: list[Asker], seconds: float) -> tuple[list[float], list[str]]:
    deadline, failed = time.monotonic() + seconds, list[str]()

    def work(asker: Asker) -> None:
        try:
            while time.monotonic() < deadline:
                asker.ask()
        except Exception as error:  # noqa: BLE001 - a client that saw no answer is what is looked for
            failed.append(f"{type(error).__name__}: {error}")

    running = [threading.Thread(target=work, args=(asker,)) for asker in askers]
    for thread in running:
        thread.start()
    resident = []
    while any(thread.is_alive() for thread in running):
        resident.append(service.resident_mib)
        time.sleep(SAMPLED_S)
    for thread in running:
        thread.join()
    return resident, failed


def _settled(client: Client) -> dict[str, float]:
    """The service's gauges once no request is left."""
    for _ in range(100):
        text = client.ask("GET", "/metrics").body.decode()
        lines = [line.split() for line in text.splitlines() if line.startswith("nodule_diag_") and "{" not in line]
        gauges = {name.removeprefix("nodule_diag_"): float(value) for name, value in lines}
        if gauges["work_waiting"] == gauges["work_running"] == gauges["uploads_bytes"] == 0:
            break
        time.sleep(0.1)
    return gauges


def _findings(
    counts: Counter[str],
    resident: list[float],
    left: list[str],
    *,
    ended: dict[str, float],
    seconds: float,
    failed: list[str],
) -> Findings:
    steady = resident[int(WARMED_UP * len(resident)) :]
    part = max(1, len(steady) // 5)
    growth = float(np.mean(steady[-part:]) - np.mean(steady[:part]))
    asked = counts["good, answered"] + counts["good, not answered"]
    return Findings(
        title="Service: clients of all manners",
        subject="a small made-up chest, and the tests' tiny network",
        tables=(
            Table(
                name="load",
                title=f"{seconds:g} s, {CLIENTS} clients",
                columns=(Column(key="what", label="requests"), Column(key="count", label="number")),
                rows=tuple(sorted(counts.items())),
            ),
        ),
        checks=(
            Check(
                name="good requests within the queue's bound that got the right answer",
                value=counts["good, answered"] / max(1, asked),
                rule="at least",
                limit=LEAST_ANSWERED,
            ),
            Check(
                name="growth of memory, last fifth over first",
                value=growth,
                rule="at most",
                limit=MOST_GROWTH_MIB,
                unit="MiB",
            ),
            *(
                Check(name=name, value=value, rule="at most", limit=limit)
                for name, value, limit in (
                    ("bad requests that were not refused with a type", counts["bad, not refused"], 0),
                    ("5xx without a type", counts["5xx without a type"], 0),
                    ("clients that got no answer", len(failed), 0),
                    ("files left", len(left), 0),
                    ("CTs held at the end", ended["cts"], 1),
                    ("work and uploads at the end", ended["work_running"] + ended["uploads_bytes"], 0),
                )
            ),
        ),
        notes=(
            f"memory {steady[0]:.0f} MiB after the warm-up, {max(steady):.0f} at most, {steady[-1]:.0f} at the end",
            *failed[:3],
        ),
    )
