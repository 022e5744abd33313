"""The CTs that are held in memory: so many, so large, so long, and none that is in use ever goes."""

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
"""Nodules whose diagnoses are kept with a CT, each some 0.1 MB; the last prediction is kept whatever it has."""


@dataclass(frozen=True)
class ReadCT:
    """A CT as it was read.

    Attributes:
        ct: The volume.
        files: Its DICOM files, where they are on no disk; a report object takes their headers over.
        files_bytes: Their size.
        read_ms: How long reading took.
        suggested: Positions to try, LPS mm; of the made-up chest alone.
    """

    ct: CTVolume
    files: Sequence[DicomFile] | None = None
    files_bytes: int = 0
    read_ms: float = 0.0
    suggested: tuple[tuple[float, float, float], ...] = ()

    @property
    def bytes(self) -> int:
        """Of memory."""
        return int(self.ct.hu.nbytes) + self.files_bytes


@dataclass(eq=False)
class HeldCT:
    """A CT in the store.

    Attributes:
        id: What a request calls it by; cannot be guessed.
        read: The CT.
        predictions: Those that were made, by what was asked for; the oldest go first.
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
        """Keep a prediction for whoever asks the same again."""
        with self._lock:
            self.predictions[question.key()] = question, prediction
            nodules = sum(len(known.diagnoses) for _, known in self.predictions.values())
            while nodules > REMEMBERED and len(self.predictions) > 1:
                nodules -= len(self.predictions.popitem(last=False)[1][1].diagnoses)

    def known(self) -> dict[str, tuple[Question, Prediction]]:
        """The predictions as they are now, the latest last; other threads go on remembering."""
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
        spare: Called when there is no room: lets something go that has a lease and can be done without; whether it
            did. It may release leases, from within the store's lock.
    """

    def __init__(
        self, *, count: int, limit_bytes: int, expires_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count, self._limit, self._expires_s, self._clock = count, limit_bytes, expires_s, clock
        self._held: OrderedDict[str, HeldCT] = OrderedDict()  # least recently used first
        self._unlisted: dict[str, HeldCT] = {}  # deleted, or of one request alone, and still in use
        self._lock = threading.RLock()
        self.spare: Callable[[], bool] = lambda: False

    def add(self, read: ReadCT) -> HeldCT:
        """Hold a CT, where need be in the place of those that were not used for longest.

        Raises:
            ServiceError: ``ct-store-full`` when all that would have to go are in use, ``ct-too-large`` when it alone
                is more than the store holds.
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
        """Use a CT: while the block runs it does not go.

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
        """A CT, which may go at any time; errors as :meth:`lease`."""
        with self._lock:
            return self._found(ct_id)

    def remove(self, ct_id: str) -> None:
        """Let a CT go; work that uses it is finished. Errors as :meth:`lease`."""
        with self._lock:
            held = self._found(ct_id)
            del self._held[ct_id]
            if held.leases:
                self._unlisted[ct_id] = held

    def sweep(self) -> None:
        """Let those go that have expired."""
        with self._lock:
            self._expire()

    def clear(self) -> None:
        """Let all go."""
        with self._lock:
            self._held.clear()

    def documents(self) -> list[dict[str, Any]]:
        """All that can be named, the latest used last."""
        with self._lock:
            self._expire()
            return [self._document(held) for held in self._held.values()]

    def document(self, held: HeldCT) -> dict[str, Any]:
        """What a client is told of a CT."""
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
                "there is no such CT; it may have expired",
                status=404,
                code="ct-expired-or-unknown",
                hint="send it again: POST /v1/cts",
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
                    hint="ask again later, or delete what is no longer needed: DELETE /v1/cts/ID",
                    retry_after_s=5.0,
                )

    def _has_room(self, wanted: int) -> bool:
        everyone = [*self._unlisted.values(), *self._held.values()]
        return len(everyone) < self._count and sum(held.read.bytes for held in everyone) + wanted <= self._limit


def _new_id() -> str:
    return secrets.token_urlsafe(12)
