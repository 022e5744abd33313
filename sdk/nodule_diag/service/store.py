"""The CTs in memory: limited in number, size and time; a CT in use is never removed."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nodule_diag.ct import CTVolume, DicomFile
from nodule_diag.results import Prediction
from nodule_diag.service.problems import ServiceError
from nodule_diag.service.requests import Question

REMEMBERED = 128
"""Nodules whose diagnoses are kept with a CT, about 0.1 MB each; the last prediction is always kept."""


@dataclass(frozen=True)
class ReadCT:
    """A CT as it was read.

    Attributes:
        ct: The volume.
        files: Its DICOM files, where they are not on a disk; a report object copies their headers.
        files_bytes: Their size.
        read_ms: How long reading took.
        suggested: Positions to try, LPS mm; only for the made-up chest.
    """

    ct: CTVolume
    files: Sequence[DicomFile] | None = None
    files_bytes: int = 0
    read_ms: float = 0.0
    suggested: tuple[tuple[float, float, float], ...] = ()

    @property
    def bytes(self) -> int:
        """Its bytes in memory."""
        return int(self.ct.hu.nbytes) + self.files_bytes


@dataclass(eq=False)
class HeldCT:
    """A CT in the store.

    Attributes:
        id: Its id for requests; cannot be guessed.
        read: The CT.
        predictions: Its predictions, by question; the oldest are removed first.
        leases: How many pieces of work use it now.
        used: When it was last used, on the monotonic clock.
    """

    id: str
    read: ReadCT
    used: float
    predictions: OrderedDict[str, tuple[Question, Prediction]] = field(default_factory=OrderedDict)
    leases: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def remember(self, question: Question, prediction: Prediction) -> None:
        """Keep a prediction for the next request with the same question."""
        with self._lock:
            self.predictions[question.key()] = question, prediction
            nodules = sum(len(known.diagnoses) for _, known in self.predictions.values())
            while nodules > REMEMBERED and len(self.predictions) > 1:
                nodules -= len(self.predictions.popitem(last=False)[1][1].diagnoses)

    def known(self) -> dict[str, tuple[Question, Prediction]]:
        """A copy of the current predictions, the latest last; other threads may add more."""
        with self._lock:
            return dict(self.predictions)


class CTStore:
    """Holds CTs; any thread may use it.

    Args:
        count: CTs at a time.
        limit_bytes: Their memory.
        expires_s: Seconds for which a CT is held after it was last used.
        clock: Monotonic seconds.

    Attributes:
        spare: Called when there is no room: releases what has a lease and is not needed, and returns whether it did. It
            may release leases within the store's lock.
    """

    def __init__(
        self, *, count: int, limit_bytes: int, expires_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count, self._limit, self._expires_s, self._clock = count, limit_bytes, expires_s, clock
        self._held: OrderedDict[str, HeldCT] = OrderedDict()  # least recently used first
        self._unlisted: dict[str, HeldCT] = {}  # deleted or for one request only, and still in use
        self._lock = threading.RLock()
        self.spare: Callable[[], bool] = lambda: False

    def add(self, read: ReadCT) -> HeldCT:
        """Hold a CT; where needed, the least recently used CTs are removed.

        Raises:
            ServiceError: ``ct-store-full`` when all CTs that would have to be removed are in use, ``ct-too-large``
                when this CT alone is over the store's limit.
        """
        held = HeldCT(_new_id(), read, self._clock())
        with self._lock:
            self._make_room(read.bytes)
            self._held[held.id] = held
        return held

    @contextmanager
    def for_one_request(self, read: ReadCT) -> Iterator[HeldCT]:
        """Hold a CT that no other request can name, for as long as the block runs; errors as :meth:`add`."""
        held = HeldCT(_new_id(), read, self._clock(), leases=1)
        with self._lock:
            self._make_room(read.bytes)
            self._unlisted[held.id] = held
        try:
            yield held
        finally:
            self._release(held)

    @contextmanager
    def lease(self, ct_id: str) -> Iterator[HeldCT]:
        """Use a CT: it is not removed while the block runs.

        Raises:
            ServiceError: ``ct-expired-or-unknown``.
        """
        with self._lock:
            held = self._found(ct_id)
            held.leases += 1
        try:
            yield held
        finally:
            self._release(held)

    def get(self, ct_id: str) -> HeldCT:
        """A CT, which may be removed at any time; errors as :meth:`lease`."""
        with self._lock:
            return self._found(ct_id)

    def remove(self, ct_id: str) -> None:
        """Remove a CT; work that already uses the CT can still finish. Errors as :meth:`lease`."""
        with self._lock:
            held = self._found(ct_id)
            del self._held[ct_id]
            if held.leases:
                self._unlisted[ct_id] = held

    def sweep(self) -> None:
        """Remove expired CTs."""
        with self._lock:
            self._expire()

    def clear(self) -> None:
        """Remove all CTs."""
        with self._lock:
            self._held.clear()

    def documents(self) -> list[dict[str, Any]]:
        """Documents of all CTs that can be named, the latest used last."""
        with self._lock:
            self._expire()
            return [self._document(held) for held in self._held.values()]

    def document(self, held: HeldCT) -> dict[str, Any]:
        """The document of a CT for a client."""
        with self._lock:
            return self._document(held)

    @property
    def counts(self) -> tuple[int, int]:
        """How many CTs there are, and their bytes."""
        with self._lock:
            everyone = [*self._held.values(), *self._unlisted.values()]
            return len(everyone), sum(held.read.bytes for held in everyone)

    def _document(self, held: HeldCT) -> dict[str, Any]:
        ct = held.read.ct
        return {
            "id": held.id,
            "name": ct.path.rpartition("/")[2],
            "size_xyz": list(ct.size_xyz),
            "spacing_xyz_mm": list(ct.spacing_xyz_mm),
            "origin_lps_mm": list(ct.origin_xyz_mm),
            "axes": [column.tolist() for column in np.asarray(ct.direction).T],
            "orientation": ct.stored_orientation,
            "dicom": ct.dicom is not None,
            "warnings": list(ct.warnings),
            "expires_s": max(0, round(self._expires_s - (0 if held.leases else self._clock() - held.used))),
            "suggested": [list(point) for point in held.read.suggested],
        }

    def _found(self, ct_id: str) -> HeldCT:
        self._expire()
        held = self._held.get(ct_id)
        if held is None:
            raise ServiceError(
                f"there is no CT {ct_id[:80]!r}; it may have expired",
                status=404,
                code="ct-expired-or-unknown",
                hint="send the CT again: POST /v1/cts",
            )
        held.used = self._clock()
        self._held.move_to_end(ct_id)
        return held

    def _release(self, held: HeldCT) -> None:
        with self._lock:
            held.leases -= 1
            held.used = self._clock()
            if not held.leases:
                self._unlisted.pop(held.id, None)

    def _expire(self) -> None:
        now = self._clock()
        for held in list(self._held.values()):
            if not held.leases and now - held.used > self._expires_s:
                del self._held[held.id]

    def _make_room(self, wanted: int) -> None:
        self._expire()
        if wanted > self._limit:
            raise ServiceError(
                f"the CT takes {wanted:,} bytes of memory, over the limit of {self._limit:,}",
                status=413,
                code="ct-too-large",
                hint="give one CT series alone, or ask whoever runs the service for a higher limit",
            )
        while not self._has_room(wanted):
            idle = next((held.id for held in self._held.values() if not held.leases), None)
            if idle is not None:
                del self._held[idle]
            elif not self.spare():
                raise ServiceError(
                    "all CTs that are held are in use",
                    status=503,
                    code="ct-store-full",
                    hint="ask again later, or delete a CT that is no longer needed: DELETE /v1/cts/ID",
                    retry_after_s=5.0,
                )

    def _has_room(self, wanted: int) -> bool:
        everyone = [*self._unlisted.values(), *self._held.values()]
        return len(everyone) < self._count and sum(held.read.bytes for held in everyone) + wanted <= self._limit


def _new_id() -> str:
    return secrets.token_urlsafe(12)
