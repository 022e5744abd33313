"""Handles every request: its id, its permission, the protective headers, one log line and the metrics."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import time

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nodule_diag.errors import NoduleDiagError
from nodule_diag.service.metrics import Metrics
from nodule_diag.service.problems import CLIENT_GONE, MEDIA_TYPE, ServiceError, problem, status_of, unforeseen
from nodule_diag.service.settings import LOOPBACK, Settings

REQUESTS = logging.getLogger("nodule_diag.service")
HEALTH = ("/v2/health/live", "/v2/health/ready")
OPEN = ("/", "/docs", "/openapi.json", *HEALTH)
OPEN_BELOW = ("/assets/", "/docs/")
"""Paths that need no token: they are the same for everyone and hold no patient data."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " frame-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PROTECTION = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": PAGE_POLICY,
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not set them itself."""
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


class Gatekeeper:
    """ASGI middleware around the whole application.

    Args:
        app: The application.
        settings: Who may use it.
        metrics: Counts the requests.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._names = {name.lower() for name in settings.names}
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        answered = _Answered(send, request_id)
        started = time.perf_counter()
        self._open += 1
        try:
            self._require_allowed(scope["path"], headers)
            await self._app(scope, receive, answered)
        except ClientDisconnect:
            answered.status, answered.code = CLIENT_GONE, "client-gone"
        except Exception as error:  # noqa: BLE001 - the outermost boundary: no client sees a traceback
            if not isinstance(error, NoduleDiagError):
                REQUESTS.error("a request failed by a bug: %s", type(error).__name__)
            if not answered.begun:
                await problem_response(unforeseen(error), scope)(scope, receive, answered)
        finally:
            self._open -= 1
            route = getattr(scope.get("route"), "path", "unknown")
            seconds = time.perf_counter() - started
            self._metrics.request(scope["method"], route, answered.status, seconds)
            REQUESTS.info(
                "request",
                extra={
                    "fields": {
                        "request_id": request_id,
                        "method": scope["method"] if scope["method"].isalpha() else "?",
                        "route": route,
                        "status": answered.status,
                        "code": answered.code,
                        "ms": round(1000 * seconds, 1),
                        "bytes_out": answered.bytes,
                    }
                },
            )

    def _require_allowed(self, path: str, headers: Headers) -> None:
        """Refuse requests without permission, and requests of other servers' pages in a browser on this machine.

        Raises:
            ServiceError: ``host-refused``, ``origin-refused``, ``token-refused`` or ``connections-full``.
        """
        host = headers.get("host", "")
        names = self._names
        if self._settings.is_local and _name_of(host) not in (*LOOPBACK, *names):  # a foreign name: DNS rebinding
            raise ServiceError(
                f"the request is for host {host[:80]!r}, which is not this service",
                status=421,
                code="host-refused",
                hint="ask for 127.0.0.1, or start the service with --name HOST",
            )
        origin = headers.get("origin", f"http://{host}").partition("://")[2]
        if origin != host and _name_of(origin) not in names:
            raise ServiceError(
                f"the request comes from a page of {origin[:80]!r}, another server",
                status=403,
                code="origin-refused",
                hint="use the page of this service, or start the service with --name HOST",
            )
        if self._open > self._settings.connections and path not in HEALTH:
            raise ServiceError(
                f"{self._open} requests are open, over the limit of {self._settings.connections}",
                status=503,
                code="connections-full",
                hint="ask again later",
                retry_after_s=1.0,
            )
        if self._settings.token is None or path in OPEN or path.startswith(OPEN_BELOW):
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self._settings.token.encode()):
            raise ServiceError(
                "the request bears no valid token",
                status=401,
                code="token-refused",
                hint="send Authorization: Bearer TOKEN",
            )


def problem_response(error: NoduleDiagError, scope: Scope) -> JSONResponse:
    """An error as an answer to a request; the Open Inference Protocol needs an extra field for it."""
    headers = {"X-Problem-Code": error.code}
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(retry_after_s)))
    status = status_of(error)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    document = problem(error, request_id=scope["state"]["request_id"])
    if scope["path"].startswith("/v2"):
        document["error"] = document["detail"]
    return JSONResponse(document, status, headers, media_type=MEDIA_TYPE)


def _name_of(host: str) -> str:
    """The name in ``name:port``, or ``[::1]:port``."""
    return (host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]).lower()


class _Answered:
    """``send``, which also adds headers and counts bytes."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.begun, self.status, self.bytes, self.code = False, 500, 0, ""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            headers = MutableHeaders(scope=message)
            self.code = headers.get("x-problem-code", "")
            headers["X-Request-ID"] = self._request_id
            for name, value in PROTECTION.items():
                headers.setdefault(name, value)
        self.bytes += len(message.get("body", b""))
        await self._send(message)
