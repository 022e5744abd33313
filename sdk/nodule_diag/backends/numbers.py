"""The numbers that a bundle derives from the network's answers: calibrated P, presence, feature distance, warnings.

The answers are not changed: retrieval, case bases and maps use the network's own answers.
"""

from __future__ import annotations

from typing import NamedTuple

from nodule_diag.backends.backend import Outputs
from nodule_diag.bundle import FEATURES, Bundle
from nodule_diag.errors import BundleError
from nodule_diag.results import Calibration, FeatureDistance, PresenceCalibration, Segmentation


class Told(NamedTuple):
    """The numbers of one nodule; None or False where the bundle does not define them.

    Attributes:
        malignancy: P for a prior of one half.
        calibrated: Whether P was calibrated with diagnoses.
        malignancy_spread: Standard deviation of P over the views.
        presence: The probability that there is a nodule.
        feature_distance: Distance of the features from the training's features; 99 % of nodules are below 1.
        absent: Whether to warn about the presence.
        unlike: Whether to warn about the feature distance.
        too_spread: Whether to warn about the spread.
    """

    malignancy: float
    calibrated: bool
    malignancy_spread: float | None
    presence: float | None
    feature_distance: float | None
    absent: bool
    unlike: bool
    too_spread: bool


class Numbers:
    """The rules of a bundle for its network's answers.

    Attributes:
        threshold: The threshold of SegNet's map.

    Raises:
        BundleError: ``bundle-features`` if the file of the features cannot be used.
    """

    def __init__(self, bundle: Bundle) -> None:
        said = bundle.manifest
        self.threshold = Segmentation.threshold if said.segmentation is None else said.segmentation.threshold
        self._presence = None if said.presence is None else PresenceCalibration(**said.presence.model_dump())
        self._calibration = None if said.calibration is None else Calibration(**said.calibration.model_dump())
        self._distance = _feature_distance(bundle)
        self._spread = said.spread

    def of(self, outputs: Outputs, row: int) -> Told:
        """The numbers of one patch of several."""
        malignancy, spread = self._malignancy(outputs, row)
        known, features = self._distance, outputs.features
        distance = None if known is None or features is None else known.of(features[row])
        presence = None if self._presence is None else self._presence.presence(outputs.segmentation[row])
        return Told(
            malignancy=malignancy,
            calibrated=self._calibration is not None,
            malignancy_spread=spread,
            presence=presence,
            feature_distance=distance,
            absent=self._presence is not None and presence is not None and presence < self._presence.warn_below,
            unlike=distance is not None and distance > 1.0,
            too_spread=self._too_spread(spread, outputs),
        )

    def _malignancy(self, outputs: Outputs, row: int) -> tuple[float, float | None]:
        """P for a prior of one half, and its spread over the views."""
        spread, views = outputs.malignancy_spread, outputs.view_logits
        if self._calibration is None:
            return float(outputs.malignancy[row]), None if spread is None else float(spread[row])
        calibrated = self._calibration.probability(float(outputs.logit[row]))
        return calibrated, None if views is None else self._calibration.spread(views[row].tolist())

    def _too_spread(self, spread: float | None, outputs: Outputs) -> bool:
        """Whether the spread is too large; this is known for one number of views only."""
        known, views = self._spread, outputs.view_logits
        if known is None or views is None or spread is None:
            return False
        return views.shape[1] == known.views and spread > known.warn_above


def _feature_distance(bundle: Bundle) -> FeatureDistance | None:
    known = bundle.manifest.feature_distance
    if known is None:
        return None
    data = bundle.read(known.file)
    try:
        return FeatureDistance.from_bytes(data, size=FEATURES, **known.model_dump(exclude={"file"}))
    except ValueError as error:
        raise BundleError(
            f"{known.file} in the bundle cannot be used: {error}",
            hint="take the bundle from where it was made",
            code="bundle-features",
        ) from error
