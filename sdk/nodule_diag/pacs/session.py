"""HTTP for a PACS: safe requests are repeated, answers are bounded, and an answer that was cut off is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from nodule_diag.ct import MAX_ARCHIVE_BYTES
from nodule_diag.errors import PacsError
from nodule_diag.pacs.account import account

TRIES = 3
BACKOFF_S = 0.5
BUSY = (502, 503, 504)
"""Status codes of a server, or of a proxy before it, that may be gone in a second."""
MAX_TEXT_BYTES = 2**27
"""Largest list: 20,000 objects take about 30 MB."""
MAX_OBJECT_BYTES = MAX_ARCHIVE_BYTES
"""All objects of a series together."""
_EPILOGUE_BYTES = 1024
"""A multipart answer must have its last boundary within this many bytes of its end."""


def session() -> requests.Session:
    """A session with the account of the environment."""
    made = requests.Session()
    again = Retry(
        total=TRIES - 1,
        connect=0,  # `Pacs` asks again
        read=False,
        backoff_factor=BACKOFF_S,
        status_forcelist=BUSY,
        allowed_methods=("GET",),
        raise_on_status=False,
    )
    made.hooks["response"] += [_answered_here, _without_parameters, _whole_and_bounded]
    for scheme in ("https://", "http://"):
        made.mount(scheme, HTTPAdapter(max_retries=again))
    made.auth = account()
    return made


def _answered_here(response: requests.Response, *_: object, **__: object) -> None:
    """Refuse an invalid answer, and a redirect to another server than the one that was named."""
    if response.is_redirect:
        asked, told = urlsplit(response.url), urlsplit(urljoin(response.url, response.headers["Location"]))
        if (told.scheme, told.netloc) not in {(asked.scheme, asked.netloc), ("https", asked.hostname)}:
            raise requests.exceptions.TooManyRedirects(f"it sends on to {told.scheme}://{told.netloc}"[:200])
    elif response.status_code < 200 or 300 <= response.status_code < 400 or response.status_code >= 600:
        raise requests.exceptions.HTTPError(response=response)


def _without_parameters(response: requests.Response, *_: object, **__: object) -> None:
    """Reduce the content type to its plain form: dicomweb-client takes an answer of any other type for empty."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind.endswith(("json", "xml")):
        response.headers["Content-Type"] = kind


def _whole_and_bounded(response: requests.Response, *_: object, **__: object) -> None:
    """Check an answer while it arrives: requests gives all of it through ``iter_content``."""
    objects = "multipart" in response.request.headers.get("Accept", "")
    limit = MAX_OBJECT_BYTES if objects and response.ok else MAX_TEXT_BYTES
    response.iter_content = _watched(response, response.iter_content, limit)  # type: ignore[method-assign]


def _watched(
    response: requests.Response, pieces: Callable[..., Iterator[bytes]], limit: int
) -> Callable[..., Iterator[bytes]]:
    kind, _, parameters = response.headers.get("Content-Type", "").partition(";")
    in_parts = kind.strip().lower() == "multipart/related"
    boundary = next(
        (
            value.strip('"')
            for name, _, value in (text.strip().partition("=") for text in parameters.split(";"))
            if name.lower() == "boundary"
        ),
        "",
    )

    def iter_content(*args: object, **kwargs: object) -> Iterator[bytes]:
        came, end = 0, b""
        for piece in pieces(*args, **kwargs):
            came += len(piece)
            if came > limit:
                response.close()
                raise too_large(response.url, limit)
            end = (end + piece)[-_EPILOGUE_BYTES:]
            yield piece
        if in_parts and boundary and f"--{boundary}--".encode() not in end:
            raise requests.exceptions.ConnectionError("the answer ends before its last boundary")

    return iter_content


def too_large(url: str, limit: int) -> PacsError:
    """The error for an answer with more bytes than any CT has."""
    return PacsError(
        f"{url} answered with more than {limit:,} bytes",
        hint="check that the series is one CT; nothing was kept",
        code="pacs-too-large",
    )
