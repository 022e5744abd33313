"""The lines and tables of a report: a figure with its interval, the nodules behind it, and its target."""

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
        metric: Name of the figure.
        value: The estimate.
        low: Lower bound of its interval.
        high: Upper bound.
        n: Number of nodules.
        target: The project's target, in words; None for a yardstick.
        note: What a reader has to know.
        group: Group of nodules; a table of groups has a line for each group, and a column for each metric.
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
    """A titled table; ``note`` is for the whole table."""

    title: str
    rows: tuple[Row, ...]
    note: str | None = None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Target:
    """The target of a figure.

    Attributes:
        sign: How the figure compares with the bound.
        bound: The bound.
        whole: Whether the whole interval must keep the bound.
    """

    sign: str
    bound: float
    whole: bool = False

    def reached(self, value: float) -> bool:
        """Whether a figure meets the target; an undefined figure does not."""
        return bool(COMPARED[self.sign](value, self.bound))

    def judged(self, row: Row) -> Row:
        """The row with the target, and whether it is met, by the estimate or by the whole interval."""
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
    """The estimate over the nodules whose truth and value are known."""
    known = [i for i, pair in enumerate(zip(truth, value, strict=True)) if not any(map(math.isnan, pair))]
    return estimate(statistic, [truth[i] for i in known], [value[i] for i in known], [patients[i] for i in known])


def said(sections: Sequence[Section]) -> list[Section]:
    """The sections without rows that have no nodule, and without sections that have no other rows."""
    kept = [replace(section, rows=tuple(row for row in section.rows if row.n)) for section in sections]
    return [section for section in kept if section.rows]
