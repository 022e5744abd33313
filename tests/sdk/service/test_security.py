"""SECURITY.md's promises for the service: strangers, paths, sizes, slowness, bombs, and nothing left behind."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

import ct_files as make
from guard import watched
from nodule_diag.errors import UsageError
from nodule_diag.service import uploads
from nodule_diag.service.gatekeeper import PAGE_POLICY
from nodule_diag.service.problems import ServiceError
from nodule_diag.service.requests import PathReference
from nodule_diag.service.settings import Settings, read_token
from nodule_diag.service.sources import Sources
from nodule_diag.service.uploads import file_name
from nodule_diag.service.work import Job
from service_client import MIDDLE, Running, wait_for

TOKEN = "a token of thirty-two characters"
MIB = 2**20
HEAD = b"POST /v1/cts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Disposition: attachment; filename=a.nii\r\n"


def refused(answer, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "given", [None, "", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer \u00e4"]
)
def test_a_wrong_token(given, start):
    running = start(token=TOKEN)
    headers = {} if given is None else {"Authorization": given.encode()}
    running.client.headers.pop("Authorization")
    for place in ("/v1/cts", "/v1/about", "/metrics", "/v2", "/v1/cts/x", "/nowhere", "/v2/models/nodule-diag"):
        answer = running.client.get(place, headers=headers)
        refused(answer, 401, "token-refused")
        assert answer.headers["www-authenticate"] == "Bearer"
    refused(running.client.post("/v1/predictions", headers=headers, content=b"{}"), 401, "token-refused")


def test_a_right_token_and_what_needs_none(start):
    running = start(token=TOKEN)
    assert running.client.get("/v1/cts").status_code == 200
    running.client.headers.pop("Authorization")
    for place in ("/", "/v2/health/live", "/v2/health/ready", "/docs", "/docs/swagger-ui.css", "/openapi.json"):
        assert running.client.get(place).status_code == 200, place


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.org"])
def test_no_address_for_others_without_a_token(host):
    with pytest.raises(UsageError) as caught:
        Settings(host=host)
    assert caught.value.code == "token-required"
    assert Settings(host=host, token=TOKEN).is_local is False


def test_tokens_that_are_none(tmp_path):
    with pytest.raises(UsageError) as caught:
        Settings(token="short")
    assert caught.value.code == "token-short"
    path = tmp_path / "token"
    for content in (None, b"", b"\n", b"\xff\xfe", "a token with an \u00e4 in it".encode()):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UsageError) as caught:
            read_token(path)
        assert caught.value.code == "token-file"
    for mark in ("", "\ufeff"):  # as some editors begin a file
        path.write_text(f"{mark}{TOKEN}\nand a note\n", encoding="utf-8")
        assert read_token(path) == TOKEN


def test_pages_of_other_servers_are_refused(running):
    """A browser here would send them along, and by another name that leads here (DNS rebinding) read the answer."""
    local = f"127.0.0.1:{running.port}"
    refused(running.client.get("/v1/cts", headers={"Host": "rebound.example"}), 421, "host-refused")
    for origin in ("http://evil.example", "null", f"http://{local}.evil.example"):
        refused(running.client.get("/v1/cts", headers={"Origin": origin}), 403, "origin-refused")
    assert running.client.get("/v1/cts", headers={"Origin": f"http://{local}"}).status_code == 200
    assert running.client.get("/v1/cts", headers={"Host": f"localhost:{running.port}"}).status_code == 200


def test_behind_a_proxy_its_name_is_said(start):
    running = start(names=("AI.hospital.example",))
    there = {"Host": "ai.hospital.example", "Origin": "https://ai.hospital.example"}
    assert running.client.get("/v1/cts", headers=there).status_code == 200
    assert running.client.get("/v1/cts", headers={"Origin": there["Origin"]}).status_code == 200
    refused(running.client.get("/v1/cts", headers=there | {"Origin": "https://evil.example"}), 403, "origin-refused")


def test_every_answer_is_protected_and_numbered(running):
    for place, policy in (("/", PAGE_POLICY), ("/v1/cts", PAGE_POLICY), ("/nowhere", PAGE_POLICY)):
        answer = running.client.get(place, headers={"X-Request-ID": "mine-1"})
        assert answer.headers["content-security-policy"] == policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"] == "mine-1"
        assert "server" not in answer.headers
    made = running.client.get("/", headers={"X-Request-ID": "two words\tand more"}).headers["x-request-id"]
    assert len(made) == 16


@pytest.fixture
def rooted(start, tmp_path: Path) -> tuple[Running, Path]:
    """A service with a root, and a CT outside it that must not be read."""
    root = tmp_path / "root"
    root.mkdir()
    make.write(tmp_path / "secret.nii")
    make.write(root / "own.nii")
    make.save_series(tmp_path / "outside", make.dicom_slices())
    return start(root=root), root


@pytest.mark.parametrize(
    "path",
    [
        "../secret.nii",
        "ABSOLUTE",
        "x/../../secret.nii",
        "..",
        "../outside",
        "../root/../secret.nii",
        "a\0.nii",
        "../" * 40 + "etc/passwd",
    ],
)
def test_a_path_does_not_leave_the_root(path, rooted, tmp_path):
    running, _ = rooted
    path = str(tmp_path / "secret.nii") if path == "ABSOLUTE" else path
    for answer in (running.client.post("/v1/cts", json={"path": path}), running.ask({"path": path})):
        refused(answer, 403, "path-outside-root")
        assert "secret" not in answer.text


def test_a_link_does_not_leave_the_root(rooted, tmp_path):
    running, root = rooted
    (root / "link.nii").symlink_to(tmp_path / "secret.nii")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "series").mkdir()
    (root / "series" / "deeper").symlink_to(tmp_path / "outside")
    (root / "slices").mkdir()
    (root / "slices" / "1.dcm").symlink_to(tmp_path / "outside" / "000.dcm")
    (root / "loop").symlink_to(root / "loop")
    make.write(tmp_path / "hidden.mhd")
    (root / "head").mkdir()
    (root / "head" / "scan.mhd").write_bytes((tmp_path / "hidden.mhd").read_bytes())
    (root / "head" / "hidden.raw").symlink_to(tmp_path / "hidden.raw")
    for path in ("link.nii", "folder", "series", "slices", "loop", "head/scan.mhd", ".", "folder/000.dcm"):
        refused(running.client.post("/v1/cts", json={"path": path}), 403, "path-outside-root")
    (root / "good.nii").symlink_to(root / "own.nii")
    assert running.client.post("/v1/cts", json={"path": "good.nii"}).status_code == 201


@pytest.mark.parametrize("suffix", [".mhd", ".mha", ".nhdr", ".nrrd"])
@pytest.mark.parametrize(
    ("data", "link"), [("hidden.raw", "hidden.raw"), ("sub/hidden.raw", "sub/hidden.raw"), ("sub/hidden.raw", "sub")]
)
def test_a_header_does_not_leave_the_root_by_a_link(suffix, data, link, tmp_path):
    """Whatever its suffix is, and whatever in the name of its data file is a link."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    header = make.write(outside / f"hidden{'.mhd' if suffix.startswith('.m') else '.nhdr'}").read_bytes()
    place = root / link
    place.parent.mkdir(parents=True)
    (root / f"scan{suffix}").write_bytes(header.replace(b"hidden.raw", data.encode()))
    place.symlink_to(outside if link == "sub" else outside / "hidden.raw")
    sources, job = Sources(Settings(root=root), threads=1), Job(lambda _: None, seconds=60.0, request_id="1")
    with pytest.raises(ServiceError) as caught:
        sources.referred(PathReference(path=f"scan{suffix}"), job)
    assert (caught.value.status, caught.value.code) == (403, "path-outside-root")
    place.unlink()
    inside = outside.rename(root / "inside")
    place.symlink_to(inside if link == "sub" else inside / "hidden.raw")
    assert sources.referred(PathReference(path=f"scan{suffix}"), job).ct.size_xyz == (28, 32, 12)


