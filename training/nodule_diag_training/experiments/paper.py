"""The paper's own numbers, as data."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

FILE = "paper.json"


class Figure(BaseModel):
    """Percent, mean and standard deviation over five folds; Tables 2 to 4 and 7 give no deviation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    std: float | None = None


class PaperFigures(BaseModel):
    """The metrics of 4.4 for one row, in percent; None where the table has a dash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sensitivity: Figure | None = None
    specificity: Figure | None = None
    precision: Figure | None = None
    precision_b: Figure | None = None
    accuracy: Figure | None = None
    auc: Figure | None = None
    f1: Figure | None = None


@cache
def _read(part: str) -> dict[str, PaperFigures]:
    text = (files(__package__ or __name__) / FILE).read_text(encoding="utf-8")
    return {name: _parsed(row) for name, row in json.loads(text)[part].items()}


def _parsed(row: dict[str, list[float] | None]) -> PaperFigures:
    figures = {
        key: None if v is None else {"mean": v[0], "std": v[1] if len(v) > 1 else None} for key, v in row.items()
    }
    return PaperFigures.model_validate(figures)


def paper_figures(name: str) -> PaperFigures | None:
    """What the paper reports for a row of the catalogue; None where it reports nothing."""
    return _read("rows").get(name)


def other_methods() -> dict[str, PaperFigures]:
    """What Table 7 reports of other authors' methods."""
    return _read("others")
