"""Servers that are broken or mean harm: what they send is bounded, and never taken for what was asked."""

from __future__ import annotations

import gzip
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest
from pydicom import Dataset, dcmwrite

import ct_files as make
from nodule_diag.errors import PacsError
from nodule_diag.pacs import server, session
from nodule_diag.pacs.server import Pacs

STUDY, SERIES = make.UID_ROOT, f"{make.UID_ROOT}.1"
Handler = BaseHTTPRequestHandler
PARTS = 'multipart/related; type="application/dicom"; boundary=edge'


@contextmanager
def serving(*, listed: Callable[[Handler], None], objects: Callable[[Handler], None]) -> Iterator[str]:
    """A server that answers searches by ``listed`` and retrieval by ``objects``."""

    class _Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            (listed if self.path.partition("?")[0].endswith("/instances") else objects)(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}/dicom-web"
        finally:
            listening.shutdown()
            thread.join()


def answer(handler: Handler, data: bytes, kind: str, **headers: str) -> None:
    """Data, with no length given: it ends where the connection does."""
    handler.send_response(200)
    for name, value in {"Content-Type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def endless(handler: Handler, start: bytes, kind: str) -> None:
    """The same piece again and again until the other side hangs up; 1 GB at most."""
    answer(handler, start, kind)
    try:
        for _ in range(1000):
            handler.wfile.write(bytes(10**6))
    except OSError:
        return
    pytest.fail("all of it was taken")


def listing(*uids: str) -> Callable[[Handler], None]:
    document = [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in uids]
    return lambda handler: answer(handler, json.dumps(document).encode(), "application/dicom+json")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BACKOFF_S", 0.0)


@pytest.fixture
def slices() -> list[Dataset]:
    return make.encoded(make.dicom_slices(make.chest_hu((3, 16, 16))), "1.2.840.10008.1.2.1")


def file_of(item: Dataset) -> bytes:
    buffer = BytesIO()
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
    dcmwrite(buffer, item, enforce_file_format=True)
    return buffer.getvalue()


def parts(*files: bytes, end: bytes = b"\r\n--edge--\r\n") -> bytes:
    return b"".join(b"\r\n--edge\r\nContent-Type: application/dicom\r\n\r\n" + data for data in files) + end


def refused(url: str) -> PacsError:
    with pytest.raises(PacsError) as caught:
        Pacs(url).fetch(STUDY, SERIES)
    assert caught.value.exit_code == 6
    return caught.value


def test_a_list_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_TEXT_BYTES", 10**7)
    with serving(
        listed=lambda handler: endless(handler, b"[", "application/dicom+json"), objects=lambda _: None
    ) as url:
        assert refused(url).code == "pacs-too-large"


def test_a_list_that_inflates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_TEXT_BYTES", 10**7)
    bomb = gzip.compress(bytes(10**8))
    with serving(
        listed=lambda handler: answer(handler, bomb, "application/dicom+json", Content_Encoding="gzip"),
        objects=lambda _: None,
    ) as url:
        assert refused(url).code == "pacs-too-large"


@pytest.mark.parametrize("kind", [PARTS, "multipart/related", "application/dicom"])
def test_an_object_without_end(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(session, "MAX_OBJECT_BYTES", 10**7)
    with (
        serving(listed=listing("1.2.3"), objects=lambda handler: endless(handler, parts(b"", end=b""), kind)) as url,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)  # dicomweb-client: this kind breaks the standard
        assert refused(url).code == "pacs-too-large"


def test_a_list_of_more_than_any_ct_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_FILES", 100)
    with serving(listed=listing(*(f"1.2.{n}" for n in range(101))), objects=lambda _: None) as url:
        assert refused(url).code == "pacs-too-large"


def test_objects_that_are_too_large_together(monkeypatch: pytest.MonkeyPatch, slices: list[Dataset]) -> None:
    """Each comes in an answer of its own, and would pass alone."""
    monkeypatch.setattr(session, "MAX_OBJECT_BYTES", 2 * len(file_of(slices[0])))
    by_uid = {item.SOPInstanceUID: parts(file_of(item)) for item in slices}

    def one(handler: Handler) -> None:
        answer(handler, by_uid.get(handler.path.rpartition("/")[2], parts()), PARTS)

    with serving(listed=listing(*by_uid), objects=one) as url:
        assert refused(url).code == "pacs-too-large"


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b"7", b"[1]", b'[{"00080018": 1}]', b"null", b"<html>"], ids=lambda data: data[:9]
)
def test_a_list_that_is_none(data: bytes) -> None:
    with serving(listed=lambda handler: answer(handler, data, "application/dicom+json"), objects=lambda _: None) as url:
        assert refused(url).code == "pacs-failed"


