"""Receives a client's data directly into memory: limited in bytes and in time, and never written to a disk.

Starlette's own form parser writes parts over 1 MB into a temporary folder; a CT must not be stored there.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import unquote

from fastapi import Request
from starlette.requests import ClientDisconnect

from nodule_diag.ct import MAX_FILES
from nodule_diag.errors import UsageError
from nodule_diag.service.problems import CLIENT_GONE, ServiceError
from nodule_diag.service.settings import Settings

JSON_BYTES = 2**20
"""The most bytes of a request without a CT."""
MAX_FIELDS = 16
"""Parts of a form that are not files."""
PARSED_BYTES = 16 * 1024
"""Bytes of a form that are parsed before other requests have their turn."""
NAME_LETTERS = 200
RETRY_S = 10.0
_EXTENDED_NAME = re.compile(r"filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)
"""RFC 6266, for names that are not ASCII. A form has no such names (RFC 7578)."""


class Gate:
    """Counts the bytes of all requests that are being received."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count received bytes; a negative count for released bytes."""
        with self._lock:
            self.bytes += count

    @contextmanager
    def counted(self) -> Iterator[Counted]:
        """Count one request's bytes until the block ends, or longer after :meth:`Counted.keep`."""
        counted = Counted(self)
        try:
            yield counted
        finally:
            if not counted.kept:
                counted.release()


class Counted:
    """The bytes of one request."""

    def __init__(self, gate: Gate) -> None:
        self._gate, self.bytes, self.kept = gate, 0, False

    def add(self, count: int, *, limit: int) -> None:
        """Count more bytes.

        Raises:
            ServiceError: ``upload-too-large``, or ``uploads-busy`` when others send too much at this time.
        """
        self.bytes += count
        self._gate.add(count)
        if self.bytes > limit:
            raise too_large(limit)
        if self._gate.bytes > self._gate.settings.uploads_bytes:
            raise ServiceError(
                "other uploads fill the memory that there is for them",
                status=429,
                code="uploads-busy",
                hint="send it again later",
                retry_after_s=RETRY_S,
            )

    def keep(self) -> None:
        """Keep counting after the block until :meth:`release`, for work that goes on after the request."""
        self.kept = True

    def release(self, *_: object) -> None:
        """Stop counting these bytes."""
        self._gate.add(-self.bytes)
        self.bytes = 0


@dataclass
class Received:
    """The parts of a request.

    Attributes:
        files: Files by name.
        fields: Texts by name.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)

    def add_file(self, name: str, data: bytes) -> None:
        """Add a file; a repeated name, as of slices in two folders, gets a number in front."""
        if len(self.files) >= MAX_FILES:
            raise UsageError(f"the request holds over {MAX_FILES:,} files", hint="send one CT series")
        while name in self.files:
            name = f"{len(self.files) + 1}-{name}"
        self.files[name] = data


def too_large(limit: int) -> ServiceError:
    """The refusal of a request that is over a limit of bytes."""
    return ServiceError(
        f"the request is over the limit of {limit:,} bytes",
        status=413,
        code="upload-too-large",
        hint="send one CT series alone, compressed, or ask whoever runs the service for a higher limit",
    )


async def body_chunks(request: Request, counted: Counted, *, limit: int, settings: Settings) -> AsyncIterator[bytes]:
    """The body in chunks, as long as the client keeps sending.

    Raises:
        ServiceError: As :meth:`Counted.add`; ``upload-slow`` (408) when it stops or takes too long; ``client-gone``.
    """
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told) > limit:
        raise too_large(limit)
    stream = request.stream().__aiter__()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.receive_s
    while True:
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + settings.idle_s)):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ServiceError(
                "the request did not come in time",
                status=408,
                code="upload-slow",
                hint=f"send it within {settings.receive_s:g} s, without a pause of {settings.idle_s:g} s",
            ) from error
        except ClientDisconnect as error:
            raise ServiceError("the client has gone", status=CLIENT_GONE, code="client-gone") from error
        counted.add(len(chunk), limit=limit)
        if chunk:
            yield chunk


async def whole_body(request: Request, counted: Counted, *, limit: int, settings: Settings) -> bytes:
    """All of a body; errors as :func:`body_chunks`."""
    buffer = BytesIO()
    async for chunk in body_chunks(request, counted, limit=limit, settings=settings):
        buffer.write(chunk)
    return buffer.getvalue()


def media_type(request: Request) -> str:
    """The media type of the body, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def receive(request: Request, counted: Counted, *, settings: Settings) -> Received:
    """A form, or one raw file whose name is in Content-Disposition; errors as :func:`body_chunks`, and UsageError."""
    if media_type(request) == "multipart/form-data":
        return await _form(request, counted, settings)
    disposition = request.headers.get("content-disposition", "")
    extended = _EXTENDED_NAME.search(disposition)
    name = unquote(extended[1]) if extended else _parameters(disposition).get("filename")
    if not name:
        raise UsageError(
            "the request does not say what it sends",
            hint='send a form, JSON, or a file with Content-Disposition: attachment; filename="scan.nii.gz"',
            code="body-unnamed",
        )
    received = Received()
    received.add_file(
        file_name(name), await whole_body(request, counted, limit=settings.upload_bytes, settings=settings)
    )
    return received


