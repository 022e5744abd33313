"""What a bundle makes of the network's answers: P against diagnoses, presence, distance from the training, doubts.

The answers stay as they are: retrieval, case bases and maps are of what the network says.
"""

from __future__ import annotations

from typing import NamedTuple

from nodule_diag.backends.backend import Outputs
from nodule_diag.bundle import FEATURES, Bundle
from nodule_diag.errors import BundleError
from nodule_diag.results import Calibration, FeatureDistance, PresenceCalibration, Segmentation


class Told(NamedTuple):
    """The numbers of one nodule; None or False where the bundle does not say how they are made.

    Attributes:
        malignancy: P for a prior of one half.
        calibrated: Whether it was held against diagnoses.
        malignancy_spread: Standard deviation of P over the views.
        presence: How likely there is a nodule.
        feature_distance: How far the features are from those of training; 99 % of nodules are below 1.
        absent: Whether presence is to be warned of.
        unlike: Whether the distance is.
        too_spread: Whether the spread is.
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
    """What a bundle says of its network's answers.

    Attributes:
        threshold: Where SegNet's map is cut.

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
        """Known for one number of views only."""
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
