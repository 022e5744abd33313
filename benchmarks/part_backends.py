"""``bench backends``: the network alone on one patch, every backend compared with torch and plain runtimes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.measure import Plan, Timing, in_turns
from benchmarks.part_predict import TIMING_COLUMNS, around, timing_cells
from benchmarks.peers.networks import EAGER, Float, Network, Runs, given_graphs, plain_graph, sdk_networks
from benchmarks.peers.networks import torch_networks as in_torch
from benchmarks.results import Check, Column, Plot, Table
from benchmarks.session import Findings
from benchmarks.subject import Bench
from benchmarks.threads import limited
from nodule_diag.backends import Outputs, compare, misses
from nodule_diag.bundle import ParityFigures
from nodule_diag.cases import CaseIndex
from nodule_diag.ct import read_ct
from nodule_diag.preprocessing import extract_patches, lung_mask

TITLE = "The network alone, on one patch"
PLAN = Plan(warmup=2, settle=1, window=7, agreeing=3, spread=0.03, budget_s=12.0)
LEAST_OVER_EAGER, LEAST_FP32_OVER_EAGER = 3.0, 1.3
COMPARED = 8
"""Number of patches on which answers are compared: the nodule's, and others a little beside it."""


def run(bench: Bench) -> Findings:
    """Time every way to run the network in turns, and compare the answers with plain ONNX Runtime's."""
    threads = bench.settings.threads
    with limited(threads):
        patches = _patches(bench, COMPARED if not bench.settings.quick else 2)
        graph = bench.bundle.read(bench.bundle.manifest.model.file)
        reference = plain_graph("onnxruntime, plain", graph, threads=threads)
        notes: list[str] = []
        networks = [reference, *in_torch(bench, notes), *sdk_networks(bench, notes, threads=threads)]
        networks += given_graphs(list(bench.settings.networks), threads=threads)
        wanted, cases = _each(reference.runs, patches), CaseIndex(bench.bundle)
        figures = {
            network.name: compare(
                wanted,
                _each(network.runs, patches),
                precision=network.precision,
                cases=cases,
                k=bench.bundle.manifest.retrieval.k,
            )
            for network in networks
        }
        one = patches[:1]
        timings = in_turns(
            {network.name: partial(network.runs.infer, one) for network in networks},
            plan=bench.plan(PLAN),
        )
    return Findings(
        title=TITLE,
        tables=(_table(networks, timings, figures),),
        checks=tuple(_checks(networks, timings, figures)),
        timings=tuple(timings.values()),
        notes=tuple(notes),
    )


def _patches(bench: Bench, count: int) -> Float:
    ct = read_ct(bench.subject.path)
    masked = bench.bundle.manifest.preprocessing.masked_input
    return extract_patches(ct, around(bench.subject.xyz_mm, count), lung_mask=lung_mask(ct) if masked else None)


def _each(runs: Runs, patches: Float) -> Outputs:
    """The answers of one patch at a time, as the patches are timed."""
    found = [runs.infer(patches[row : row + 1]) for row in range(len(patches))]
    return Outputs.joined(found)


def _table(networks: list[Network], timings: dict[str, Timing], figures: dict[str, ParityFigures]) -> Table:
    rows = []
    for network in networks:
        timing, figure = timings[network.name], figures[network.name]
        rows.append(
            (
                network.name,
                network.precision,
                *timing_cells(timing),
                timing.times_as_fast_as(timings[EAGER]),
                figure.malignancy,
                figure.expert_score,
                figure.cam if figure.cam_patches else None,
                figure.segmentation,
                not misses(figure, precision=network.precision),
            )
        )
    differences = {
        "speedup": "times eager's speed",
        "d_malignancy": "|dP|",
        "d_expert_score": "|d score|",
        "d_cam": "CAM, mean |d|",
        "d_segmentation": "segm., mean |d|",
        "gate": "within its gate",
    }
    return Table(
        name="backends",
        title="The network by backend",
        columns=(
            Column(key="network", label="network"),
            Column(key="precision", label="precision"),
            *TIMING_COLUMNS,
            *(Column(key=key, label=label) for key, label in differences.items()),
        ),
        rows=tuple(rows),
        note="Batch 1, calls in turns; the speed over eager's is the median of the rounds that both ran."
        " Differences are from plain ONNX Runtime, the worst of several patches; without a CAM figure, P lay too near"
        " 0.5 on each for the CAM's sign to be certain.",
        plot=Plot(kind="bars", x="network", y=("p50_ms",), y_label="ms a patch, median"),
    )


def _checks(networks: list[Network], timings: dict[str, Timing], figures: dict[str, ParityFigures]) -> Iterator[Check]:
    """The fastest of nodule-diag's backends whose answers are within their gate, compared with eager torch."""
    own = [one for one in networks if not one.peer and not misses(figures[one.name], precision=one.precision)]
    for name, limit, kinds in (
        ("best backend, times PyTorch eager's speed", LEAST_OVER_EAGER, {"fp32", "bf16", "fp16"}),
        ("best fp32 backend, times PyTorch eager's speed", LEAST_FP32_OVER_EAGER, {"fp32"}),
    ):
        found = [timings[one.name].times_as_fast_as(timings[EAGER]) for one in own if one.precision in kinds]
        if found:
            yield Check(name=name, value=max(found), rule="at least", limit=limit)
