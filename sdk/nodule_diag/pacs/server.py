"""QIDO-RS, WADO-RS and STOW-RS (PS3.18) by dicomweb-client, with what it leaves open: whether everything has come."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from nodule_diag.ct import MAX_FILES, CTVolume, MemoryFile, read_dicom_files
from nodule_diag.errors import MissingExtraError, PacsError, UsageError
from nodule_diag.process import quiet_pydicom

if TYPE_CHECKING:
    import requests
    from pydicom import Dataset

CONNECT_S, READ_S = 10.0, 60.0
"""How long a server may take to accept a connection, and between two pieces of an answer."""
TRIES = 3
BROKEN = ("pacs-unreachable", "pacs-timeout")
"""Errors after which the same may be asked again."""
BACKOFF_S = 0.5
BUSY = (502, 503, 504)
"""Answers of a server, or of what stands before it, that may be gone in a second."""
TOKEN, USER, PASSWORD = (f"NODULE_DIAG_DICOMWEB_{name}" for name in ("TOKEN", "USER", "PASSWORD"))
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_Answer = TypeVar("_Answer")
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, eq=False)
class FetchedSeries:
    """A series as it came, in memory.

    Attributes:
        where: The server and the series, for messages.
        files: The DICOM files.
    """

    where: str
    files: tuple[MemoryFile, ...]

    def read(self, *, acquisition: int | None = None, threads: int | None = None) -> CTVolume:
        """The CT, as `read_ct` reads it from a folder; same errors."""
        return read_dicom_files(self.files, source=self.where, acquisition=acquisition, threads=threads)


class Pacs:
    """A server that speaks DICOMweb.

    The account comes from the environment (``NODULE_DIAG_DICOMWEB_TOKEN``, or ``..._USER`` and ``..._PASSWORD``) or
    from ``~/.netrc``, never from a command line that others can see. Certificates are always verified.

    Args:
        url: Its root, such as ``https://pacs.example/dicom-web``.

    Raises:
        UsageError: ``pacs-url`` for what is no such address, or one that holds a password.
        MissingExtraError: Without the extra ``pacs``.
    """

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        try:
            from dicomweb_client import DICOMwebClient
        except ImportError as error:
            raise MissingExtraError("dicomweb-client", "pacs") from error
        self._client = DICOMwebClient(self.url, session=_session(), timeout=(CONNECT_S, READ_S))
        for name in ("retrying", "dicomweb_client"):  # they would print failures and a server's own warnings to stderr
            logging.getLogger(name).addHandler(logging.NullHandler())
        self._client.set_http_retry_params(retry=False)  # its own wait half a minute for a closed port

    def fetch(self, study: str, series: str, *, progress: Callable[[int, int], None] | None = None) -> FetchedSeries:
        """Fetch a series whole.

        A connection that is cut in the middle of an answer looks like the end of it to every client. So the server is
        asked first what the series holds; what has not come is asked for again, one object at a time.

        Args:
            study: StudyInstanceUID.
            series: SeriesInstanceUID.
            progress: Called with how many objects have come, and of how many.

        Returns:
            Every object that the server says the series holds.

        Raises:
            PacsError: With a code of its own for each fault; ``pacs-incomplete`` when something stays missing.
            UsageError: For what is no UID.
        """
        for uid in (study, series):
            _require_uid(uid)
        where = f"{self.url} series {series}"
        expected = self._instances(study, series)
        came: dict[str, bytes] = {}
        self._fetch_series(study, series, expected, came, progress)
        for missing in [uid for uid in expected if uid not in came]:
            self._fetch_one(study, series, missing, came)
        lost = [uid for uid in expected if uid not in came]
        if lost:
            raise PacsError(
                f"{where}: {len(expected) - len(lost)} of {len(expected)} objects came; missing are"
                f" {', '.join(lost[:3])}{' and others' if len(lost) > 3 else ''}",
                hint="try again; nothing was kept",
                code="pacs-incomplete",
            )
        return FetchedSeries(where, tuple(MemoryFile(uid, Path(where), data=came[uid]) for uid in expected))

    def store(self, objects: Iterable[Dataset]) -> None:
        """Store objects, and look at what the server says of each.

        Raises:
            PacsError: ``pacs-refused`` when one was not stored, with the server's reason; or another.
        """
        from nodule_diag.pacs.faults import failed_objects, stored_objects

        kept = list(objects)

        def ask() -> tuple[str, set[str]]:
            answer = self._client.store_instances(kept)
            return failed_objects(answer), stored_objects(answer)

        failed, told = self._asked(f"storing {len(kept)} objects", ask)
        if failed:
            raise PacsError(
                f"{self.url} did not store everything{failed}",
                hint="look into the server's log; what was stored has the same UIDs when it is sent again",
                code="pacs-refused",
            )
        if untold := [str(item.SOPInstanceUID) for item in kept if str(item.SOPInstanceUID) not in told]:
            raise PacsError(
                f"{self.url} does not say that it stored {len(untold)} of {len(kept)} objects: {', '.join(untold[:3])}",
                hint="check that the address is the DICOMweb root, and look into the server's log",
                code="pacs-refused",
            )

    def _instances(self, study: str, series: str) -> list[str]:
        """UIDs of the series' objects, as the server counts them."""
        uids: dict[str, None] = {}

        def search(offset: int) -> dict[str, None]:
            page = self._client.search_for_instances(study, series, offset=offset or None)
            return dict.fromkeys(_listed_uid(item) for item in page)

        while len(uids) <= MAX_FILES:  # a server that knows no offset gives the same again
            before = len(uids)
            uids |= self._asked(f"finding series {series} of study {study}", partial(search, before))
            if len(uids) == before:
                break
        if not uids:
            raise PacsError(
                f"{self.url} has no series {series} in study {study}", hint="check both UIDs", code="pacs-not-found"
            )
        return list(uids)

    def _fetch_series(
        self,
        study: str,
        series: str,
        expected: Sequence[str],
        came: dict[str, bytes],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """All objects in one answer. The last one that came may have lost its end, so it is asked for again."""
        from nodule_diag.pacs.faults import ODD, typed

        wanted = set(expected)
        last = ""
        try:
            with quiet_pydicom(), typed(self.url, doing=f"fetching series {series}"), suppress(*ODD):
                for dataset in self._client.iter_series(study, series, media_types=AS_STORED):
                    uid = str(dataset.SOPInstanceUID)
                    if uid in wanted:
                        came[uid], last = _file(dataset), uid
                        if progress is not None:
                            progress(len(came), len(expected))
        except PacsError as error:
            if error.code not in BROKEN:
                raise
        came.pop(last, None)

    def _fetch_one(self, study: str, series: str, uid: str, came: dict[str, bytes]) -> None:
        from nodule_diag.pacs.faults import ODD

        def ask() -> bytes | None:
            with suppress(*ODD):
                return _file(self._client.retrieve_instance(study, series, uid, media_types=AS_STORED))
            return None

        if (data := self._asked(f"fetching object {uid}", ask)) is not None:
            came[uid] = data

    def _asked(self, doing: str, ask: Callable[[], _Answer]) -> _Answer:
        """The answer to what is safe to ask again: searching, fetching, and storing under UIDs that stay the same."""
        from nodule_diag.pacs.faults import ODD, typed

        for attempt in range(1, TRIES + 1):
            try:
                with quiet_pydicom(), typed(self.url, doing=doing):
                    return ask()
            except ODD as error:
                raise PacsError(
                    f"{self.url} answered something else than it should while {doing}",
                    hint="check that the address is the DICOMweb root",
                    code="pacs-failed",
                ) from error
            except PacsError as error:
                if attempt == TRIES or error.code not in BROKEN:
                    raise
                time.sleep(BACKOFF_S * attempt)
        raise AssertionError("the last attempt returns or raises")


AS_STORED = (("application/dicom", "*"),)
"""In whatever transfer syntax the server holds it."""


def _listed_uid(item: dict[str, Any]) -> str:
    """The UID of an object in a listing.

    Raises:
        ValueError: Where there is not one: that object could not be missed.
    """
    (uid,) = item["00080018"]["Value"]
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        raise ValueError(f"{str(uid)[:80]!r} is no UID")
    return uid


def _file(dataset: Dataset) -> bytes:
    """A dataset as a DICOM file."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _session() -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    again = Retry(
        total=TRIES - 1,
        connect=0,  # `_asked` asks again
        read=False,
        backoff_factor=BACKOFF_S,
        status_forcelist=BUSY,
        allowed_methods=("GET",),
        raise_on_status=False,
    )
    session.hooks["response"] += [_answered_here, _without_parameters]
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=again))
    if token := os.environ.get(TOKEN):
        session.auth = _Bearer(token)
    elif user := os.environ.get(USER):
        session.auth = (user, os.environ.get(PASSWORD, ""))
    return session


def _answered_here(response: requests.Response, *_: object, **__: object) -> None:
    """Refuse an answer that is none, and one that sends us to another server than the one that was named."""
    import requests

    if response.is_redirect:
        asked, told = urlsplit(response.url), urlsplit(urljoin(response.url, response.headers["Location"]))
        if (told.scheme, told.netloc) not in {(asked.scheme, asked.netloc), ("https", asked.hostname)}:
            raise requests.exceptions.TooManyRedirects(f"it sends on to {told.scheme}://{told.netloc}"[:200])
    elif response.status_code < 200 or 300 <= response.status_code < 400 or response.status_code >= 600:
        raise requests.exceptions.HTTPError(response=response)


def _without_parameters(response: requests.Response, *_: object, **__: object) -> None:
    """dicomweb-client reads an answer of the plain type alone, and takes any other for an empty one."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind.endswith(("json", "xml")):
        response.headers["Content-Type"] = kind


class _Bearer:
    """Beats an account in ~/.netrc, which a header would not."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - a number that is none is found out here
    except ValueError as error:
        raise UsageError(
            f"{url!r} is not the address of a DICOMweb server ({error})",
            hint="give its root, such as https://pacs.example/dicom-web",
            code="pacs-url",
        ) from error
    if parts.username or parts.password:
        raise UsageError(
            "the address of the DICOMweb server holds an account, which others can read on the command line",
            hint=f"set {USER} and {PASSWORD}, or write the account into ~/.netrc",
            code="pacs-url",
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(
            f"{url!r} is not the address of a DICOMweb server",
            hint="give its root, such as https://pacs.example/dicom-web",
            code="pacs-url",
        )
    secret = os.environ.get(TOKEN) or os.environ.get(USER)
    if secret and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise UsageError(
            f"{url} is not encrypted, and an account would be sent there for all to read",
            hint="give its https:// address",
            code="pacs-url",
        )
    return url.rstrip("/")


def _require_uid(uid: str) -> None:
    if not _UID.fullmatch(uid):
        raise UsageError(f"{uid!r} is no DICOM UID", hint="give digits and points, as in 1.2.840.113619")
