"""Reads the JSON that ``nodule-diag train evaluate`` and its neighbours write: what the model card has to say."""

from __future__ import annotations

import json
import lzma
import math
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, Base64Bytes, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from nodule_diag.bundle import CalibrationSpec, PresenceSpec, SegmentationSpec, SpreadSpec
from nodule_diag_export.errors import ExportError

_HINT = (
    "give the JSON that `nodule-diag train evaluate` wrote; `train lung` for --lung, `train calibrate` for"
    " --calibration, `train distance` for --distance, `train spread` for --spread"
)


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
        group: Of nodules: a line of its table, whose columns are the metrics.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    metric: str = Field(validation_alias=AliasChoices("metric", "name"))
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    target: str | float | None = None
    note: str | None = None
    group: str | None = None


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


class Features(BaseModel):
    """What ``train distance`` fitted: :class:`nodule_diag.bundle.FeatureDistanceSpec`, and its file.

    Attributes:
        components: How many principal components.
        rest_variance: Along each other direction.
        warn_above: The distance that 99 % of held-out nodules stay below.
        checkpoint_sha256: Of the model whose features they are.
        data: The file, base64.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    components: int
    rest_variance: float
    warn_above: float
    checkpoint_sha256: str
    data: Base64Bytes


class Results(BaseModel):
    """The evaluation of a model.

    Attributes:
        sections: Tables, in order; the yardsticks are one of them.
        command: What made the figures, without the folders of the machine that did.
        folds: Which folds were judged; None if that was all of them.
        config: The configuration that was evaluated.
        seconds: How long that took.
        segmentation: Where SegNet's map is cut; only ``train evaluate`` of several folds finds that out.
        presence: How it is told from SegNet's map whether there is a nodule; only ``train lung`` finds that out.
        calibration: What makes P a probability; only ``train calibrate``.
        feature_distance: What the features looked like in training; only ``train distance``.
        spread: From which spread on P is doubtful; only ``train spread``, where there is such a value.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    sections: tuple[Section, ...] = Field(min_length=1)
    command: Annotated[str, Field(min_length=1), AfterValidator(_portable)]
    folds: Folds | None = None
    config: dict[str, JsonValue] = {}
    seconds: float | None = None
    segmentation: SegmentationSpec | None = None
    presence: PresenceSpec | None = None
    calibration: CalibrationSpec | None = None
    feature_distance: Features | None = None
    spread: SpreadSpec | None = None


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
    """Read a results file, or .xz of it; fields that are not known are ignored.

    Raises:
        ExportError: ``results-unreadable`` with the first thing that is wrong.
    """
    try:
        text = path.read_bytes()
        document = json.loads(lzma.decompress(text) if path.suffix == ".xz" else text)
        return Results.model_validate(_without_nan(document))
    except OSError as error:
        reason = error.strerror or str(error)
    except lzma.LZMAError as error:
        reason = f"it is not compressed by xz ({error})"
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        reason = f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
    except ValueError as error:
        reason = f"it is not JSON ({error})"
    raise ExportError(f"{path} cannot be used as results: {reason}", hint=_HINT, code="results-unreadable")
