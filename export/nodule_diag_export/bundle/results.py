"""Reads the JSON that ``nodule-diag train evaluate`` and related commands write: the content of the model card."""

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
        metric: Name of the figure.
        value: The estimate; None where it is undefined.
        low: Lower bound.
        high: Upper bound.
        n: Number of nodules.
        target: The target, in words or as a number.
        note: What a reader has to know.
        group: Group of nodules: a line of its table, whose columns are the metrics.
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
    """The judged parts of a cross-validation, and the number of all parts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    judged: tuple[int, ...]
    of: int


def _portable(command: str) -> str:
    """A command without the folders of the machine it ran on."""
    return " ".join(Path(word).name if Path(word).is_absolute() else word for word in command.split(" "))


class Features(BaseModel):
    """The result of ``train distance``: :class:`nodule_diag.bundle.FeatureDistanceSpec`, and its file.

    Attributes:
        components: Number of principal components.
        rest_variance: Variance along each other direction.
        warn_above: The distance that 99 % of held-out nodules stay below.
        checkpoint_sha256: SHA-256 of the model whose features these are.
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
        command: The command that made the figures, without the folders of its machine.
        folds: The judged folds; None if all were judged.
        config: The configuration that was evaluated.
        seconds: Time that this took.
        segmentation: The threshold for SegNet's map; only ``train evaluate`` of several folds finds one.
        presence: How SegNet's map gives the presence of a nodule; only ``train lung`` finds this out.
        calibration: The numbers that make P a probability; only from ``train calibrate``.
        feature_distance: The features in training; only from ``train distance``.
        spread: The spread above which P is doubtful; only from ``train spread``, where there is such a value.
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
    """Read a results file, or .xz of it; unknown fields are ignored.

    Raises:
        ExportError: ``results-unreadable`` with the first fault.
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
