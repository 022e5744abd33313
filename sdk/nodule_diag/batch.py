"""Many CTs, one after the other: the next one is read while the network looks at the current one."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncGenerator, Collection, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from reprlib import repr as shortened
from time import perf_counter
from typing import NamedTuple, Protocol, cast

import numpy.typing as npt

from nodule_diag.ct import CTVolume, Space, read_ct
from nodule_diag.errors import NoduleDiagError, UsageError
from nodule_diag.process import LOG, in_order
from nodule_diag.results import Diagnosis, Prediction, prediction_document


@dataclass(frozen=True, eq=False)
class Scan:
    """One CT of a batch, and what to diagnose in it; the fields are the arguments of :meth:`Diagnoser.predict`.

    Attributes:
        ct: The path of the CT, as for :func:`nodule_diag.read_ct`, or the volume itself.
        points: (N, 3) positions, N >= 1.
        space: The frame of the points.
        ids: A name for each nodule.
        series: Which series of a DICOM folder.
        acquisition: Which volume of a DICOM series.
        k: How many similar cases.
        exclude: Case ids and patient ids that retrieval must not return.
        check_lung: Whether to report if the positions lie in the lungs.
        prevalence: Share of malignant nodules that ``malignancy`` assumes; None for one half.
    """

    ct: str | os.PathLike[str] | CTVolume
    points: npt.ArrayLike
    space: Space = "lps"
    ids: Sequence[str] | None = None
    series: str | None = None
    acquisition: int | None = None
    k: int | None = None
    exclude: Collection[str] = ()
    check_lung: bool = True
    prevalence: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ScanResult:
    """The result of one CT of a batch.

    Attributes:
        scan: The scan as it was given.
        ct: The CT, for overlays; None where it could not be read.
        outcome: The diagnoses with their times, or the error.
        read_ms: How long reading took.
    """

    scan: Scan
    ct: CTVolume | None
    outcome: Prediction | NoduleDiagError
    read_ms: float

    def __repr__(self) -> str:
        error, kind = self.error, type(self.outcome).__name__
        found = f"{len(self.diagnoses)} diagnoses" if error is None else shortened(str(error))
        return f"ScanResult({kind}: {found}, read in {self.read_ms:.0f} ms)"

    @property
    def error(self) -> NoduleDiagError | None:
        """The error of this CT; None where there are diagnoses."""
        return self.outcome if isinstance(self.outcome, NoduleDiagError) else None

    @property
    def prediction(self) -> Prediction:
        """The prediction, as :meth:`Diagnoser.predict_timed` returns it.

        Raises:
            NoduleDiagError: The error of this CT, where it has one.
        """
        if isinstance(self.outcome, NoduleDiagError):
            raise self.outcome
        return self.outcome

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """The diagnoses, as :meth:`Diagnoser.predict` returns them; raises as :attr:`prediction`."""
        return list(self.prediction.diagnoses)

    def document(self, *, redact: bool = False) -> dict[str, object]:
        """The document, as :func:`nodule_diag.prediction_document` writes it; raises as :attr:`prediction`."""
        prediction = self.prediction
        # There is no prediction without a CT.
        return prediction_document(cast(CTVolume, self.ct), prediction, read_ms=self.read_ms, redact=redact)


class Predicts(Protocol):
    """Anything that diagnoses nodules of a CT as :meth:`Diagnoser.predict_timed` does."""

    def predict_timed(
        self,
        ct: CTVolume,
        points: npt.ArrayLike,
        *,
        space: Space = "lps",
        k: int | None = None,
        ids: Sequence[str] | None = None,
        exclude: Collection[str] = (),
        check_lung: bool = True,
        prevalence: float | None = None,
    ) -> Prediction:
        """The diagnoses of the nodules at (N, 3) ``points``."""
        ...


class _Read(NamedTuple):
    """A CT that was read, or the error."""

    scan: Scan
    ct: CTVolume | NoduleDiagError
    ms: float


def predict_batch(
    diagnoser: Predicts, scans: Iterable[Scan], *, prefetch: int = 1
) -> Generator[ScanResult, None, None]:
    """See :meth:`nodule_diag.Diagnoser.predict_batch`."""
    if isinstance(prefetch, bool) or not isinstance(prefetch, Integral) or prefetch < 1:
        raise UsageError(f"prefetch is {prefetch!r}; it must be at least 1", hint="leave prefetch out")
    return _results(diagnoser, scans, prefetch)


def predict_batch_async(
    diagnoser: Predicts, scans: Iterable[Scan], *, prefetch: int = 1
) -> AsyncGenerator[ScanResult, None]:
    """See :meth:`nodule_diag.Diagnoser.predict_batch_async`."""
    return _in_a_thread(predict_batch(diagnoser, scans, prefetch=prefetch))


def _results(diagnoser: Predicts, scans: Iterable[Scan], prefetch: int) -> Generator[ScanResult, None, None]:
    with in_order(_read, scans, threads=1, ahead=prefetch) as reads:
        # No variable here keeps a CT in memory while the next one is read.
        yield from map(partial(_diagnosed, diagnoser), reads)


async def _in_a_thread(results: Generator[ScanResult, None, None]) -> AsyncGenerator[ScanResult, None]:
    # A separate thread: only this thread uses the generator, and the event loop's own pool stays free.
    pool = ThreadPoolExecutor(1, thread_name_prefix="nodule-diag-batch")
    loop = asyncio.get_running_loop()
    try:
        while True:
            result = await loop.run_in_executor(pool, next, results, None)
            if result is None:
                return
            yield result
            del result
    finally:
        # In the same thread, so after the work that is running now.
        closed = loop.run_in_executor(pool, results.close)
        pool.shutdown(wait=False)
        await asyncio.shield(closed)


def _read(scan: Scan) -> _Read:
    start = perf_counter()
    try:
        # One thread: the network uses the others at the same time.
        ct = scan.ct
        if not isinstance(ct, CTVolume):
            ct = read_ct(ct, series=scan.series, acquisition=scan.acquisition, threads=1)
    except Exception as error:  # noqa: BLE001 - see _told
        return _Read(scan, _told(error), 0.0)
    return _Read(scan, ct, (perf_counter() - start) * 1000.0)


def _diagnosed(diagnoser: Predicts, read: _Read) -> ScanResult:
    scan, ct = read.scan, read.ct
    if isinstance(ct, NoduleDiagError):
        return ScanResult(scan, None, ct, read.ms)
    try:
        prediction = diagnoser.predict_timed(
            ct,
            scan.points,
            space=scan.space,
            k=scan.k,
            ids=scan.ids,
            exclude=scan.exclude,
            check_lung=scan.check_lung,
            prevalence=scan.prevalence,
        )
    except Exception as error:  # noqa: BLE001 - see _told
        return ScanResult(scan, ct, _told(error), read.ms)
    return ScanResult(scan, ct, prediction, read.ms)


def _told(error: Exception) -> NoduleDiagError:
    """The error as a CT's result reports it: no error of one CT may end the work on the others."""
    if isinstance(error, MemoryError):
        told = NoduleDiagError(
            "not enough memory for this CT",
            hint="use prefetch=1, close other programs, or use a machine with more memory",
            code="out-of-memory",
        )
    elif isinstance(error, NoduleDiagError):
        return _without_frames(error)
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        LOG.error("a CT of a batch failed by a bug: %s in %s", type(error).__name__, where)
        told = NoduleDiagError(
            f"{type(error).__name__}: {error}", hint=f"this is a bug in {where}: report it", code="unforeseen"
        )
    told.__cause__ = error
    return _without_frames(told)


def _without_frames(error: NoduleDiagError) -> NoduleDiagError:
    """The error without its tracebacks, which would keep a CT's voxels in memory as long as the error."""
    fault: BaseException | None = error
    while fault is not None:
        fault.__traceback__ = None
        fault = fault.__cause__ or fault.__context__
    return error
