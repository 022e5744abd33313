"""The failures of a server as typed errors."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from pydicom import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from nodule_diag.errors import PacsError

DENIED, NOT_FOUND, CONFLICT, FULL = (401, 403), (404, 410), (400, 409), (507,)
ODD = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, NotImplementedError),
    *(EOFError, SyntaxError, BytesLengthException, InvalidDicomError, struct.error, zlib.error),  # SyntaxError: XML's
)
"""What dicomweb-client and pydicom raise for an answer that was cut off, or that has another form."""


@contextmanager
def typed(url: str, *, doing: str) -> Iterator[None]:
    """Turn what requests raises into a :class:`PacsError`.

    Args:
        url: The server's address, for messages; it holds no password.
        doing: What was asked for, as in "finding series 1.2.3".
    """
    try:
        yield
    except requests.exceptions.HTTPError as error:
        raise _refused(url, doing, error.response) from error
    except requests.exceptions.SSLError as error:
        raise PacsError(
            f"{url} cannot prove who it is: {_short(error)}",
            hint="give the site's certificate with REQUESTS_CA_BUNDLE=FILE",
            code="pacs-untrusted",
        ) from error
    except requests.exceptions.Timeout as error:
        raise PacsError(
            f"{url} did not answer in time while {doing}", hint="try again later", code="pacs-timeout"
        ) from error
    except requests.exceptions.JSONDecodeError as error:
        raise PacsError(
            f"the answer of {url} is not DICOM JSON while {doing}",
            hint="check that the address is the DICOMweb root",
            code="pacs-failed",
        ) from error
    except PacsError:
        raise
    except requests.exceptions.TooManyRedirects as error:
        raise PacsError(
            f"{url} does not answer itself while {doing}: {_short(error)}",
            hint="give the address that it sends on to, if you trust it",
            code="pacs-failed",
        ) from error
    except (requests.exceptions.RequestException, ConnectionError) as error:
        raise PacsError(
            f"the connection to {url} failed while {doing}: {_short(error)}",
            hint="check the address, and that the server runs",
            code="pacs-unreachable",
        ) from error


def _refused(url: str, doing: str, response: requests.Response | None) -> PacsError:
    status = 0 if response is None else response.status_code
    said = "" if response is None else _reasons(response)
    message = f"{url} answered {status} while {doing}{said}"
    if status in DENIED:
        hint = "set NODULE_DIAG_DICOMWEB_TOKEN, or _USER and _PASSWORD, or write the account into ~/.netrc"
        return PacsError(message, hint=hint, code="pacs-denied")
    if status in NOT_FOUND:
        return PacsError(message, hint="check the address and the UIDs", code="pacs-not-found")
    if status in CONFLICT:
        return PacsError(
            message, hint="the server does not take these objects: ask its administrator", code="pacs-refused"
        )
    if status in FULL:
        return PacsError(message, hint="free space on the server, and send the objects again", code="pacs-full")
    return PacsError(message, hint="look into the server's log, and try again later", code="pacs-failed")


def _reasons(response: requests.Response) -> str:
    """Why each object was refused, from the body of an answer to STOW (PS3.18 10.5)."""
    try:
        return failed_objects(Dataset.from_json(_first(response.json())))
    except (requests.exceptions.RequestException, *ODD):  # the body may be cut off, too
        return ""


def _first(document: object) -> str:
    return json.dumps(document[0] if isinstance(document, list) and document else document)


def failed_objects(answer: Dataset) -> str:
    """The objects of FailedSOPSequence with their reasons; empty when none failed."""
    failed = [
        f"{item.get('ReferencedSOPInstanceUID', 'an object')} (reason {int(item.get('FailureReason', 0)):#06x})"
        for item in answer.get("FailedSOPSequence", None) or []
    ]
    return f": not stored: {', '.join(failed)}" if failed else ""


def stored_objects(answer: Dataset) -> set[str]:
    """The UIDs of the objects that an answer to STOW says are stored."""
    return {str(item.get("ReferencedSOPInstanceUID", "")) for item in answer.get("ReferencedSOPSequence", None) or []}


def _short(error: Exception) -> str:
    """The last cause, in one line."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    return (str(cause) or type(cause).__name__).splitlines()[0][:200]