@pytest.mark.parametrize("named", ["../secret.raw", "/etc/passwd", "other.raw", "0", "LIST"])
def test_a_header_that_is_sent_names_no_file_of_the_machine(named, running, tmp_path):
    make.write(tmp_path / "scan.mhd")
    header = (tmp_path / "scan.mhd").read_text().replace("ElementDataFile = scan.raw", f"ElementDataFile = {named}")
    assert named in header
    files = [("file", ("scan.mhd", header)), ("file", ("scan.raw", (tmp_path / "scan.raw").read_bytes()))]
    answer = running.client.post("/v1/cts", files=files)
    assert (answer.status_code, answer.json()["code"]) in ((422, "ct-detached-data"), (422, "ct-missing-data-file"))


@pytest.mark.parametrize("name", ["..%2Fapp.py", "../app.py", "%2e%2e/app.py", ".hidden", "nothing.js", "%00"])
def test_assets_are_files_of_the_page(name, running):
    assert running.client.get(f"/assets/{name}").status_code == 404


def test_a_pacs_is_asked_only_where_that_is_allowed(start):
    running = start(dicomweb=("https://pacs.example/dicom-web",))
    for url in ("http://169.254.169.254/latest", "https://pacs.example/dicom-web/../other", "https://pacs.example"):
        named = {"dicomweb": {"url": url, "study": "1.2", "series": "1.3"}}
        refused(running.client.post("/v1/cts", json=named), 403, "dicomweb-not-allowed")
        refused(running.ask(named), 403, "dicomweb-not-allowed")


