"""The reports on what a bundle makes of its network's answers, as the manifest, a file and the card need them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from nodule_diag.bundle import FEATURES, CalibrationSpec, FeatureDistanceSpec, PresenceSpec, SpreadSpec
from nodule_diag.results import FeatureDistance
from nodule_diag_export.errors import ExportError

from .results import Results, read_results

FEATURES_FILE = "features.f32"


@dataclass(frozen=True, kw_only=True)
class NumberFiles:
    """The paths of the reports; None leaves a number out of the bundle.

    Attributes:
        lung: What ``train lung`` wrote: the probability that there is a nodule at all.
        calibration: What ``train calibrate`` wrote: P against diagnoses.
        distance: What ``train distance`` wrote: how far a patch is from the training patches.
        spread: What ``train spread`` wrote: the spread above which P is doubtful.
    """

    lung: Path | None = None
    calibration: Path | None = None
    distance: Path | None = None
    spread: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The contents of the reports.

    Attributes:
        reports: Reports, by the option that named them.
        options: The options, for the command that the bundle names.
        presence: For the manifest.
        calibration: Likewise.
        feature_distance: Likewise.
        spread: Likewise; None also where no spread is too large.
        files: Files for the bundle.
    """

    reports: Mapping[str, Results] = field(default_factory=dict)
    options: str = ""
    presence: PresenceSpec | None = None
    calibration: CalibrationSpec | None = None
    feature_distance: FeatureDistanceSpec | None = None
    spread: SpreadSpec | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


def read_numbers(files: NumberFiles, *, checkpoint: Path) -> Numbers:
    """Read the reports.

    Args:
        files: Where they are.
        checkpoint: The exported model; the distance must be of its features.

    Raises:
        ExportError: ``results-unreadable`` if one is another report; ``distance-of-another`` if it is another model's.
    """
    named: dict[str, Path] = {f.name: path for f in fields(files) if (path := getattr(files, f.name)) is not None}
    reports = {name: read_results(path) for name, path in named.items()}
    for name, of_it in (("lung", "presence"), ("calibration", "calibration"), ("distance", "feature_distance")):
        if name in reports and getattr(reports[name], of_it) is None:
            raise ExportError(
                f"{named[name]} says nothing of {of_it}",
                hint=f"give --{name} what its own command wrote: nodule-diag train --help",
                code="results-unreadable",
            )
    spec, data = _features(reports["distance"], checkpoint) if "distance" in reports else (None, {})
    return Numbers(
        reports=reports,
        options="".join(f" --{name} {path.name}" for name, path in named.items()),
        presence=reports["lung"].presence if "lung" in reports else None,
        calibration=reports["calibration"].calibration if "calibration" in reports else None,
        feature_distance=spec,
        spread=reports["spread"].spread if "spread" in reports else None,
        files=data,
    )


def _features(report: Results, checkpoint: Path) -> tuple[FeatureDistanceSpec | None, dict[str, bytes]]:
    found = report.feature_distance
    if found is None:
        return None, {}
    if found.checkpoint_sha256 != hashlib.sha256(checkpoint.read_bytes()).hexdigest():
        raise ExportError(
            f"the features of --distance are not those of {checkpoint.name}",
            hint="measure them: nodule-diag train distance FOLDS --of RUN",
            code="distance-of-another",
        )
    numbers = found.model_dump(include={"components", "rest_variance", "warn_above"})
    try:
        FeatureDistance.from_bytes(found.data, size=FEATURES, **numbers)
    except ValueError as error:
        raise ExportError(f"the features of --distance cannot be used: {error}", code="results-unreadable") from error
    return FeatureDistanceSpec(file=FEATURES_FILE, **numbers), {FEATURES_FILE: found.data}
