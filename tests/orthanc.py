"""A real PACS on this machine's loopback, and a line to it that can be cut."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ports import held_port

USER, PASSWORD = "radiology", "a secret"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def _require_orthanc() -> str:
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.is_file():
        if os.environ.get("NODULE_DIAG_TOOLS") == "required":
            pytest.fail("CI has no Orthanc: .ci/run installs orthanc and orthanc-dicomweb")
        pytest.skip("no Orthanc: apt-get install orthanc orthanc-dicomweb")
    return program


@contextmanager
def orthanc(
    folder: Path, *, largest_file: int | None = None, running: list[subprocess.Popen[bytes]] | None = None
) -> Iterator[str]:
    """Run a server; yields its DICOMweb address.

    Args:
        folder: Empty; the server keeps everything there.
        largest_file: Bytes above which its writes fail, as they do on a full disk.
        running: Takes the server's process, for who wants to kill it.
    """
    program = _require_orthanc()
    with held_port() as port, (folder / "log").open("wb") as log:
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "index"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": port,
            "RemoteAccessAllowed": False,
            "DicomServerEnabled": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))

        def limited() -> None:
            if largest_file is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        server = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log, preexec_fn=limited)
        if running is not None:
            running.append(server)
        try:
            _wait_for(port, server, folder / "log")
            yield f"http://127.0.0.1:{port}/dicom-web"
        finally:
            server.kill()
            server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            pytest.fail(f"Orthanc ended: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/system", timeout=5)
        except urllib.error.HTTPError:
            return  # it asks who we are: it is there
        except OSError:
            time.sleep(0.1)
    pytest.fail("Orthanc did not start in a minute")


@contextmanager
def cut_line(to: str, *, after: int, times: int) -> Iterator[str]:
    """A way to a server that is cut in the middle of an answer.

    Args:
        to: The server's address, http on loopback.
        after: Bytes of answers, over one connection, after which it is cut.
        times: How many connections are cut; later ones are whole.
    """
    port = int(to.split(":")[2].split("/")[0])
    listening = socket.create_server(("127.0.0.1", 0))
    left = [times]

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=_pass_on, args=(client, port, after, left), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/dicom-web"
    finally:
        listening.close()


def _pass_on(client: socket.socket, port: int, after: int, left: list[int]) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as server:

        def asking() -> None:
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    server.sendall(data)

        threading.Thread(target=asking, daemon=True).start()
        passed = 0
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                passed += len(data)
                if passed > after and left[0] > 0:
                    left[0] -= 1
                    break
                client.sendall(data)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # closing alone would wait for the thread that reads
