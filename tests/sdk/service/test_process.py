"""``nodule-diag serve`` as a program: it starts, stops gracefully, hands back what waits, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service_client import MIDDLE, wait_for

HELD = """
import sys, time
from pathlib import Path
from nodule_diag.backends.onnxruntime import OnnxRuntimeBackend
infer = OnnxRuntimeBackend.infer
def held(self, patches):
    while Path("hold").exists():
        time.sleep(0.02)
    return infer(self, patches)
OnnxRuntimeBackend.infer = held
sys.argv[0] = "nodule-diag"
from nodule_diag_cli.main import main
main()
"""
"""The program, with a network that waits while there is a file ``hold`` in its folder."""


class Program:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], client: httpx.Client) -> None:
        self.process, self.client = process, client

    def ended(self) -> tuple[int, str]:
        """How it ended, and what it said."""
        _, said = self.process.communicate(timeout=120)
        return self.process.returncode, said


@contextmanager
def serving(folder: Path, bundle: Path, *words: str) -> Iterator[Program]:
    line = [sys.executable, "-W", "error", "-c", HELD, "serve", "--port", "0"]
    line += ["--bundle", str(bundle), "--backend", "onnxruntime", *words]
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    (folder / "tmp").mkdir()
    process = subprocess.Popen(line, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        said = next((line for line in process.stderr or () if "listening at port" in line), '{"message": "none 0"}')
        port = json.loads(said)["message"].split()[-1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            program = Program(process, client)
            wait_for(lambda: process.poll() is not None or is_live(client), what="the start")
            yield program
    finally:
        process.kill()
        process.communicate()


def is_live(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_it_finishes_what_runs_hands_back_what_waits_and_is_no_longer_ready(tiny_bundle, scan, tmp_path):
    with ExitStack() as stack:
        program = stack.enter_context(serving(tmp_path, tiny_bundle, "--stop-timeout", "300"))
        client = program.client
        ct = client.post("/v1/cts", files={"file": (scan.name, scan.read_bytes())}).json()["id"]

        def ask(k: int) -> httpx.Response:
            return client.post("/v1/predictions", json={"ct": ct, "nodules": [{"xyz": MIDDLE}], "k": k})

        def gauge(name: str) -> float:
            lines = client.get("/metrics").text.splitlines()
            return float(next(line for line in lines if line.startswith(f"nodule_diag_{name} ")).split()[1])

        (tmp_path / "hold").touch()
        pool = stack.enter_context(ThreadPoolExecutor(2))
        runs = pool.submit(ask, 1)
        wait_for(lambda: gauge("work_running") == 1)
        waits = pool.submit(ask, 2)
        wait_for(lambda: gauge("work_waiting") == 1)
        assert client.get("/v2/health/ready").status_code == 200
        program.process.send_signal(signal.SIGTERM)
        wait_for(lambda: client.get("/v2/health/ready").status_code == 503, what="no longer being ready")
        assert client.get("/v2/health/ready").json() == {"ready": False}
        assert client.get("/v2/models/nodule-diag/ready").status_code == 503
        refused = ask(3)
        handed_back = waits.result()
        for answer in (refused, handed_back):
            assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
            assert "retry-after" in answer.headers
        (tmp_path / "hold").unlink()
        finished = runs.result()
        assert finished.status_code == 200, finished.text
        assert finished.json()["nodules"][0]["retrieval"]["k"] == 1
        code, said = program.ended()
    assert code == 0, said
    assert "Traceback" not in said
    left = [path for path in tmp_path.rglob("*") if path.is_file() and ".cache" not in path.parts]
    assert left == []
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert {"request", "the service has stopped"} <= {line["message"] for line in lines}


def test_work_that_does_not_end_is_handed_back(tiny_bundle, scan, tmp_path):
    with ExitStack() as stack:
        program = stack.enter_context(serving(tmp_path, tiny_bundle, "--stop-timeout", "0.5"))
        client = program.client
        ct = client.post("/v1/cts", files={"file": (scan.name, scan.read_bytes())}).json()["id"]
        (tmp_path / "hold").touch()
        pool = stack.enter_context(ThreadPoolExecutor(1))
        waits = pool.submit(client.post, "/v1/predictions", json={"ct": ct, "nodules": [{"xyz": MIDDLE}]})
        wait_for(lambda: "nodule_diag_work_running 1.0" in client.get("/metrics").text)
        program.process.send_signal(signal.SIGINT)
        answer = waits.result()
        assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
        assert "retry-after" in answer.headers
        code, said = program.ended()
    assert code == 0, said


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--host", "0.0.0.0"], 2, "--token-file"),
        (["--token-file", "absent"], 2, "cannot be read"),
        (["--root", "absent"], 2, "is not a folder"),
        (["--keep", "absent"], 2, "is not a folder"),
        (["--bundle", "absent"], 4, "absent"),
        (["--queue", "0"], 2, "queue"),
    ],
)
def test_what_it_refuses_before_it_listens(words, code, told, capsys, tmp_path, monkeypatch):
    from nodule_diag_cli.main import run

    monkeypatch.chdir(tmp_path)
    assert run(["serve", "--port", "0", *words]) == code
    assert told in capsys.readouterr().err


def test_an_address_that_is_taken(running, tiny_bundle, capsys):
    from nodule_diag_cli.main import run

    before: dict[str, Any] = {}
    import logging

    for name in ("nodule_diag", "uvicorn"):
        logger = logging.getLogger(name)
        before[name] = (logger.handlers[:], logger.level, logger.propagate)
    try:
        code = run(["serve", "--port", str(running.port), "--bundle", str(tiny_bundle), "--backend", "onnxruntime"])
    finally:
        for name, (handlers, level, propagate) in before.items():
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
    assert code == 2
    assert "cannot listen" in capsys.readouterr().err
