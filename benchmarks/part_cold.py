"""``bench cold``: the whole command in a fresh process, compared with the least that such a process can cost."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.child import RUN_COLUMNS, ChildRun, run_module, run_rows
from benchmarks.results import Cell, Check, Column, Plot, Table
from benchmarks.session import Findings
from benchmarks.subject import Bench
from nodule_diag.ct import read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag_cli.demo import write_ct

TITLE = "nodule-diag predict in a fresh process"
RUNS = 7
MOST_OVER_YARDSTICK = 2.0
MEMORY_TIMES, MEMORY_MIB = 1.5, 400.0
"""Limit of the peak memory: the CT's bytes times the first, plus the second."""
STAGES = ("read", "lung_mask", "patch", "inference", "retrieval", "total")


def run(bench: Bench) -> Findings:
    """Run command and yardstick in turns, after one run of each that is not counted."""
    threads = bench.settings.threads
    ct = read_ct(bench.subject.path)
    plain = write_ct(bench.folder / "ct.nii", ct)
    runtime = Diagnoser.load(bench.bundle, threads=threads).runtime
    model = bench.folder / "model.onnx"
    model.write_bytes(bench.bundle.read(bench.bundle.manifest.model.file))
    xyz = [str(value) for value in bench.subject.xyz_mm]
    bundle = ["--bundle", str(bench.settings.bundle)] if bench.settings.bundle else []
    predict = ["nodule_diag_cli", "predict", str(plain), "--xyz", *xyz, "--json", *bundle]
    least = ["benchmarks.yardstick", str(plain), str(bench.bundle.path), str(model)]
    least += [runtime.backend, runtime.precision, str(threads)]
    commands = {
        "predict, .nii": predict,
        "yardstick, .nii": least,
        f"predict, {_suffix(bench.subject.path)}": [*predict[:2], str(bench.subject.path), *predict[3:]],
        "predict --help": ["nodule_diag_cli", "predict", "--help"],
    }
    found: dict[str, list[ChildRun]] = {name: [] for name in commands}
    for number in range(1) if bench.settings.quick else range(-1, RUNS):
        for name, command in commands.items():
            ended = run_module(command, threads=threads)
            if number >= 0:
                found[name].append(ended)
    ratio = _median([one.wall_s for one in found["predict, .nii"]]) / _median(
        [one.wall_s for one in found["yardstick, .nii"]]
    )
    ct_mib = ct.hu.nbytes / 2**20
    checks = (
        Check(
            name="cold predict, times imports, file and one inference",
            value=ratio,
            rule="at most",
            limit=MOST_OVER_YARDSTICK,
        ),
        Check(
            name="cold predict, peak memory",
            value=max(one.peak_mib for one in found["predict, .nii"]),
            rule="at most",
            limit=MEMORY_TIMES * ct_mib + MEMORY_MIB,
            unit="MiB",
        ),
    )
    note = (
        f"{runtime.backend} {runtime.precision}, {threads} threads; the CT has {ct_mib:.0f} MiB of HU, and its file was"
        " read before. The yardstick makes predict's imports, reads the file's bytes, loads the network"
        " (ONNX Runtime and OpenVINO without the SDK) and runs it once."
    )
    return Findings(title=TITLE, tables=(_table(found, note), _stage_table(found)), checks=checks)


def _suffix(path: Path) -> str:
    return "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix or "folder"


_median = statistics.median


def _table(found: dict[str, list[ChildRun]], note: str) -> Table:
    return Table(
        name="cold",
        title="Fresh processes",
        columns=RUN_COLUMNS,
        rows=run_rows(found, peak=max),
        note=note,
        plot=Plot(kind="bars", x="command", y=("p50_s",), y_label="s, median"),
    )


def _stage_table(found: dict[str, list[ChildRun]]) -> Table:
    """The command's own times of its stages (``timing_ms``)."""
    rows: list[tuple[Cell, ...]] = []
    for name, runs in found.items():
        if not name.startswith("predict, "):
            continue
        said: Sequence[dict[str, float]] = [json.loads(one.stdout)["timing_ms"] for one in runs]
        rows.append((name, *(_median([one[stage] for one in said]) for stage in STAGES)))
    labels = (Column(key=stage, label=f"{stage.replace('_', ' ')} ms") for stage in STAGES)
    return Table(
        name="cold-stages",
        title="Stages in a fresh process, as the command reports them",
        columns=(Column(key="command", label="command"), *labels),
        rows=tuple(rows),
        note="Medians. Start-up, imports and loading the bundle come on top.",
    )
