"""Errors as RFC 9457 problem documents, with the codes of the command line."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from nodule_diag.errors import (
    BackendError,
    BundleError,
    CoordinateError,
    CTError,
    NoduleDiagError,
    OutputError,
    PacsError,
    UsageError,
    bounded,
)

MEDIA_TYPE = "application/problem+json"
CLIENT_GONE = 499
"""The usual status in logs for a client that disconnected; no RFC defines it."""
STATUS: dict[type[NoduleDiagError], int] = {
    UsageError: 400,
    CTError: 422,
    CoordinateError: 422,
    BundleError: 500,
    BackendError: 503,
    PacsError: 502,
    OutputError: 500,
    NoduleDiagError: 500,
}
"""Status of each kind of error; the nearest base class decides."""
STATUS_OF_CODE = {
    "ct-missing-path": 404,
    "ct-too-large": 413,
    "ct-archive-too-large": 413,
    "ct-unsupported-format": 415,
    "not-dicom": 422,
    "pacs-not-found": 404,
    "pacs-timeout": 504,
    "missing-extra": 501,
    "inference-timeout": 504,
}
"""Codes with a more specific status than their class."""


class ServiceError(NoduleDiagError):
    """An error that only the server has.

    Args:
        message: What is wrong.
        status: HTTP status.
        code: Stable identifier for programs.
        hint: What to do about it.
        retry_after_s: When to ask again.
    """

    def __init__(
        self, message: str, *, status: int, code: str, hint: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.status, self.retry_after_s = status, retry_after_s


def status_of(error: NoduleDiagError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, ServiceError):
        return error.status
    if error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(error: NoduleDiagError, *, request_id: str) -> dict[str, Any]:
    """The problem document of an error."""
    status = status_of(error)
    return {
        "type": f"urn:nodule-diag:problem:{error.code}",
        "title": "Client Closed Request" if status == CLIENT_GONE else HTTPStatus(status).phrase,
        "status": status,
        "detail": bounded(error.message),
        "code": error.code,
        "hint": bounded(error.hint),
        "request_id": request_id,
    }


def unforeseen(error: BaseException) -> NoduleDiagError:
    """The error that a client sees for a bug or for missing memory: without any of the request's data."""
    if isinstance(error, NoduleDiagError):
        return error
    if isinstance(error, MemoryError):
        return ServiceError("not enough memory", status=507, code="out-of-memory", hint="give a smaller CT")
    return ServiceError(
        f"{type(error).__name__} in the service", status=500, code="unforeseen", hint="this is a bug: report it"
    )
