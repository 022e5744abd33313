"""QIDO-RS, WADO-RS and STOW-RS (PS3.18) by dicomweb-client, with the check that it lacks: whether all has arrived."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nodule_diag.ct import MAX_FILES, CTVolume, MemoryFile, read_dicom_files
from nodule_diag.errors import MissingExtraError, PacsError, UsageError
from nodule_diag.process import quiet_pydicom

if TYPE_CHECKING:
    from pydicom import Dataset

CONNECT_S, READ_S = 10.0, 60.0
"""How long a server may take to accept a connection, and between two pieces of an answer."""
BROKEN = ("pacs-unreachable", "pacs-timeout")
"""Errors after which a request may be repeated."""
_Answer = TypeVar("_Answer")
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, eq=False)
class FetchedSeries:
    """A fetched series, in memory.

    Attributes:
        where: The server and the series, for messages.
        files: The DICOM files.
    """

    where: str
    files: tuple[MemoryFile, ...]

    def read(self, *, acquisition: int | None = None, threads: int | None = None) -> CTVolume:
        """Read the CT as `read_ct` reads a folder; same errors."""
        return read_dicom_files(self.files, source=self.where, acquisition=acquisition, threads=threads)


class Pacs:
    """A server that speaks DICOMweb.

    The account comes from the environment (``NODULE_DIAG_DICOMWEB_TOKEN``, or ``..._USER`` and ``..._PASSWORD``) or
    from ``~/.netrc``, never from a command line that others can see. Certificates are always verified.

    Args:
        url: Its root, such as ``https://pacs.example/dicom-web``.

    Raises:
        UsageError: ``pacs-url`` for an invalid address, or one that holds a password.
        MissingExtraError: Without the extra ``pacs``.
    """

    def __init__(self, url: str) -> None:
        try:
            from dicomweb_client import DICOMwebClient

            from nodule_diag.pacs.account import checked_address
            from nodule_diag.pacs.session import session
        except ImportError as error:
            raise MissingExtraError("dicomweb-client", "pacs") from error
        self.url = checked_address(url)
        self._client = DICOMwebClient(self.url, session=session(), timeout=(CONNECT_S, READ_S))
        for name in ("retrying", "dicomweb_client"):  # they would print failures and a server's own warnings to stderr
            logging.getLogger(name).addHandler(logging.NullHandler())
        self._client.set_http_retry_params(retry=False)  # its own retries wait half a minute for a closed port

    def fetch(self, study: str, series: str, *, progress: Callable[[int, int], None] | None = None) -> FetchedSeries:
        """Fetch a whole series.

        To a client, a connection that breaks in the middle of an answer looks like the end of the answer. So the server
        is first asked which objects the series holds. Missing objects are then requested again, one at a time.

        Args:
            study: StudyInstanceUID.
            series: SeriesInstanceUID.
            progress: Called with how many objects have arrived, and of how many: after each page of the list, for each
                object, and before a missing one is requested. An exception ends the fetch.

        Returns:
            Every object that the server says the series holds.

        Raises:
            PacsError: With its own code for each fault; ``pacs-incomplete`` when objects stay missing.
            UsageError: For an invalid UID.
        """
        for uid in (study, series):
            _require_uid(uid)
        progress = progress or (lambda *_: None)
        where = f"{self.url} series {series}"
        coming = _Coming(where, self._instances(study, series, progress), progress)
        self._fetch_series(study, series, coming)
        for uid in coming.missing:
            progress(len(coming.came), len(coming.expected))
            self._fetch_one(study, series, uid, coming)
        if lost := coming.missing:
            raise PacsError(
                f"{where}: {len(coming.came)} of {len(coming.expected)} objects came; missing are"
                f" {', '.join(lost[:3])}{' and others' if len(lost) > 3 else ''}",
                hint="try again; nothing was kept",
                code="pacs-incomplete",
            )
        return FetchedSeries(
            where, tuple(MemoryFile(uid, Path(where), data=coming.came[uid]) for uid in coming.expected)
        )

    def store(self, objects: Iterable[Dataset]) -> None:
        """Store objects, and check the server's answer for each.

        Raises:
            PacsError: ``pacs-refused`` when one was not stored, with the server's reason; or another code.
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

    def _instances(self, study: str, series: str, progress: Callable[[int, int], None]) -> list[str]:
        """UIDs of the series' objects, as the server lists them."""
        uids: dict[str, None] = {}
        while len(uids) <= MAX_FILES:  # a server that ignores the offset repeats its answer
            before = len(uids)
            search = partial(self._listed, study, series, offset=before or None)
            uids |= dict.fromkeys(self._asked(f"finding series {series} of study {study}", search))
            if len(uids) == before:
                break
            progress(0, len(uids))
        if len(uids) > MAX_FILES:
            raise PacsError(
                f"{self.url} lists more than {MAX_FILES:,} objects in series {series}",
                hint="check that the series is one CT",
                code="pacs-too-large",
            )
        if not uids:
            raise PacsError(
                f"{self.url} has no series {series} in study {study}", hint="check both UIDs", code="pacs-not-found"
            )
        return list(uids)

    def _listed(self, study: str, series: str, *, offset: int | None) -> list[str]:
        """One page of the UIDs."""
        page = self._client.search_for_instances(study, series, offset=offset)
        return [_listed_uid(item) for item in page]

    def _fetch_series(self, study: str, series: str, coming: _Coming) -> None:
        """Fetch all objects in one answer, as far as the answer goes."""
        from nodule_diag.pacs.faults import ODD, typed

        try:
            with quiet_pydicom(), typed(self.url, doing=f"fetching series {series}"), suppress(*ODD):
                for dataset in self._client.iter_series(study, series, media_types=AS_STORED):
                    coming.take(dataset)
        except PacsError as error:
            if error.code not in BROKEN:
                raise

    def _fetch_one(self, study: str, series: str, uid: str, coming: _Coming) -> None:
        from nodule_diag.pacs.faults import ODD

        def ask() -> None:
            with suppress(*ODD):
                coming.take(self._client.retrieve_instance(study, series, uid, media_types=AS_STORED))

        self._asked(f"fetching object {uid}", ask)

    def _asked(self, doing: str, ask: Callable[[], _Answer]) -> _Answer:
        """Send a request that is safe to repeat: searching, fetching, and storing under UIDs that stay the same."""
        from nodule_diag.pacs.faults import ODD, typed
        from nodule_diag.pacs.session import BACKOFF_S, TRIES

        for attempt in range(1, TRIES + 1):
            try:
                with quiet_pydicom(), typed(self.url, doing=doing):
                    return ask()
            except ODD as error:
                raise PacsError(
                    f"the answer of {self.url} is not DICOMweb while {doing}",
                    hint="check that the address is the DICOMweb root",
                    code="pacs-failed",
                ) from error
            except PacsError as error:
                if attempt == TRIES or error.code not in BROKEN:
                    raise
                time.sleep(BACKOFF_S * attempt)
        raise AssertionError("the last attempt returns or raises")