def test_an_upload_that_is_too_large(start):
    running = start(upload_bytes=MIB)
    refused(running.client.post("/v1/cts", files={"file": ("a.nii", b"x" * (MIB + 1))}), 413, "upload-too-large")

    def chunks():
        for _ in range(40):
            yield b"x" * 65536

    headers = {"Content-Disposition": "attachment; filename=a.nii"}
    with contextlib.suppress(OSError):  # it may hang up before all is sent
        refused(running.client.post("/v1/cts", content=chunks(), headers=headers), 413, "upload-too-large")
    assert running.service.gate.bytes == 0


def test_a_json_body_that_is_too_large(running):
    refused(running.client.post("/v1/predictions", content=b" " * (MIB + 1)), 413, "upload-too-large")
    deep = b"[" * 500_000
    refused(running.client.post("/v1/predictions", content=deep), 400, "request-damaged")


def test_all_uploads_together_are_bounded(start):
    running = start(uploads_bytes=MIB)
    head = HEAD + b"Content-Length: 900000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port)) as slow:
        slow.sendall(head + b"x" * 600_000)
        wait_for(lambda: running.service.gate.bytes == 600_000)
        answer = running.client.post("/v1/cts", files={"file": ("b.nii", b"x" * 500_000)})
        refused(answer, 429, "uploads-busy")
        assert int(answer.headers["retry-after"]) >= 1
    wait_for(lambda: running.service.gate.bytes == 0)


def answered(port: int, *parts: bytes) -> bytes:
    """What a client that stalls gets, until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(30)
        for part in parts:
            client.sendall(part)
        found = b""
        with contextlib.suppress(ConnectionError):
            while data := client.recv(65536):
                found += data
        return found


def test_a_client_that_stalls_in_the_head(start):
    running = start(idle_s=0.3)
    whole = b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert answered(running.port, b"GET / HT") == b""
    assert answered(running.port) == b""
    assert answered(running.port, whole, b"GET / HT").count(b"HTTP/1.1 200") == 1, "nor in the second of a connection"


def test_a_client_that_stalls_in_the_body(start):
    running = start(idle_s=0.3)
    head = HEAD + b"Content-Length: 99\r\n\r\n"
    found = answered(running.port, head, b"x")
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b"upload-slow" in found
    assert running.service.gate.bytes == 0


@pytest.mark.parametrize("length", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize(("place", "status"), [(b"/v2/health/live", 200), (b"/nowhere", 404), (b"/v1/cts", 401)])
def test_a_client_that_stalls_in_a_body_that_nobody_reads(place, status, length, start):
    """Its first byte, after the answer, ends uvicorn's own waiting."""
    running = start(idle_s=1.5, token=TOKEN)
    bearer = b"" if status == 401 else b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
    head = b"GET " + place + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + bearer + length + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.settimeout(30)
        client.sendall(head)
        assert client.recv(65536).startswith(f"HTTP/1.1 {status} ".encode())
        time.sleep(0.2)
        client.sendall(b"5")
        with contextlib.suppress(ConnectionError):
            while client.recv(65536):
                pass


