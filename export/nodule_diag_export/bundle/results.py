"""Reads the JSON that ``nodule-diag train evaluate`` and ``train lung`` write: what the model card has to say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from nodule_diag.bundle import PresenceSpec
from nodule_diag_export.errors import ExportError

_HINT = "give the JSON that `nodule-diag train evaluate`, or for --lung `train lung`, wrote"


class Row(BaseModel):
    """One figure with its 95 % interval.

    Attributes:
        metric: What it is.
        value: The estimate; None where it is undefined.
        low: Lower bound.
        high: Upper bound.
        n: Nodules that it is of.
        target: What it was meant to reach, in words or as a number.
        note: What a reader has to know.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    metric: str = Field(validation_alias=AliasChoices("metric", "name"))
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    target: str | float | None = None
    note: str | None = None


class Section(BaseModel):
    """Figures that belong together: one table of the card."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    title: str
    rows: tuple[Row, ...] = ()
    note: str | None = None


class Folds(BaseModel):
    """Which parts of a cross-validation were judged, and of how many."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    judged: tuple[int, ...]
    of: int


def _portable(command: str) -> str:
    """A command without the folders of the machine it ran on."""
    return " ".join(Path(word).name if Path(word).is_absolute() else word for word in command.split(" "))


class Results(BaseModel):
    """The evaluation of a model.

    Attributes:
        sections: Tables, in order; the yardsticks are one of them.
        command: What made the figures, without the folders of the machine that did.
        folds: Which folds were judged; None if that was all of them.
        config: The configuration that was evaluated.
        seconds: How long that took.
        presence: How it is told from SegNet's map whether there is a nodule; only ``train lung`` finds that out.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    sections: tuple[Section, ...] = Field(min_length=1)
    command: Annotated[str, Field(min_length=1), AfterValidator(_portable)]
    folds: Folds | None = None
    config: dict[str, JsonValue] = {}
    seconds: float | None = None
    presence: PresenceSpec | None = None


def _without_nan(value: object) -> object:
    """NaN, which Python's JSON writes for an undefined figure, as None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return value


def read_results(path: Path) -> Results:
    """Read a results file; fields that are not known are ignored.

    Raises:
        ExportError: ``results-unreadable`` with the first thing that is wrong.
    """
    try:
        return Results.model_validate(_without_nan(json.loads(path.read_bytes())))
    except OSError as error:
        reason = error.strerror or str(error)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        reason = f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
    except ValueError as error:
        reason = f"it is not JSON ({error})"
    raise ExportError(f"{path} cannot be used as results: {reason}", hint=_HINT, code="results-unreadable")