class _Coming:
    """The objects of a series, as they arrive.

    Args:
        where: The server and the series, for messages.
        expected: The objects' UIDs.
        progress: Called with how many have arrived, and of how many.
    """

    def __init__(self, where: str, expected: Sequence[str], progress: Callable[[int, int], None]) -> None:
        self.expected = expected
        self.came: dict[str, bytes] = {}
        self._wanted = frozenset(expected)
        self._where, self._progress, self._bytes = where, progress, 0

    @property
    def missing(self) -> list[str]:
        """UIDs of the objects that have not arrived."""
        return [uid for uid in self.expected if uid not in self.came]

    def take(self, dataset: Dataset) -> None:
        """Keep an object, if it belongs to the series.

        Raises:
            PacsError: ``pacs-too-large``.
            EOFError: When the object is incomplete.
        """
        from nodule_diag.pacs.session import MAX_OBJECT_BYTES, too_large

        uid = str(dataset.SOPInstanceUID)
        if uid in self._wanted and uid not in self.came:
            self.came[uid] = _file(dataset)
            self._bytes += len(self.came[uid])
            if self._bytes > MAX_OBJECT_BYTES:
                raise too_large(self._where, MAX_OBJECT_BYTES)
        self._progress(len(self.came), len(self.expected))


AS_STORED = (("application/dicom", "*"),)
"""In whatever transfer syntax the server holds it."""


def _listed_uid(item: dict[str, Any]) -> str:
    """The UID of an object in a listing.

    Raises:
        ValueError: Where there is not exactly one UID: nobody would notice that this object is missing.
    """
    (uid,) = item["00080018"]["Value"]
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        raise ValueError(f"{str(uid)[:80]!r} is not a UID")
    return uid


def _file(dataset: Dataset) -> bytes:
    """The DICOM file of a dataset, byte by byte as it arrived: writing it again would correct its faults.

    Raises:
        EOFError: When pixels are missing, which pydicom accepts.
    """
    from pydicom.pixels.utils import get_expected_length

    if "PixelData" in dataset and not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        there, promised = len(dataset.PixelData), get_expected_length(dataset)
        if there < promised:
            raise EOFError(f"{there:,} of {promised:,} bytes of pixels")
    came = getattr(dataset, "buffer", None)
    if not isinstance(came, BytesIO):
        raise TypeError("dicomweb-client reads objects from elsewhere than their bytes")
    return came.getvalue()


def _require_uid(uid: str) -> None:
    if not _UID.fullmatch(uid):
        raise UsageError(f"{uid!r} is not a DICOM UID", hint="give digits and points, as in 1.2.840.113619")
