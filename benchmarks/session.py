"""A part from its options to its result: prepare the subject, note the machine, run the part, time it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from benchmarks.environment import Environment
from benchmarks.measure import Timing
from benchmarks.results import Cell, Check, Part, Table
from benchmarks.subject import Bench, Settings, opened


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The return value of a part's own code.

    Attributes:
        title: Title of the part, for readers.
        subject: The subject, where this is not the CT.
        tables: The numbers.
        checks: The bounds.
        timings: Every timing behind the tables.
        notes: Further notes.
    """

    title: str
    subject: str | None = None
    tables: tuple[Table, ...]
    checks: tuple[Check, ...] = ()
    timings: tuple[Timing, ...] = ()
    notes: tuple[str, ...] = ()


def settings_record(settings: Settings) -> dict[str, Cell]:
    """Settings as JSON values; files only by their names."""
    record: dict[str, Cell] = {}
    for name, value in asdict(settings).items():
        if isinstance(value, tuple):
            record[name] = " ".join(str(getattr(one, "name", one)) for one in value)
        else:
            record[name] = (
                value if value is None or isinstance(value, bool | int) else str(getattr(value, "name", value))
            )
    return record


def run_part(name: str, run: Callable[[Bench], Findings], settings: Settings) -> Part:
    """Run one part.

    Args:
        name: Name as in ``nodule-diag bench NAME``.
        run: The part's code.
        settings: The settings.
    """
    environment = Environment.now(threads=settings.threads)
    begin = time.perf_counter()
    with opened(settings) as bench:
        findings = run(bench)
        return Part(
            part=name,
            title=findings.title,
            command=f"nodule-diag bench {name} {bench.options}",
            settings=settings_record(settings),
            subject=findings.subject or bench.subject.name,
            quick=settings.quick,
            environment=environment,
            tables=findings.tables,
            checks=findings.checks,
            timings=findings.timings,
            notes=findings.notes,
            wall_s=time.perf_counter() - begin,
        )
