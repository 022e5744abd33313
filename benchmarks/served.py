"""``nodule-diag serve`` in a separate process, and clients of it that need nothing but Python."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from nodule_diag.errors import NoduleDiagError

START_S = 120.0
ANSWER_S = 300.0


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        status: HTTP status.
        kind: Media type of the body.
        body: The body's bytes.
        seconds: Time from asking to the last byte.
    """

    status: int
    kind: str
    body: bytes
    seconds: float

    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A running service.

    Attributes:
        port: The port where it listens, on this machine.
        process: The service's process.
        folder: Its home and temporary folder: all files that it leaves are there.
        clients: Closes the clients' connections when the service ends.
    """

    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    clients: ExitStack

    def client(self) -> Client:
        """A client with its own connection, until the service ends."""
        return self.clients.enter_context(closing(Client(self.port)))

    @property
    def resident_mib(self) -> float:
        """The service's memory now, from proc(5)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def left(self) -> list[str]:
        """The files that it left."""
        return [str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()]


class Client:
    """Sends one request after the other over one connection, and opens a new connection where that was closed."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """One request and its answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        begin = time.perf_counter()
        for last in (False, True):
            try:
                self._connection.request(method, path, body, named)
                answer: HTTPResponse = self._connection.getresponse()
                data = answer.read()
            except (HTTPException, ConnectionError):
                self._connection.close()  # an idle connection was closed
                if last:
                    raise
            else:
                return Reply(answer.status, answer.headers.get_content_type(), data, time.perf_counter() - begin)
        raise AssertionError("the second try returns or raises")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def form(**parts: tuple[str, bytes]) -> tuple[bytes, str]:
    """A form's body and media type; a part is a file where its name is not empty."""
    boundary, body = "nodule-diag-bench", b""
    for name, (file, data) in parts.items():
        named = f'; filename="{file}"' if file else ""
        body += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + data + b"\r\n"
        )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


@contextmanager
def served(bundle: Path | None, folder: Path, *words: str, threads: int) -> Iterator[Served]:
    """Run a service until the block ends.

    Args:
        bundle: The bundle; None for the packaged one.
        folder: An empty folder, its home.
        words: More options.
        threads: Threads that it may use.
    """
    with socket.socket() as held:  # no other process gets the port; the service may listen at it
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
        folder.mkdir()
        line = [sys.executable, "-m", "nodule_diag_cli", "serve", "--port", str(port), "--backend", "onnxruntime"]
        line += [*words] + ["--bundle", str(bundle)] * (bundle is not None)
        environment = os.environ | {"HOME": str(folder), "TMPDIR": str(folder), "OMP_NUM_THREADS": str(threads)}
        log = folder.with_suffix(".log")
        with log.open("wb") as said:
            process = subprocess.Popen(line, env=environment, cwd=folder, stdout=said, stderr=said)
        try:
            _wait(port, process, log)
            with ExitStack() as clients:
                yield Served(port, process, folder, clients)
        finally:
            process.terminate()
            process.wait(60)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with closing(Client(port)) as client:
                if client.ask("GET", "/v2/health/ready").status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise NoduleDiagError(f"the service did not start: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
