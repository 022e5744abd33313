"""The lines and tables of a report: a figure with its interval, the nodules behind it, and what it should be."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from .judgement import Judgement
from .metrics import Estimate, Statistic, estimate

COMPARED = {">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the report.

    Attributes:
        metric: What it is.
        value: The estimate.
        low: Lower bound of its interval.
        high: Upper bound.
        n: Nodules that it is of.
        target: What the project set out to reach, in words; None for a yardstick.
        note: What a reader has to know.
        group: Of nodules; a table of groups has a line for each, and a column for each metric.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    target: str | None = None
    note: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled table. ``note`` is what a reader of all of it has to know."""

    title: str
    rows: tuple[Row, ...]
    note: str | None = None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Target:
    """What a figure should be.

    Attributes:
        sign: How the figure compares with the bound.
        bound: It.
        whole: Whether all of its interval has to.
    """

    sign: str
    bound: float
    whole: bool = False

    def reached(self, value: float) -> bool:
        """Whether a figure keeps it; one that is not defined does not."""
        return bool(COMPARED[self.sign](value, self.bound))

    def judged(self, row: Row) -> Row:
        """The row with the target, and whether it is met, by the estimate or by all of its interval."""
        ends = [self.reached(end) for end in (row.low, row.high)]
        met = self.reached(row.value) and (all(ends) or not self.whole)
        if math.isnan(row.value):
            verdict = "not defined"
        elif any(ends) != all(ends):
            verdict = f"{'met' if met else 'missed'}; the interval reaches both sides"
        else:
            verdict = "met" if met else "missed"
        note = verdict if row.note is None else f"{verdict}; {row.note}"
        target = f"{self.sign} {self.bound:g}{', all of the interval' if self.whole else ''}"
        return replace(row, target=target, note=note)


def row_of(
    metric: str,
    statistic: Statistic,
    judgements: Sequence[Judgement],
    truth: Callable[[Judgement], float],
    value: Callable[[Judgement], float],
    *,
    target: Target | None = None,
    note: str | None = None,
) -> Row:
    """A statistic of (truth, value) over the nodules where both are known, with its interval over patients."""
    values = [value(j) for j in judgements]
    result = estimate_known(statistic, [truth(j) for j in judgements], values, [j.patient_id for j in judgements])
    row = Row(metric=metric, note=note, **asdict(result))
    return row if target is None else target.judged(row)


def estimate_known(
    statistic: Statistic, truth: Sequence[float], value: Sequence[float], patients: Sequence[str]
) -> Estimate:
    """Of the nodules whose truth and value are known."""
    known = [i for i, pair in enumerate(zip(truth, value, strict=True)) if not any(map(math.isnan, pair))]
    return estimate(statistic, [truth[i] for i in known], [value[i] for i in known], [patients[i] for i in known])


def said(sections: Sequence[Section]) -> list[Section]:
    """Without the rows that no nodule tells anything of, and without sections that have no other rows."""
    kept = [replace(section, rows=tuple(row for row in section.rows if row.n)) for section in sections]
    return [section for section in kept if section.rows]