async def _form(request: Request, counted: Counted, settings: Settings) -> Received:
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import MultipartParser

    boundary = _parameters(request.headers["content-type"]).get("boundary", "")
    if not boundary:
        raise UsageError("the form has no boundary", hint="let an HTTP library write the form", code="form-damaged")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary.encode("latin-1"), parts.callbacks())
        async for chunk in body_chunks(request, counted, limit=settings.upload_bytes, settings=settings):
            for start in range(0, len(chunk), PARSED_BYTES):
                parser.write(chunk[start : start + PARSED_BYTES])
                await asyncio.sleep(0)
        parser.finalize()
    except (MultipartParseError, UnicodeEncodeError) as error:
        raise UsageError(f"the form is damaged: {error}", hint="send it again", code="form-damaged") from error
    if not parts.ended:
        raise UsageError("the form ends early", hint="send it again", code="form-damaged")
    return parts.received


class _Parts:
    """Collects the parts that the parser finds."""

    def __init__(self) -> None:
        self.received, self.ended, self._begun = Received(), False, 0
        self._buffer = BytesIO()
        self._name = self._value = b""
        self._headers: dict[str, str] = {}

    def callbacks(self) -> Any:  # noqa: ANN401 - a TypedDict of theirs
        """The callbacks for the parser."""
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "end")
        return {f"on_{name}": getattr(self, f"_{name}") for name in names}

    def _part_begin(self) -> None:
        self._buffer, self._headers = BytesIO(), {}
        self._begun += 1
        if self._begun > MAX_FILES + MAX_FIELDS:
            raise UsageError(f"the form has over {MAX_FILES + MAX_FIELDS:,} parts", hint="send one CT series")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._name = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._buffer.write(memoryview(data)[start:end])

    def _part_end(self) -> None:
        told = _parameters(self._headers.get("content-disposition", ""))
        data = self._buffer.getvalue()
        self._buffer = BytesIO()
        if told.get("filename"):
            self.received.add_file(file_name(told["filename"]), data)
        elif len(data) > JSON_BYTES:
            raise too_large(JSON_BYTES)
        else:
            self.received.fields[told.get("name", "")] = data.decode("utf-8", "replace")

    def _end(self) -> None:
        self.ended = True


def _parameters(header: str) -> dict[str, str]:
    """The parameters of a header such as ``form-data; name="file"; filename="scan.nii"``."""
    from python_multipart.multipart import parse_options_header

    _, told = parse_options_header(header.encode("utf-8", "replace"))
    return {name.decode("utf-8", "replace").lower(): value.decode("utf-8", "replace") for name, value in told.items()}


def file_name(given: str) -> str:
    """The last part of a name, on one line: an upload has no folder, and its name is never opened."""
    name = given.replace("\\", "/").rpartition("/")[2]
    kept = "".join(letter for letter in name if letter.isprintable())[-NAME_LETTERS:]
    return kept if kept.strip(" .") else "upload"
