"""The summary of a batch: counts, failures by code, and the failed CTs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SUMMARY_SCHEMA = "nodule-diag/batch-summary/1"


@dataclass(frozen=True)
class Failed:
    """Nodules of a CT that have no diagnosis.

    Attributes:
        result: The file of the CT's answer.
        path: The CT, as written in the manifest.
        ids: The nodules.
        code: The code of the error.
        message: The message of the error.
        hint: The hint of the error.
    """

    result: str
    path: str
    ids: tuple[str, ...]
    code: str
    message: str
    hint: str


@dataclass(frozen=True)
class Summary:
    """The summary of a batch.

    Attributes:
        cts: CTs in the manifest.
        nodules: Nodules in the manifest.
        there: CTs that had results before this run.
        failed: Failures, in the order of the manifest.
        seconds: Time for the other CTs, from the first worker being ready.
        engine: ``local`` or ``ray``.
        workers: The number of workers; 0 where there was nothing to do.
    """

    cts: int
    nodules: int
    there: int
    failed: tuple[Failed, ...]
    seconds: float
    engine: str
    workers: int

    @property
    def codes(self) -> dict[str, tuple[int, int]]:
        """How many CTs and nodules failed, by code, the most frequent first."""
        of_code: dict[str, list[Failed]] = {}
        for one in self.failed:  # a CT with several nodules outside is there several times
            of_code.setdefault(one.code, []).append(one)
        counts = {
            code: (len({one.result for one in found}), sum(len(one.ids) for one in found))
            for code, found in of_code.items()
        }
        return dict(sorted(counts.items(), key=lambda item: (-item[1][0], item[0])))

    @property
    def cts_per_hour(self) -> float | None:
        """CTs per hour of this run; None where it had nothing to do."""
        done = self.cts - self.there
        return done * 3600.0 / self.seconds if done and self.seconds > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """The output of ``batch --json``."""
        failed = sum(len(one.ids) for one in self.failed)
        rate = self.cts_per_hour
        return {
            "schema": SUMMARY_SCHEMA,
            "cts": {"total": self.cts, "there": self.there, "failed": len({one.result for one in self.failed})},
            "nodules": {"total": self.nodules, "diagnosed": self.nodules - failed, "failed": failed},
            "failures": [{"code": code, "cts": cts, "nodules": nodules} for code, (cts, nodules) in self.codes.items()],
            "failed": [{**vars(one), "ids": list(one.ids)} for one in self.failed],
            "engine": self.engine,
            "workers": self.workers,
            "seconds": round(self.seconds, 3),
            "cts_per_hour": None if rate is None else round(rate, 1),
        }