class Ended(BaseException):
    """What a caller raises who no longer waits, as the service's cancelled work does."""


def test_a_fetch_ends_when_asked_although_no_object_comes() -> None:
    asked: list[str] = []

    def nonsense(handler: Handler) -> None:
        asked.append(handler.path)
        answer(handler, parts(b"nonsense"), PARTS)

    def progress(have: int, of: int) -> None:
        assert (have, of) == (0, 60)
        if len(asked) == 3:
            raise Ended

    with serving(listed=listing(*(f"1.2.{n}" for n in range(60))), objects=nonsense) as url, pytest.raises(Ended):
        Pacs(url).fetch(STUDY, SERIES, progress=progress)
    assert len(asked) == 3, "the series, and two objects"


def test_a_fetch_ends_when_asked_although_others_objects_come(slices: list[Dataset]) -> None:
    other = parts(*map(file_of, slices[1:]))

    def progress(have: int, of: int) -> None:
        counts.append((have, of))
        if len(counts) == 3:
            raise Ended

    counts: list[tuple[int, int]] = []
    with (
        serving(listed=listing(slices[0].SOPInstanceUID), objects=lambda handler: answer(handler, other, PARTS)) as url,
        pytest.raises(Ended),
    ):
        Pacs(url).fetch(STUDY, SERIES, progress=progress)
    assert counts == [(0, 1)] * 3, "the list, and two objects of its answer"


def test_a_fetch_ends_when_asked_although_the_list_goes_on() -> None:
    pages: list[int] = []

    def page(handler: Handler) -> None:
        pages.append(len(pages))
        listing(f"1.2.{len(pages)}")(handler)

    def progress(have: int, of: int) -> None:
        if of == 3:
            raise Ended

    with serving(listed=page, objects=lambda _: None) as url, pytest.raises(Ended):
        Pacs(url).fetch(STUDY, SERIES, progress=progress)
    assert len(pages) == 3


def test_another_object_than_was_asked_for(slices: list[Dataset]) -> None:
    wanted, other = slices[0].SOPInstanceUID, file_of(slices[1])
    with serving(listed=listing(wanted), objects=lambda handler: answer(handler, parts(other), PARTS)) as url:
        error = refused(url)
    assert error.code == "pacs-incomplete"
    assert "0 of 1 objects" in error.message


@pytest.mark.parametrize("lost", [3, 5, 9, 100, 400])
@pytest.mark.parametrize("kind", [PARTS, "application/dicom"])
def test_a_cut_object_is_not_kept(slices: list[Dataset], lost: int, kind: str) -> None:
    """Nothing but the last boundary, or the length of the pixels, tells it from a whole one."""
    whole = file_of(slices[0])
    data = parts(whole).rstrip() if kind == PARTS else whole
    with (
        serving(
            listed=listing(slices[0].SOPInstanceUID), objects=lambda handler: answer(handler, data[:-lost], kind)
        ) as url,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)
        assert refused(url).code == ("pacs-unreachable" if kind == PARTS else "pacs-incomplete")


def test_whole_answers_of_either_kind_are_taken(slices: list[Dataset]) -> None:
    for kind, data in ((PARTS, parts(file_of(slices[0]))), ("application/dicom", file_of(slices[0]))):
        with (
            serving(
                listed=listing(slices[0].SOPInstanceUID),
                objects=lambda handler, data=data, kind=kind: answer(handler, data, kind),
            ) as url,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", UserWarning)
            assert len(Pacs(url).fetch(STUDY, SERIES).files) == 1
