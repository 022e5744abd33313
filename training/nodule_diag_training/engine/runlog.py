"""The logs of a run as CSV: one line for each step and one for each validation.

Everything in ``log.csv`` and ``validation.csv`` follows from the configuration and the data, so that a resumed run has
the same files, byte for byte; the time of each step is in ``timing.csv``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from nodule_diag.process import write_bytes

from .eventfile import EventFile

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


class RunLog:
    """All lines of a run, kept in memory and written with each checkpoint, as CSV and for TensorBoard.

    Args:
        folder: The run's folder.
        steps: Steps of the run's checkpoint; later steps in the files are dropped and computed again.
        writes: Whether this process writes files.

    Raises:
        OutputError: If TensorBoard's file cannot be written.
    """

    def __init__(self, folder: Path, *, steps: int, writes: bool = True) -> None:
        self._folder = folder
        self._steps = [line for line in read_lines(folder / LOG, StepLog) if line.step < steps]
        self._times = [line for line in read_lines(folder / TIMING, StepTime) if line.step < steps]
        found = read_lines(folder / VALIDATION_LOG, ValidationLog)
        self._validations = [line for line in found if line.step < steps]
        self._events = EventFile(folder, begin=steps) if writes else None

    def add(self, line: StepLog, *, seconds: float) -> None:
        """Note a step and how long it took."""
        self._steps.append(line)
        self._times.append(StepTime(step=line.step, seconds=seconds))
        self._note("train", {**_scalars(line), "seconds": seconds}, step=line.step)

    def add_validation(self, line: ValidationLog) -> None:
        """Note the losses of a validation."""
        self._validations.append(line)
        self._note("validation", _scalars(line), step=line.step)

    def _note(self, group: str, values: dict[str, float], *, step: int) -> None:
        if self._events is not None:
            self._events.add(group, values, step=step)

    def write(self) -> None:
        """Write the files; no file for validations where there were none.

        Raises:
            OutputError: If one cannot be written.
        """
        if self._events is None:
            return
        write_lines(self._folder / LOG, self._steps, StepLog)
        write_lines(self._folder / TIMING, self._times, StepTime)
        if self._validations:
            write_lines(self._folder / VALIDATION_LOG, self._validations, ValidationLog)
        self._events.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.__exit__(kind, error, trace)


def _scalars(line: StepLog | ValidationLog) -> dict[str, float]:
    values: dict[str, float] = asdict(line)
    del values["step"]
    return values
