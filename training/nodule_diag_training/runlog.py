"""What a run writes down: one line a step and one a validation, as CSV.

Everything in ``log.csv`` and ``validation.csv`` follows from the configuration and the data, so that a resumed run has
the same files, byte for byte; how long a step took stands in ``timing.csv``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from nodule_diag.atomic import write_bytes

LOG = "log.csv"
VALIDATION_LOG = "validation.csv"
TIMING = "timing.csv"
INTEGERS = ("step", "patch_size")


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """One line of ``log.csv``. Losses are the terms of eq. 12, unweighted."""

    step: int
    total: float
    classification: float
    cam: float
    segmentation: float
    score: float
    learning_rate: float
    patch_size: int


@dataclass(frozen=True, kw_only=True)
class ValidationLog:
    """One line of ``validation.csv``: the terms of eq. 12 on the patients set aside, after ``step``, counted from 0."""

    step: int
    total: float
    classification: float
    cam: float
    segmentation: float
    score: float


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """One line of ``timing.csv``: wall time of a step."""

    step: int
    seconds: float


Line = TypeVar("Line", StepLog, ValidationLog, StepTime)


def read_lines(path: Path, kind: type[Line]) -> list[Line]:
    """The lines of a log; none if there is no file yet. Columns that ``kind`` does not have are left out."""
    if not path.exists():
        return []
    names = [column.name for column in fields(kind)]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    values: list[dict[str, Any]] = [
        {name: int(row[name]) if name in INTEGERS else float(row[name]) for name in names} for row in rows
    ]
    return [kind(**line) for line in values]


def write_lines(path: Path, lines: Sequence[Line], kind: type[Line]) -> None:
    """Write a whole log atomically; floats as Python prints them, which reads back exactly."""
    rows = [",".join(column.name for column in fields(kind))]
    rows += [",".join(repr(value) for value in asdict(line).values()) for line in lines]
    write_bytes(path, ("\n".join(rows) + "\n").encode())


def read_log(path: Path) -> list[StepLog]:
    """The logged steps of a run; none if there is no log yet."""
    return read_lines(path, StepLog)


@dataclass(kw_only=True)
class History:
    """All lines of a run so far."""

    steps: list[StepLog] = field(default_factory=list)
    validations: list[ValidationLog] = field(default_factory=list)
    times: list[StepTime] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, *, steps: int) -> History:
        """What a run's folder holds of its first ``steps`` steps; later lines belong to no checkpoint."""
        return cls(
            steps=[line for line in read_lines(folder / LOG, StepLog) if line.step < steps],
            validations=[line for line in read_lines(folder / VALIDATION_LOG, ValidationLog) if line.step < steps],
            times=[line for line in read_lines(folder / TIMING, StepTime) if line.step < steps],
        )

    def write(self, folder: Path) -> None:
        """Write the files; none for validations where there were none.

        Raises:
            OutputError: If one cannot be written.
        """
        write_lines(folder / LOG, self.steps, StepLog)
        write_lines(folder / TIMING, self.times, StepTime)
        if self.validations:
            write_lines(folder / VALIDATION_LOG, self.validations, ValidationLog)
