"""``bench growth``: the cost of slices, nodules, patches in a batch, and threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.child import peak_growth_mib
from benchmarks.measure import Call, Plan, Timing, in_turns
from benchmarks.part_predict import around
from benchmarks.peers.networks import sdk_networks
from benchmarks.results import Cell, Column, Plot, Table
from benchmarks.session import Findings
from benchmarks.subject import Bench, Point, small_chest
from benchmarks.threads import limited
from nodule_diag.ct import HEIGHT_MM, CTVolume, chest_phantom, read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.preprocessing import extract_patches, lung_mask
from nodule_diag_cli.demo import write_ct

TITLE = "Growth"
PLAN = Plan(warmup=1, window=2, agreeing=2, spread=0.05, budget_s=2.0)
SLICES, QUICK_SLICES = (100, 200, 300, 400, 500, 600, 700, 800), (13, 26)
NODULES, QUICK_NODULES = (1, 2, 4, 8, 16, 32, 64), (1, 2)
BATCHES, QUICK_BATCHES = (1, 2, 4, 8, 16, 32, 64), (1, 2)
IN_PLANE_MM = 372.0 / 512.0
"""Voxel size if the phantom's field of view has 512 voxels, as in scanners."""


def run(bench: Bench) -> Findings:
    """Measure all four tables."""
    with limited(bench.settings.threads):
        diagnoser = Diagnoser.load(bench.bundle, threads=bench.settings.threads)
        slices, slice_timings = _slices(bench, diagnoser)
        ct = read_ct(bench.subject.path)
        nodules, nodule_timings = _nodules(bench, diagnoser, ct)
        batches, batch_timings = _batches(bench, ct)
    threads, thread_timings = _threads(bench, ct)
    return Findings(
        title=TITLE,
        tables=(slices, nodules, batches, threads),
        timings=(*slice_timings, *nodule_timings, *batch_timings, *thread_timings),
    )


def stretched(ct: CTVolume, slices: int) -> CTVolume:
    """The same chest with another number of slices, interpolated linearly along z."""
    old, _, _ = ct.hu.shape
    at = np.linspace(0.0, old - 1.0, slices)
    below = np.minimum(at.astype(int), old - 2)
    share = (at - below).astype(np.float32)
    hu = np.empty((slices, *ct.hu.shape[1:]), dtype=np.int16)
    for number, (first, weight) in enumerate(zip(below, share, strict=True)):
        hu[number] = np.rint(ct.hu[first] * (1.0 - weight) + ct.hu[first + 1] * weight)
    spacing_z, spacing_y, spacing_x = ct.spacing_zyx_mm
    return CTVolume.from_array(
        hu,
        spacing_zyx_mm=(spacing_z * (old - 1) / (slices - 1), spacing_y, spacing_x),
        origin_xyz_mm=ct.origin_xyz_mm,
        path=f"<{slices} slices>",
    )


def _slices(bench: Bench, diagnoser: Diagnoser) -> tuple[Table, list[Timing]]:
    quick = bench.settings.quick
    counts = QUICK_SLICES if quick else SLICES
    phantom = (
        small_chest() if quick else chest_phantom(spacing_zyx_mm=(HEIGHT_MM / SLICES[0], IN_PLANE_MM, IN_PLANE_MM))
    )
    xyz = phantom.nodules[0].center_xyz_mm
    rows, kept = [], []
    path = bench.folder / "slices.nii"
    for count in counts:
        made = stretched(phantom.ct, count)
        write_ct(path, made)
        ct = read_ct(path)
        del made
        calls: dict[str, Call] = {
            "read": partial(read_ct, path),
            "lung mask": partial(lung_mask, ct),
            "patch": partial(extract_patches, ct, [xyz]),
            "diagnosis": partial(diagnoser.predict, ct, [xyz]),
        }
        timings = in_turns(calls, plan=bench.plan(PLAN))
        memory = peak_growth_mib(lambda: diagnoser.predict(read_ct(path), [xyz]))
        rows.append((count, ct.hu.nbytes / 2**20, *(timing.p50_ms for timing in timings.values()), memory))
        kept += _named(timings, f"{count} slices")
    columns = {
        "slices": "slices",
        "mib": "CT, MiB",
        "read": "read (.nii) ms",
        "mask": "lung mask ms",
        "patch": "patch ms",
        "diagnosis": "diagnosis without reading ms",
        "peak": "memory of file to answer, MiB",
    }
    plot = Plot(kind="lines", x="slices", y=("read", "mask", "patch", "diagnosis"), y_label="ms, median", log_y=True)
    note = "One phantom chest of 512 x 512 voxels a slice, interpolated along z; one nodule. Medians."
    return _table("growth-slices", "Slices of the CT", columns, rows, note, plot), kept


