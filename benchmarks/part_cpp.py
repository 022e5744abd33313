"""``bench cpp``: examples/cpp compared with Python, on the same voxels and network, by processes that take turns."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.child import run_module, run_program
from benchmarks.environment import ROOT
from benchmarks.results import Cell, Check, Column, Plot, Table
from benchmarks.session import Findings
from benchmarks.subject import Bench
from nodule_diag.ct import read_ct
from nodule_diag_export.fused import export_fused, open_source

TITLE = "From HU to the answer: C++ beside Python"
WRITER = ROOT / "examples" / "cpp" / "write_mhd.py"
PAIRS, ROUNDS = 9, 8
"""Processes of each, and answers in a process; the first answer is not counted."""
MOST_OF_PYTHON = 1.0
BACKENDS = {"onnxruntime": False, "winograd": True}
"""Python's backend, and whether the fused graph has fewer products."""


@dataclass(eq=False)
class _Way:
    """The times of one way's processes: their medians in ms; and of the whole process."""

    answer_ms: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)


def run(bench: Bench, *, program: Path) -> Findings:
    """C++ and Python in turns, for the direct network and for the one with fewer products.

    Args:
        bench: The subject.
        program: ``nodule-diag-cpp``.
    """
    ct = read_ct(bench.subject.path)
    mhd = bench.folder / "ct.mhd"
    run_program([sys.executable, str(WRITER), str(bench.subject.path), str(mhd)])
    pairs, rounds = (1, 2) if bench.settings.quick else (PAIRS, ROUNDS)
    threads = bench.settings.threads
    xyz = [repr(float(value)) for value in bench.subject.xyz_mm]
    rows: list[tuple[Cell, ...]] = []
    checks: list[Check] = []
    for backend, winograd in BACKENDS.items():
        if winograd and bench.bundle.manifest.model.winograd is None:
            continue
        fused = bench.folder / f"{backend}.onnx"
        export_fused(open_source(bench.bundle.path), fused, winograd=winograd, threads=threads)
        native = [str(program), str(fused), str(mhd), "--threads", str(threads), "--repeat", str(rounds), "--xyz", *xyz]
        peer = ["benchmarks.cpp_peer", str(mhd), str(bench.bundle.path), backend, str(threads), str(rounds), *xyz]
        ways = {"C++": _Way(), "Python": _Way()}
        for _ in range(pairs):
            for name, way in ways.items():
                ended = run_program(native, threads=threads) if name == "C++" else run_module(peer, threads=threads)
                said = json.loads(ended.stdout)
                answers = (
                    said["timing_ms"]["answer"]
                    if name == "C++"
                    else [check + predict for check, predict in zip(said["check"], said["predict"], strict=True)]
                )
                way.answer_ms.append(statistics.median(answers[1:]))
                way.cpu_s.append(ended.cpu_s)
                way.wall_s.append(ended.wall_s)
                way.peak_mib.append(ended.peak_mib)
        ratios = [ours / theirs for ours, theirs in zip(ways["C++"].answer_ms, ways["Python"].answer_ms, strict=True)]
        checks.append(
            Check(
                name=f"C++ of Python's time, {backend}",
                value=statistics.median(ratios),
                rule="at most",
                limit=MOST_OF_PYTHON,
            )
        )
        for name, way in ways.items():
            figures = [statistics.median(values) for values in (way.answer_ms, way.wall_s, way.cpu_s, way.peak_mib)]
            rows.append((f"{name}, {backend}", *figures, len(way.answer_ms)))
    labels = ("way", "answer ms", "process s", "CPU s", "peak MiB", "processes")
    keys = ("way", "answer_ms", "wall_s", "cpu_s", "peak_mib", "processes")
    table = Table(
        name="cpp",
        title="C++ and Python",
        columns=tuple(Column(key=key, label=label) for key, label in zip(keys, labels, strict=True)),
        rows=tuple(rows),
        note=f"Medians over processes, each of {rounds} answers ({threads} threads), its first not counted. An answer:"
        f" all {ct.hu.nbytes / 2**20:.0f} MiB of HU in memory are checked, and a nodule is diagnosed; Python copies the"
        " voxels, and looks up similar cases. A process: start, model, CT from disk, and its answers.",
        plot=Plot(kind="bars", x="way", y=("answer_ms",), y_label="ms, median"),
    )
    return Findings(title=TITLE, tables=(table,), checks=tuple(checks))