def test_a_client_that_drips_has_a_time_limit_too(start):
    running = start(idle_s=5, receive_s=0.5)
    head = HEAD + b"Content-Length: 99\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(head)
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                client.sendall(b"x")
                time.sleep(0.1)
        client.settimeout(30)
        assert b"upload-slow" in client.recv(65536)


def test_a_client_that_reads_nothing_is_left(start):
    running = start(idle_s=0.5)
    running.client.close()
    line = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", running.port))
        client.sendall(line * 30)  # 40 MB of answers, more than the system holds
        assert client.recv(12) == b"HTTP/1.1 200"
        wait_for(lambda: not running.connections, what="hanging up")


def bomb_zip() -> bytes:
    """512 MiB of zeros in half a megabyte, as one slice."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("slice.dcm", "w", force_zip64=True) as member,
    ):
        for _ in range(512):
            member.write(bytes(MIB))
    return buffer.getvalue()


def bomb_nifti() -> bytes:
    """1024 x 1024 x 512 voxels of 0 HU, 512 MiB, in half a megabyte."""
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]))
    header = image.header.copy()
    header.set_data_shape((1024, 1024, 512))
    header.set_data_dtype(np.uint8)
    header["vox_offset"] = 352
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9) as packed:
        packed.write(header.binaryblock + bytes(4))
        for _ in range(512):
            packed.write(bytes(MIB))
    return buffer.getvalue()


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("name", "bomb", "codes"),
    [
        ("bomb.zip", bomb_zip, {"ct-no-dicom", "ct-truncated"}),
        ("bomb.nii.gz", bomb_nifti, {"ct-too-large"}),
    ],
)
@pytest.mark.slow
def test_a_bomb_takes_no_memory(name, bomb, codes, start):
    running = start(ct_voxels=256 * MIB)
    data = bomb()
    before = resident()
    peak = before
    answers = []
    send = lambda: answers.append(running.client.post("/v1/cts", files={"file": (name, data)}))  # noqa: E731
    thread = threading.Thread(target=send)
    thread.start()
    while thread.is_alive():
        peak = max(peak, resident())
        time.sleep(0.02)
    assert answers[0].json()["code"] in codes, answers[0].text
    assert answers[0].status_code in (413, 422)
    assert peak - before < 300 * MIB


def test_a_ct_of_too_many_voxels_is_refused_before_it_is_allocated(start, scan):
    running = start(ct_voxels=28 * 32 * 12 - 1)
    refused(running.client.post("/v1/cts", files={"file": (scan.name, scan.read_bytes())}), 413, "ct-too-large")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\scans\\a.nii", "a.nii"),
        ("a\x1b[2Jb\u202e.nii", "a[2Jb.nii"),
        ("..", "upload"),
        ("x/", "upload"),
        ("y" * 300 + ".nii.gz", "y" * 193 + ".nii.gz"),
    ],
)
def test_names_of_uploads(given, kept):
    assert file_name(given) == kept


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b\r\n",
        b"--b\r\nContent-Disposition: form-data; name=file; filename=a.nii\r\n\r\nxx",
        b"--c\r\n\r\n--c--\r\n",
        b"\r\n" * 1000,
    ],
)
def test_a_damaged_form(body, running):
    answer = running.client.post("/v1/cts", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    refused(answer, 400, "form-damaged")
    answer = running.client.post("/v1/cts", content=body, headers={"Content-Type": "multipart/form-data"})
    refused(answer, 400, "form-damaged")


def test_a_form_of_very_many_parts(running, monkeypatch):
    """None is a file, and none has anything in it."""
    monkeypatch.setattr(uploads, "MAX_FILES", 1000)
    part = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    for count, code in ((1016, "ct-empty"), (1017, "usage")):
        answer = running.client.post("/v1/cts", content=part * count + b"--b--\r\n", headers=headers)
        assert answer.json()["code"] == code, count


def test_a_form_without_a_file(running):
    answer = running.client.post("/v1/cts", files={"note": (None, "x")})
    refused(answer, 422, "ct-empty")


WHOLE_LIFE = """
import asyncio, sys
import httpx
import nodule_diag as nd
from nodule_diag.service import Settings, create_app

