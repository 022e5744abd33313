"""Runs the application in uvicorn: slow clients are disconnected, and running work is finished before it stops."""

from __future__ import annotations

import asyncio
import os
import socket
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import UsageError
from nodule_diag.process import LOG
from nodule_diag.service.app import create_app
from nodule_diag.service.logs import log_as_json
from nodule_diag.service.service import Service
from nodule_diag.service.settings import Settings

FLUSH_S = 5
"""Seconds in which clients must take finished answers, once work has ended."""
BACKLOG = 2048
"""Connections that may wait to be accepted; uvicorn's own default."""
HEAD_BYTES = 32 * 1024
"""The most bytes of the head of a request."""
REFUSED_AT = 4
"""Connections, in multiples of the limit, above which uvicorn itself refuses, without a problem document."""


def serve(settings: Settings, diagnoser: Diagnoser, *, cases: str | os.PathLike[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then finish running work, reject waiting work, and return.

    Args:
        settings: Its address, users and limits.
        diagnoser: The loaded network.
        cases: The file of its case base, where it is not the bundle's own.

    Raises:
        UsageError: ``address-refused`` when the server cannot listen at the address.
    """
    log_as_json()
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {settings.host}, port {settings.port}: {error.strerror or error}",
            hint="give another --host or --port",
            code="address-refused",
        ) from error
    with listening:
        LOG.info("listening at port %d", listening.getsockname()[1])
        server_of(settings, diagnoser, cases=cases).run(sockets=[listening])


def server_of(
    settings: Settings, diagnoser: Diagnoser, *, cases: str | os.PathLike[str] | None = None
) -> uvicorn.Server:
    """The server that :func:`serve` runs; same arguments."""
    app = create_app(settings, diagnoser, cases=cases)

    class ImpatientProtocol(_Impatient):
        idle_s = settings.idle_s

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=ImpatientProtocol,
        loop="asyncio",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=REFUSED_AT * settings.connections,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_graceful_shutdown=FLUSH_S,
    )
    return _Server(config, app.state.service)


class _Server(uvicorn.Server):
    """Keeps answering while work is finished, so that a load balancer sees that the service is no longer ready."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[Any] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        if self._loop is None or not self._service.ready:  # not yet started, or signalled twice
            self.should_exit = True
            self.force_exit = self._loop is not None
            return
        self._service.ready = False
        self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._draining = asyncio.ensure_future(self._finish())

    async def _finish(self) -> None:
        await asyncio.to_thread(self._service.work.stop, seconds=self._service.settings.stop_s)
        self.should_exit = True


class _Impatient(H11Protocol):
    """Disconnects clients that do not send the head of a request or take an answer; uvicorn would wait for ever."""

    idle_s = 20.0
    _untaken: asyncio.TimerHandle | None = None
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """Called when much of an answer waits for the client."""
        super().pause_writing()
        self._untaken = self.loop.call_later(self.idle_s, self.transport.abort)  # close() would wait for the client

    def resume_writing(self) -> None:
        """Called when the client has taken the answer."""
        super().resume_writing()
        self._stop_untaken()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called at the end."""
        self._stop_waiting()
        self._stop_untaken()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Limit the time for a head, from the start of a connection or from the end of the last answer.

        A body that an answer did not wait for must end in this time too, because its bytes keep the connection open.
        """
        unread = self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE
        if self.conn.their_state is not h11.IDLE and not unread:
            self._stop_waiting()
        elif self._patience is None and not self.transport.is_closing():
            self._patience = self.loop.call_later(self.idle_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _stop_untaken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None
