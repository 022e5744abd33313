"""``bench predict``: each stage of a diagnosis and the whole, warm, and the cost of each further nodule."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.measure import Plan, Timing, in_turns
from benchmarks.results import Check, Column, Plot, Table
from benchmarks.session import Findings
from benchmarks.subject import Bench, Point
from benchmarks.threads import limited
from nodule_diag.backends import create_backend
from nodule_diag.ct import CTVolume, read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.preprocessing import extract_patches, lung_mask
from nodule_diag.results import SPACES, prediction_document, write_cam, write_segmentation

TITLE = "A diagnosis, stage by stage, warm"
PLAN = Plan(warmup=2, settle=1, window=7, agreeing=3, spread=0.03, budget_s=8.0)
MOST_MASK_MS, MOST_PATCH_MS = 250.0, 10.0
MOST_FURTHER_NODULE = 1.3
"""Limit for a further nodule: this many times a nodule of bare batched inference."""
BATCH = 8
"""Number of further nodules of a call, and of patches of a bare one."""
NODULES = (1, 1 + BATCH)
FILE_TO_ANSWER = "file to answer"
AGAIN = "another diagnosis of that CT"
TIMING_COLUMNS = (
    Column(key="p50_ms", label="p50 ms"),
    Column(key="p90_ms", label="p90 ms"),
    Column(key="p99_ms", label="p99 ms"),
    Column(key="best_ms", label="best ms"),
    Column(key="cpu_ms", label="CPU ms"),
    Column(key="calls", label="calls"),
    Column(key="settled", label="settled"),
)


def timing_cells(timing: Timing) -> tuple[float | int | bool, ...]:
    """The cells of :data:`TIMING_COLUMNS`."""
    return (
        timing.p50_ms,
        timing.p90_ms,
        timing.p99_ms,
        timing.best_ms,
        timing.cpu_ms,
        timing.calls,
        timing.settled,
    )


def around(center_xyz_mm: Point, count: int) -> list[Point]:
    """``count`` points within 2 mm of a nodule's centre, the centre first: for timing, as good as other nodules."""
    offsets = np.random.default_rng(0).uniform(-2.0, 2.0, (count, 3))
    offsets[0] = 0.0
    return [(float(x), float(y), float(z)) for x, y, z in np.asarray(center_xyz_mm) + offsets]


def run(bench: Bench) -> Findings:
    """Measure all stages in turns."""
    threads = bench.settings.threads
    with limited(threads):
        diagnoser = Diagnoser.load(bench.bundle, threads=threads)
        calls = _stages(bench, diagnoser, read_ct(bench.subject.path))
        timings = in_turns(calls, plan=bench.plan(PLAN))
    further = (timings[_diagnosis(NODULES[1])].p50_ms - timings[_diagnosis(NODULES[0])].p50_ms) / BATCH
    bare = timings[_bare()].p50_ms / BATCH
    checks = (
        Check(name="lung mask", value=timings["lung mask"].p50_ms, rule="at most", limit=MOST_MASK_MS, unit="ms"),
        Check(name="patch", value=timings["patch"].p50_ms, rule="at most", limit=MOST_PATCH_MS, unit="ms"),
        Check(
            name="a further nodule, times one of bare batched inference",
            value=further / bare,
            rule="at most",
            limit=MOST_FURTHER_NODULE,
        ),
    )
    runtime = diagnoser.runtime
    table = Table(
        name="predict",
        title="Stages of a diagnosis",
        columns=(Column(key="stage", label="stage"), *TIMING_COLUMNS),
        rows=tuple((name, *timing_cells(timing)) for name, timing in timings.items()),
        note=f"{runtime.backend} {runtime.precision}, {runtime.threads} threads. 'render' writes the document, the CAM"
        f" and the segmentation; '{FILE_TO_ANSWER}' reads the CT and diagnoses one nodule, without rendering.",
        plot=Plot(kind="bars", x="stage", y=("p50_ms",), y_label="ms, median", log_y=True),
    )
    return Findings(title=TITLE, tables=(table,), checks=checks, timings=tuple(timings.values()))


def _diagnosis(nodules: int) -> str:
    return f"diagnosis of {nodules} nodules" if nodules > 1 else "diagnosis without reading"


def _bare() -> str:
    return f"inference, batch {BATCH}"


def _stages(bench: Bench, diagnoser: Diagnoser, ct: CTVolume) -> dict[str, Callable[[], object]]:
    """The measured calls, by name; every call does the same as the pipeline does there."""
    xyz = bench.subject.xyz_mm
    runtime = diagnoser.runtime
    backend = create_backend(
        bench.bundle, name=runtime.backend, device=runtime.device, precision=runtime.precision, threads=runtime.threads
    )
    masked = bench.bundle.manifest.preprocessing.masked_input
    mask = lung_mask(ct) if masked else None
    patches = extract_patches(ct, around(xyz, BATCH), lung_mask=mask)
    prediction = diagnoser.predict_timed(ct, [xyz])
    (answer,) = prediction.diagnoses
    k = bench.bundle.manifest.retrieval.k

    def retrieve() -> None:
        for space in SPACES:
            diagnoser.cases.search(space, malignancy=answer.malignancy, expert_score=answer.expert_score, k=k)

    def render() -> None:
        json.dumps(prediction_document(ct, prediction))
        write_cam(bench.folder / "cam.nii.gz", ct, answer.cam)
        write_segmentation(bench.folder / "segmentation.nii.gz", ct, answer.segmentation)

    return {
        "read": lambda: read_ct(bench.subject.path),
        "lung mask": lambda: lung_mask(ct),
        "patch": lambda: extract_patches(ct, [xyz], lung_mask=mask),
        "inference": lambda: backend.infer(patches[:1]),
        "retrieval": retrieve,
        "render": render,
        # A copy, which shares the voxels: its lungs are not known yet.
        _diagnosis(NODULES[0]): lambda: diagnoser.predict(replace(ct), around(xyz, NODULES[0])),
        AGAIN: lambda: diagnoser.predict(ct, [xyz]),
        FILE_TO_ANSWER: lambda: diagnoser.predict(read_ct(bench.subject.path), [xyz]),
        _diagnosis(NODULES[1]): lambda: diagnoser.predict(replace(ct), around(xyz, NODULES[1])),
        _bare(): lambda: backend.infer(patches),
    }