async def main(bundle, scan, series):
    app = create_app(Settings(), nd.Diagnoser.load(bundle, backend="onnxruntime"))
    async with app.router.lifespan_context(app), httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=60
    ) as client:
        for path in (scan, series):
            answer = await client.post("/v1/cts", files={"file": (path.rpartition("/")[2], open(path, "rb").read())})
            assert answer.status_code == 201, answer.text
            asked = {"ct": answer.json()["id"], "nodules": [{"xyz": [-10, 24, -115]}]}
            for kind in ("application/json", "text/html"):
                answer = await client.post("/v1/predictions", json=asked, headers={"Accept": kind})
                assert answer.status_code == 200, answer.text
        named = {"Content-Disposition": "attachment; filename=a.nii"}
        answer = await client.post("/v1/cts", content=bytes(5 << 20), headers=named)
        assert answer.status_code == 422, answer.text

asyncio.run(main(*sys.argv[1:]))
"""


def test_nothing_is_written_anywhere(tiny_bundle, scan, series, tmp_path):
    """Nor sent: from the first upload to the last answer, and with a temporary folder that would take it."""
    archive = make.zipped(series, tmp_path / "series.zip")
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    for folder in (home, scratch, home / "tmp"):
        folder.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home / "tmp"), "OMP_NUM_THREADS": "1"}
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    found = watched(WHOLE_LIFE, tiny_bundle, scan, archive, cwd=home, scratch=scratch, environment=environment)
    assert found.code == 0, found.err
    assert found.outside() == []
    assert [call for call in found.network if "AF_INET" in call] == [], "asyncio's own pair is not a network"
    assert sorted(home.rglob("*")) == [home / "tmp"]


def test_the_log_says_nothing_of_anyone(start, tmp_path, caplog):
    caplog.set_level("INFO")
    name = "MUSTERMANN^ERIKA.nii.gz"
    path = make.write(tmp_path / name)
    running = start(root=tmp_path)
    ct = running.add(path)["id"]
    running.ask(ct, nodules=[{"xyz": MIDDLE, "id": "Erika's nodule"}])
    running.ask({"path": name})
    running.ask({"path": f"../{name}"})
    running.client.post("/v1/cts", files={"file": (name, b"no CT")})
    text = "\n".join(
        str(record.__dict__) for record in caplog.records if record.name.startswith(("nodule_diag", "uvicorn"))
    )
    assert "/v1/predictions" in text
    for word in ("MUSTERMANN", "Erika", str(tmp_path), ct, "-115"):
        assert word not in text


SENT = """
import asyncio, sys
import httpx
import nodule_diag as nd
from nodule_diag.service import Settings, create_app
from nodule_diag.service.logs import log_as_json

async def main(bundle, archive):
    log_as_json()
    app = create_app(Settings(), nd.Diagnoser.load(bundle, backend="onnxruntime"))
    async with app.router.lifespan_context(app), httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=60
    ) as client:
        answer = await client.post("/v1/cts", files={"file": ("a.zip", open(archive, "rb").read())})
        print(answer.status_code, answer.text)
        if answer.status_code == 201:
            asked = {"ct": answer.json()["id"], "nodules": [{"xyz": [-10, 24, -115]}]}
            for kind in ("application/json", "text/html", "application/zip"):
                answer = await client.post("/v1/predictions", json=asked, headers={"Accept": kind})
                print(answer.status_code, answer.text[:300] if answer.status_code != 200 else "")

asyncio.run(main(*sys.argv[1:]))
"""


def test_the_log_says_nothing_of_what_a_damaged_header_holds(tiny_bundle, tmp_path):
    """pydicom warns of values that are against the standard, with the values."""
    slices = make.dicom_slices()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in slices:
            one.add_new("StudyDate", "DA", "SECRETDA")
            one.add_new("StudyInstanceUID", "UI", "SECRET.1")
            one.add_new("PatientAge", "AS", "SECRETAGE")
        folder = make.save_series(tmp_path / "series", slices)
    archive = make.zipped(folder, tmp_path / "series.zip")
    assert b"SECRET" in next(folder.iterdir()).read_bytes()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path), "PYTHONWARNINGS": "default"}
    line = [sys.executable, "-c", SENT, str(tiny_bundle), str(archive)]
    ended = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert '"route": "/v1/cts"' in ended.stderr
    assert "SECRET" not in ended.stderr
    assert {json.loads(line)["level"] for line in ended.stderr.splitlines()} == {"info", "warning"}