def _nodules(bench: Bench, diagnoser: Diagnoser, ct: CTVolume) -> tuple[Table, list[Timing]]:
    counts = QUICK_NODULES if bench.settings.quick else NODULES
    points: dict[int, list[Point]] = {count: around(bench.subject.xyz_mm, count) for count in counts}
    calls = {str(count): partial(diagnoser.predict, ct, points[count]) for count in counts}
    timings = in_turns(calls, plan=bench.plan(PLAN))
    first = timings[str(counts[0])].p50_ms
    rows: list[tuple[Cell, ...]] = []
    for count in counts:
        timing = timings[str(count)]
        further = (timing.p50_ms - first) / (count - counts[0]) if count > counts[0] else None
        rows.append((count, timing.p50_ms, timing.p50_ms / count, further, timing.cpu_ms))
    columns = {
        "nodules": "nodules",
        "p50": "p50 ms",
        "each": "ms a nodule",
        "further": "ms a further nodule",
        "cpu": "CPU ms",
    }
    plot = Plot(kind="lines", x="nodules", y=("each", "further"), y_label="ms, median", log_x=True)
    note = "In one call on one CT, without reading: the lung mask is shared."
    return _table("growth-nodules", "Nodules of a CT", columns, rows, note, plot), _named(timings, "nodules")


def _batches(bench: Bench, ct: CTVolume) -> tuple[Table, list[Timing]]:
    counts = QUICK_BATCHES if bench.settings.quick else BATCHES
    patches = extract_patches(ct, around(bench.subject.xyz_mm, max(counts)))
    rows: list[tuple[Cell, ...]] = []
    kept: list[Timing] = []
    networks = list(sdk_networks(bench, [], threads=bench.settings.threads))
    for count in counts:
        some = patches[:count]
        calls = {one.name: partial(one.runs.infer, some) for one in networks}
        timings = in_turns(calls, plan=bench.plan(PLAN))
        rows += [(count, name, timing.p50_ms, timing.p50_ms / count) for name, timing in timings.items()]
        kept += _named(timings, f"batch {count}")
    columns = {"batch": "batch", "network": "network", "p50": "p50 ms", "each": "ms a patch"}
    plot = Plot(kind="lines", x="batch", y=("each",), series="network", y_label="ms a patch, median", log_x=True)
    return _table("growth-batch", "Patches a batch", columns, rows, "The network alone.", plot), kept


def _threads(bench: Bench, ct: CTVolume) -> tuple[Table, list[Timing]]:
    rows: list[tuple[Cell, ...]] = []
    kept: list[Timing] = []
    xyz = bench.subject.xyz_mm
    most = bench.settings.threads
    for count in sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most}):
        with limited(count):
            diagnoser = Diagnoser.load(bench.bundle, threads=count)
            some = extract_patches(ct, [xyz])
            calls: dict[str, Call] = {
                "lung mask": partial(lung_mask, ct),
                "diagnosis": partial(diagnoser.predict, ct, [xyz]),
            }
            calls |= {one.name: partial(one.runs.infer, some) for one in sdk_networks(bench, [], threads=count)}
            timings = in_turns(calls, plan=bench.plan(PLAN))
        rows += [(count, name, timing.p50_ms, timing.cpu_ms) for name, timing in timings.items()]
        kept += _named(timings, f"{count} threads")
    columns = {"threads": "threads", "what": "what", "p50": "p50 ms", "cpu": "CPU ms"}
    plot = Plot(kind="lines", x="threads", y=("p50",), series="what", y_label="ms, median")
    note = "Lung mask; diagnosis of one nodule without reading; the network alone, on one patch."
    return _table("growth-threads", "Threads", columns, rows, note, plot), kept


def _named(timings: Mapping[str, Timing], where: str) -> list[Timing]:
    return [replace(timing, name=f"{where}: {name}") for name, timing in timings.items()]


def _table(
    name: str, title: str, columns: dict[str, str], rows: Sequence[tuple[Cell, ...]], note: str, plot: Plot
) -> Table:
    heads = tuple(Column(key=key, label=label) for key, label in columns.items())
    return Table(name=name, title=title, columns=heads, rows=tuple(rows), note=note, plot=plot)
