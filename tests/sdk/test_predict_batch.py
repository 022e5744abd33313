"""Many CTs: order, errors in their place, reading ahead, leaving early, and the same for async callers."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ct_files as make
import nodule_diag as nd
from nodule_diag import batch
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.results.diagnosis import Diagnosis

SIZES = ((12, 32, 28), (10, 24, 24), (14, 28, 28))


@pytest.fixture(scope="module")
def diagnoser(tiny_bundle: Path) -> Diagnoser:
    return Diagnoser.load(tiny_bundle, device="cpu", threads=2)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("cts")
    return [
        make.write(folder / f"{number}.nii", make.image(make.chest_hu(size, seed=number)))
        for number, size in enumerate(SIZES)
    ]


def point(path: Path) -> list[tuple[float, float, float]]:
    ct = nd.read_ct(path)
    middle = np.array(ct.origin_xyz_mm) + np.array(ct.spacing_xyz_mm) * (np.array(ct.size_xyz) - 1) / 2
    return [tuple(middle)]


def scans(paths: list[Path]) -> Iterator[nd.Scan]:
    for path in paths:
        yield nd.Scan(path, point(path))


def equal(first: Diagnosis, second: Diagnosis) -> None:
    assert first.to_dict() == second.to_dict()
    np.testing.assert_array_equal(first.cam.values, second.cam.values)
    np.testing.assert_array_equal(first.segmentation.values, second.segmentation.values)


def leftovers() -> list[str]:
    """Threads of ours that do not end by themselves within two minutes."""
    end = time.monotonic() + 120
    while True:
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("nodule-diag")]
        if not names or time.monotonic() > end:
            return names
        time.sleep(0.01)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_a_batch_equals_single_calls(diagnoser: Diagnoser, paths: list[Path], prefetch: int) -> None:
    results = list(diagnoser.predict_batch(scans(paths), prefetch=prefetch))
    assert [result.scan.ct for result in results] == paths
    for path, result in zip(paths, results, strict=True):
        assert result.error is None
        assert result.read_ms > 0
        equal(result.diagnoses[0], diagnoser.predict(nd.read_ct(path), point(path))[0])
        document = result.document()
        assert document["ct"]["path"] == str(path)  # type: ignore[index]
        assert document["timing_ms"]["read"] == pytest.approx(result.read_ms, abs=1e-3)  # type: ignore[index]


def test_arguments_of_a_scan_are_obeyed(diagnoser: Diagnoser, paths: list[Path]) -> None:
    ct = nd.read_ct(paths[0])
    ((x, y, z),) = point(paths[0])
    options = {"ids": ["left"], "k": 3, "exclude": ["patient-0001"], "check_lung": False, "prevalence": 0.1}
    (result,) = diagnoser.predict_batch([nd.Scan(ct, [(-x, -y, z)], space="ras", **options)])
    wanted = diagnoser.predict(ct, point(paths[0]), **options)
    assert (wanted[0].in_lung, wanted[0].prevalence) == (None, 0.1)
    assert result.ct is ct
    equal(result.diagnoses[0], wanted[0])


def test_an_error_is_delivered_in_its_place_and_stops_nothing(diagnoser: Diagnoser, paths: list[Path]) -> None:
    good = nd.Scan(paths[0], point(paths[0]))
    work = [good, nd.Scan("missing.nii", [(0, 0, 0)]), nd.Scan(paths[1], [(9000, 0, 0)]), nd.Scan(paths[1], []), good]
    results = list(diagnoser.predict_batch(work))
    assert [type(result.error) for result in results] == [
        type(None), nd.CTError, nd.CoordinateError, nd.UsageError, type(None)
    ]  # fmt: skip
    assert [result.ct is None for result in results] == [False, True, False, False, False]
    for result in results[1:4]:
        assert result.error is not None
        with pytest.raises(type(result.error)):
            _ = result.prediction
        with pytest.raises(type(result.error)):
            _ = result.diagnoses
        with pytest.raises(type(result.error)):
            result.document()
    equal(results[0].diagnoses[0], results[4].diagnoses[0])
    assert repr(results[0]).startswith("ScanResult(Prediction: 1 diagnoses, read in ")
    assert repr(results[1]).startswith("ScanResult(CTError: 'missing.nii does not exist', read in 0 ms)")


def test_an_error_keeps_no_voxels(diagnoser: Diagnoser, paths: list[Path]) -> None:
    ct = nd.read_ct(paths[0])
    gone = weakref.ref(ct)
    (result,) = diagnoser.predict_batch([nd.Scan(ct, [(9000, 0, 0)])])
    error = result.error
    assert error is not None
    del ct, result
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (MemoryError(), "out-of-memory", "not enough memory for this CT"),
        (ZeroDivisionError("by zero"), "unforeseen", "ZeroDivisionError: by zero"),
        (RecursionError("too deep"), "unforeseen", "RecursionError: too deep"),
    ],
)
@pytest.mark.parametrize("stage", ["read", "predict"])
def test_what_is_no_error_of_ours_stops_nothing_either(
    diagnoser: Diagnoser,
    paths: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stage: str,
    fault: Exception,
    code: str,
    message: str,
) -> None:
    """It comes typed, keeps its cause and no voxels, and the log says where the bug is and not whose CT it was."""
    module, name = (batch, "read_ct") if stage == "read" else (Diagnoser, "predict_timed")
    whole = getattr(module, name)
    calls = []

    def failing(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise fault
        return whole(*arguments, **options)

    work = list(scans(paths))
    monkeypatch.setattr(module, name, failing)
    results = list(diagnoser.predict_batch(work))
    assert [result.error is None for result in results] == [True, False, True]
    error = results[1].error
    assert error is not None
    assert (error.code, str(error), error.__cause__) == (code, message, fault)
    assert fault.__traceback__ is None
    assert not any(str(path) in caplog.text for path in paths)
    assert ("failed by a bug" in caplog.text) == (code == "unforeseen")
    assert leftovers() == []


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_ends_a_batch(
    diagnoser: Diagnoser, paths: list[Path], monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    def ended(*_: Any, **__: Any) -> Any:
        raise end

    work = list(scans(paths))
    monkeypatch.setattr(Diagnoser, "predict_timed", ended)
    with pytest.raises(end):
        list(diagnoser.predict_batch(work))
    assert leftovers() == []


def test_the_next_ct_is_read_meanwhile_and_no_more(
    diagnoser: Diagnoser, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []
    read = batch.read_ct

    def noted(path: Any, **options: Any) -> nd.CTVolume:
        began.append(path)
        return read(path, **options)

    class Waiting:
        """A diagnoser whose network waits until the next CT was begun."""

        def predict_timed(self, *arguments: Any, **options: Any) -> nd.Prediction:
            wanted = min(len(done) + 2, len(paths))
            end = time.monotonic() + 120
            while len(began) < wanted and time.monotonic() < end:
                time.sleep(0.001)
            seen.append(len(began))
            return diagnoser.predict_timed(*arguments, **options)

    done: list[nd.ScanResult] = []
    seen: list[int] = []
    monkeypatch.setattr(batch, "read_ct", noted)
    taken = []

    def lazily() -> Iterator[nd.Scan]:
        for scan in scans(paths):
            taken.append(scan)
            yield scan

    for result in batch.predict_batch(Waiting(), lazily()):  # type: ignore[arg-type]
        done.append(result)
        assert len(taken) <= len(done) + 1
    assert seen == [2, 3, 3]


@pytest.mark.parametrize("leave", ["break", "close"])
def test_leaving_early_ends_the_reading(diagnoser: Diagnoser, paths: list[Path], leave: str) -> None:
    taken = []

    def endless() -> Iterator[nd.Scan]:
        while True:
            taken.append(1)
            yield nd.Scan(paths[0], point(paths[0]))

    results = diagnoser.predict_batch(endless())
    for _ in results:
        break
    if leave == "close":
        results.close()
    else:
        del results
    assert len(taken) == 2
    assert leftovers() == []


def test_prefetch_is_checked_at_once(diagnoser: Diagnoser) -> None:
    with pytest.raises(nd.UsageError, match="prefetch is 0"):
        diagnoser.predict_batch([], prefetch=0)
    with pytest.raises(nd.UsageError, match="prefetch is 0"):
        diagnoser.predict_batch_async([], prefetch=0)
    for prefetch in ("2", 1.5, True):
        with pytest.raises(nd.UsageError, match=f"prefetch is {prefetch!r}"):
            diagnoser.predict_batch([], prefetch=prefetch)  # type: ignore[arg-type]
    assert list(diagnoser.predict_batch([])) == []


def test_async_gives_the_same_and_leaves_the_loop_free(diagnoser: Diagnoser, paths: list[Path]) -> None:
    """Each scan is given out once the loop has turned after the one before: a loop that waits for us would not."""
    ticks = [0]

    def when_the_loop_turns() -> Iterator[nd.Scan]:
        for scan in scans(paths):
            seen, end = ticks[0], time.monotonic() + 120
            while ticks[0] == seen and time.monotonic() < end:
                time.sleep(0.001)
            yield scan

    async def everything() -> list[nd.ScanResult]:
        async def tick() -> None:
            while True:
                ticks[0] += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        results = [result async for result in diagnoser.predict_batch_async(when_the_loop_turns())]
        ticking.cancel()
        return results

    results = asyncio.run(everything())
    assert ticks[0] >= len(paths)
    for result, expected in zip(results, diagnoser.predict_batch(scans(paths)), strict=True):
        equal(result.diagnoses[0], expected.diagnoses[0])
    assert leftovers() == []


def test_async_cancellation_stops_and_cleans_up(diagnoser: Diagnoser, paths: list[Path]) -> None:
    taken = []

    def endless() -> Iterator[nd.Scan]:
        while True:
            taken.append(1)
            yield nd.Scan(paths[0], point(paths[0]))

    async def consume() -> None:
        async for _ in diagnoser.predict_batch_async(endless()):
            pass

    async def cancelled() -> None:
        task = asyncio.create_task(consume())
        while len(taken) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    count = len(taken)
    time.sleep(0.05)
    assert len(taken) == count
    assert leftovers() == []


def test_warm_up_runs_everything_once(diagnoser: Diagnoser, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    infer = diagnoser._backend.infer
    monkeypatch.setattr(diagnoser._backend, "infer", lambda patches: (sizes.append(len(patches)), infer(patches))[1])
    assert diagnoser.warm_up() is None
    assert sizes == [1]
