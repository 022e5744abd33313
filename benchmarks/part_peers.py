"""``bench peers``: file to answer, nodule-diag compared with the paper to the letter and MONAI, with the answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.agreement import agreement
from benchmarks.child import available_bytes, peak_growth_mib
from benchmarks.measure import ONCE, Plan, Timing, in_turns
from benchmarks.peers.answer import Answer, Difference, TorchTail, Way
from benchmarks.peers.own import Own
from benchmarks.peers.paper import PaperLiteral
from benchmarks.peers.weights import torch_network
from benchmarks.results import Check, Column, Plot, Table
from benchmarks.session import Findings
from benchmarks.subject import Bench
from benchmarks.threads import limited
from nodule_diag.ct import CTVolume, read_ct
from nodule_diag.diagnoser import Diagnoser

TITLE = "From file to answer, beside other ways"
OWN, PAPER, MONAI = "nodule-diag", "paper-literal", "monai"
LEAST_OVER_PAPER, LEAST_OVER_MONAI = 100.0, 5.0
FAST = Plan(warmup=1, window=3, agreeing=3, budget_s=15.0)
SLOW = Plan(warmup=0, window=1, agreeing=2, spread=0.1, budget_s=30.0)
"""For MONAI on the whole CT, which takes tens of seconds."""
MEMORY_SHARE = 0.8
"""Share of the free memory that a peer may be expected to need: beyond it, the system would kill the process."""
NOTE = (
    "Warm calls in one process, from the file on disk to malignancy, score, CAM, segmentation and similar cases;"
    " differences are from nodule-diag's answer. paper-literal: lung mask and 0.5 mm B-spline on the whole CT by"
    " SimpleITK, then PyTorch eager; called once. monai: LoadImage, Orientation, Spacing on the whole CT (linear,"
    " float32), SpatialCrop, ScaleIntensityRange, lung mask of threshold and components, PyTorch eager."
    " monai-crop-first: the same, but only a region round the nodule is resampled."
)


def run(bench: Bench) -> Findings:
    """Run every way, compare the answers and also the two preprocessings."""
    with limited(bench.settings.threads):
        diagnoser = Diagnoser.load(bench.bundle, threads=bench.settings.threads)
        ct = read_ct(bench.subject.path)
        masked = bench.bundle.manifest.preprocessing.masked_input
        ways, notes = _ways(bench, diagnoser, ct)
        answers: dict[str, Answer] = {}
        memory: dict[str, float | None] = {}
        timings: dict[str, Timing] = {}
        for way in ways:
            timings |= in_turns({way.name: partial(_first, way, answers, memory)}, plan=ONCE)
        # The literal way takes minutes: its first call is also its measurement.
        fast = {way.name: way for way in ways if way.name not in {MONAI, PAPER}}
        slow = {way.name: way for way in ways if way.name == MONAI}
        timings |= in_turns(fast, plan=bench.plan(FAST)) | in_turns(slow, plan=bench.plan(SLOW))
        literal = answers[PAPER]
        if literal.lungs is None or literal.patch is None:
            raise TypeError("the paper-literal peer gave no mask or no patch")
        table, checks = agreement(
            ct, bench.subject, literal_lungs=literal.lungs, literal_patch=literal.patch, masked_input=masked
        )
    return Findings(
        title=TITLE,
        tables=(_table(timings, answers, memory), table),
        checks=(*_checks(timings), *checks),
        timings=tuple(timings.values()),
        notes=notes,
    )


def _first(way: Way, answers: dict[str, Answer], memory: dict[str, float | None]) -> None:
    """Keep the answer of a way's first call, and how much the call raised the memory."""

    def call() -> None:
        answers[way.name] = way()

    memory[way.name] = peak_growth_mib(call)


def _ways(bench: Bench, diagnoser: Diagnoser, ct: CTVolume) -> tuple[list[Way], tuple[str, ...]]:
    """Every way that can run here, nodule-diag first, and the reasons why others cannot."""
    manifest = bench.bundle.manifest
    network = torch_network(bench.bundle, checkpoint=bench.settings.checkpoint)
    tail = TorchTail.of(network, diagnoser.cases, k=manifest.retrieval.k)
    ways: list[Way] = [Own(bench.subject, diagnoser)]
    notes: list[str] = []
    try:
        from benchmarks.peers.monai_style import MonaiStyle, bytes_needed
    except ModuleNotFoundError as error:
        notes.append(f"monai and monai-crop-first were left out: {error.name} is not installed")
    else:
        ways.append(MonaiStyle(bench.subject, tail, crop_first=True))
        needed, free = bytes_needed(ct.size_xyz, ct.spacing_xyz_mm), available_bytes()
        if free is None or needed <= MEMORY_SHARE * free:
            ways.append(MonaiStyle(bench.subject, tail))
        else:
            notes.append(
                f"{MONAI} was left out: resampling the whole CT takes about {needed / 2**30:.1f} GiB,"
                f" and {free / 2**30:.1f} GiB are free"
            )
    ways.append(PaperLiteral(bench.subject, tail, manifest.preprocessing.masked_input))
    return ways, tuple(notes)


def _table(timings: dict[str, Timing], answers: dict[str, Answer], memory: dict[str, float | None]) -> Table:
    own = timings[OWN].p50_ms
    rows = []
    for name, timing in timings.items():
        answer, difference = answers[name], Difference.between(answers[name], answers[OWN])
        rows.append(
            (
                name,
                timing.p50_ms,
                timing.p90_ms,
                timing.cpu_ms,
                timing.calls,
                timing.p50_ms / own,
                memory[name],
                answer.malignancy,
                answer.expert_score,
                difference.malignancy,
                difference.expert_score,
                difference.diagnosis,
                difference.cam,
                difference.segmentation,
            )
        )
    columns = {
        "way": "way",
        "p50_ms": "p50 ms",
        "p90_ms": "p90 ms",
        "cpu_ms": "CPU ms",
        "calls": "calls",
        "ratio": "times nodule-diag",
        "peak_mib": "memory above idle, MiB",
        "malignancy": "P",
        "expert_score": "score",
        "d_malignancy": "|dP|",
        "d_expert_score": "|d score|",
        "d_diagnosis": "|d similar|",
        "d_cam": "CAM, mean |d|",
        "d_segmentation": "segm., mean |d|",
    }
    return Table(
        name="peers",
        title="From file to answer",
        columns=tuple(Column(key=key, label=label) for key, label in columns.items()),
        rows=tuple(rows),
        note=NOTE,
        plot=Plot(kind="bars", x="way", y=("p50_ms",), y_label="ms from file to answer", log_y=True),
    )


def _checks(timings: dict[str, Timing]) -> Iterator[Check]:
    own = timings[OWN].p50_ms
    for name, limit in ((PAPER, LEAST_OVER_PAPER), (MONAI, LEAST_OVER_MONAI), ("monai-crop-first", LEAST_OVER_MONAI)):
        if name in timings:
            ratio = timings[name].p50_ms / own
            yield Check(name=f"times faster than {name}, file to answer", value=ratio, rule="at least", limit=limit)
