"""A service that really listens, in a thread of this process, and a client for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nodule_diag.backends.backend import Backend, Outputs
from nodule_diag.diagnoser import Diagnoser

pytest.importorskip("fastapi", reason="no extra serve")
httpx = pytest.importorskip("httpx")

from nodule_diag.service.server import server_of  # noqa: E402
from nodule_diag.service.service import Service  # noqa: E402
from nodule_diag.service.settings import Settings  # noqa: E402

MIDDLE = [-10.0, 24.0, -115.0]
"""LPS mm, in the made-up CT."""


@dataclass(frozen=True)
class Running:
    """A service that listens."""

    client: Any
    service: Service
    port: int
    connections: Collection[object]

    def add(self, ct: Path, **query: object) -> dict[str, Any]:
        """Upload a CT; returns its document."""
        answer = self.client.post("/v1/cts", files={"file": (ct.name, ct.read_bytes())}, params=query)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def ask(self, ct: object, *, headers: dict[str, str] | None = None, **question: Any) -> Any:
        """Ask for a prediction."""
        body = {"ct": ct, "nodules": [{"xyz": MIDDLE}]} | question
        return self.client.post("/v1/predictions", json=body, headers=headers)


Start = Callable[..., Running]


def wait_for(condition: Callable[[], object], *, what: str = "it") -> None:
    """Wait as long as a crowded machine may take."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


@contextmanager
def listening(settings: Settings, diagnoser: Diagnoser, **options: Any) -> Iterator[Running]:
    """A service, until the block ends."""
    bound = socket.create_server(("127.0.0.1", 0))  # the server closes it
    port = bound.getsockname()[1]
    server = server_of(settings, diagnoser, **options)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive(), what="the start")
    headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=300) as client:
            yield Running(client, server.config.app.state.service, port, server.server_state.connections)
    finally:
        server.should_exit = True
        thread.join(300)
        assert not thread.is_alive()


class Gated:
    """A backend that waits until it is let go, and counts."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name, self.device, self.precision = backend.name, backend.device, backend.precision
        self.threads, self.batch = backend.threads, backend.batch
        self.open, self.begun, self.calls = threading.Event(), threading.Event(), 0

    def infer(self, patches: np.ndarray) -> Outputs:
        self.calls += 1
        self.begun.set()
        assert self.open.wait(300)
        return self._backend.infer(patches)
