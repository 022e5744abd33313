"""A result made by hand."""

from __future__ import annotations

import pytest

from benchmarks.environment import Environment
from benchmarks.measure import Timing
from benchmarks.results import Check, Column, Part, Plot, Table


@pytest.fixture
def environment() -> Environment:
    return Environment(
        date="2024-05-01T12:00:00+00:00",
        commit="abc123def456",
        cpu="Imaginary 9000",
        cpu_flags=("avx2", "amx_bf16"),
        cores=2,
        memory_gib=15.6,
        threads=2,
        omp_num_threads=None,
        load_average=(0.1, 0.2, 0.3),
        platform="Linux 6",
        python="3.12.1",
        versions={"numpy": "2.3.0", "torch": "2.9.0"},
    )


@pytest.fixture
def part(environment: Environment) -> Part:
    """Two tables, one of bars and one of lines, a bound that holds and one that does not."""
    return Part(
        part="predict",
        title="A part",
        command="nodule-diag bench predict --threads 2",
        settings={"threads": 2, "ct": None},
        subject="scan.nii.gz",
        quick=False,
        environment=environment,
        tables=(
            Table(
                name="ways",
                title="Ways",
                columns=(
                    Column(key="way", label="way"),
                    Column(key="p50_ms", label="p50 | ms"),
                    Column(key="ok", label="ok"),
                ),
                rows=(("fast", 12.3456, True), ("slow", 123456.7, False), ("none", None, None)),
                note="Read me.",
                plot=Plot(kind="bars", x="way", y=("p50_ms",), y_label="ms", log_y=True),
            ),
            Table(
                name="growth",
                title="Growth",
                columns=(Column(key="n", label="n"), Column(key="who", label="who"), Column(key="ms", label="ms")),
                rows=((1, "a", 1.0), (2, "a", 2.5), (1, "b", 0.00012), (2, "b", None)),
                plot=Plot(kind="lines", x="n", y=("ms",), y_label="ms", series="who", log_x=True),
            ),
        ),
        checks=(
            Check(name="fast enough", value=12.3456, rule="at most", limit=20.0, unit="ms"),
            Check(name="far ahead", value=3.0, rule="at least", limit=5.0),
        ),
        timings=(
            Timing(
                name="fast",
                calls=4,
                p50_ms=12.3456,
                p90_ms=13.0,
                p99_ms=14.0,
                best_ms=12.0,
                cpu_ms=20.0,
                window_medians_ms=(12.3, 12.4),
                settled=True,
            ),
        ),
        notes=("bf16 was left out: no such CPU",),
        wall_s=61.0,
    )
