"""The child process's side: holds a network and diagnoses one CT after the other, reading the next one meanwhile."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nodule_diag.batch import Scan, ScanResult
    from nodule_diag.diagnoser import Diagnoser
    from nodule_diag.errors import NoduleDiagError
    from nodule_diag.results import Prediction

Json = dict[str, Any]
LEFT_OUT = ("schema", "timing_ms")
"""Fields of the prediction document that are left out, so that two runs give the same bytes."""
ONCE_MORE = ("out-of-memory",)
"""Codes of faults that may not occur in a second try, alone in a new process."""


def start() -> Callable[[bytes], bytes]:
    """The work of :class:`nodule_diag.process.Children`; the first request says what to load."""
    judge: list[_Judge] = []

    def answer(request: bytes) -> bytes:
        asked = json.loads(request)
        if "load" in asked:
            judge[:] = []
            return json.dumps(_loaded(asked["load"], judge)).encode()
        return json.dumps(judge[0].answer(asked["ct"], asked["ahead"]), allow_nan=False).encode()

    return answer


def _loaded(options: Json, judge: list[_Judge]) -> Json:
    """Load bundle, case base and network; returns their identities, or the error."""
    from nodule_diag.bundle import Bundle
    from nodule_diag.cases import cases_where
    from nodule_diag.diagnoser import Diagnoser
    from nodule_diag.errors import NoduleDiagError
    from nodule_diag.fleet.worker import fault

    _may_write_caches()
    try:
        bundle = Bundle.default() if options["bundle"] is None else Bundle.open(options["bundle"])
        cases = options["cases"]
        diagnoser = Diagnoser.load(
            bundle,
            cases=cases if options["where"] is None else cases_where(options["where"], cases, bundle=bundle),
            **{name: options[name] for name in ("backend", "device", "precision", "threads", "symmetries")},
        )
        diagnoser.warm_up()
    except NoduleDiagError as error:
        return {"error": fault(error)}
    judge.append(_Judge(diagnoser, options))
    return {
        "bundle": asdict(diagnoser.identity),
        "cases": asdict(diagnoser.cases.identity),
        "runtime": diagnoser.runtime.to_dict(),
    }


def _may_write_caches() -> None:
    """Lift the limit of file sizes: engines and self-test figures are larger than a request may write."""
    if sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


class _Judge:
    """Diagnoses CTs with one network."""

    def __init__(self, diagnoser: Diagnoser, options: Json) -> None:
        self._diagnoser = diagnoser
        self._options = options
        self._queue: deque[Json] = deque()
        self._coming: Json | None = None
        self._results: Generator[ScanResult, None, None] | None = None

    def answer(self, ct: Json, ahead: Json | None) -> Json:
        """The answer for a CT; ``ahead`` is read meanwhile, for the next request."""
        if self._results is None or self._coming != ct:
            if self._results is not None:
                self._results.close()
            self._queue = deque([ct])
            self._results = self._diagnoser.predict_batch(self._scans())
        self._coming = ahead
        if ahead is not None:
            self._queue.append(ahead)
        result = next(self._results)
        if ahead is None:
            self._results = None
        return self._told(ct, result)

    def _scans(self) -> Iterator[Scan]:
        from nodule_diag.batch import Scan

        while self._queue:
            ct = self._queue.popleft()
            given = {name: ct[name] for name in ("points", "space", "ids", "series", "acquisition")}
            yield Scan(ct["path"], **given, **{name: self._options[name] for name in ("k", "check_lung", "prevalence")})

    def _told(self, ct: Json, result: ScanResult) -> Json:
        from nodule_diag.errors import BackendError, CoordinateError

        error = result.error
        failed: list[Json] = []
        prediction = None if error is not None else result.prediction
        if isinstance(error, CoordinateError) and len(ct["ids"]) > 1:  # find the wrong point
            prediction, failed = self._one_by_one(ct, result)
        elif error is not None:
            failed = [{"ids": ct["ids"], **self._said(ct, error)}]
        told: Json = {"ct": None, "nodules": [], "failed": failed}
        if prediction is not None:
            from nodule_diag.results import prediction_document

            document = prediction_document(result.ct, prediction, redact=self._options["redact"])  # type: ignore[arg-type]
            told |= {name: value for name, value in document.items() if name not in LEFT_OUT}
            if not self._options["redact"]:
                told["ct"]["path"] = ct["told"]
        again = error is not None and (isinstance(error, BackendError) or error.code in ONCE_MORE)
        return {"again": again, "told": told}

    def _one_by_one(self, ct: Json, result: ScanResult) -> tuple[Prediction | None, list[Json]]:
        """The nodules that can be diagnosed, and the errors of the others."""
        from nodule_diag.errors import CoordinateError

        scan, good, failed = result.scan, [], []
        for name, point in zip(ct["ids"], ct["points"], strict=True):
            try:
                one = self._diagnoser.predict_timed(
                    result.ct,  # type: ignore[arg-type] # never None where its points were checked
                    [point],
                    space=scan.space,
                    ids=[name],
                    k=scan.k,
                    check_lung=scan.check_lung,
                    prevalence=scan.prevalence,
                )
            except CoordinateError as error:
                failed.append({"ids": [name], **self._said(ct, error)})
            else:
                good.append(one)
        nodules = tuple(diagnosis for one in good for diagnosis in one.diagnoses)
        return (replace(good[0], diagnoses=nodules) if good else None), failed

    def _said(self, ct: Json, error: NoduleDiagError) -> Json:
        """The error's code, message and hint."""
        message, hint = error.whole
        if self._options["redact"]:
            from nodule_diag.results import Redaction

            text = Redaction(ct["path"]).text
            message, hint = text(message), text(hint)
        from nodule_diag.errors import bounded

        return {"code": error.code, "message": bounded(message), "hint": bounded(hint)}
