"""The parts of a manifest for numbers that are computed from the network's answers; each was fitted out of fold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nodule_diag.bundle.fields import RelativePath, Strict


class PresenceSpec(Strict):
    """Turns SegNet's map into the probability of a nodule (:class:`nodule_diag.results.PresenceCalibration`).

    Attributes:
        scale: Factor of the evidence.
        shift: Added to the scaled evidence.
        warn_below: A lower presence gives a warning.
    """

    scale: Annotated[float, Field(gt=0.0)]
    shift: float
    warn_below: Annotated[float, Field(ge=0.0, le=1.0)]


class SegmentationSpec(Strict):
    """The threshold of SegNet's map (:class:`nodule_diag.results.Segmentation`).

    Attributes:
        threshold: The probability from which a sub-voxel belongs to the nodule.
    """

    threshold: Annotated[float, Field(gt=0.0, lt=1.0)]


class CalibrationSpec(Strict):
    """Turns S into P (:class:`nodule_diag.results.Calibration`): the sigmoid of slope * S + intercept.

    Attributes:
        slope: Above 0, so that the order of nodules does not change.
        intercept: Added to slope * S.
    """

    slope: Annotated[float, Field(gt=0.0)]
    intercept: float


class FeatureDistanceSpec(Strict):
    """The distribution of the network's features in training (:class:`nodule_diag.results.FeatureDistance`).

    Attributes:
        file: Mean, variances and principal components, little-endian float32.
        components: How many principal components it holds.
        rest_variance: Mean variance along each of the other directions.
        warn_above: A larger distance gives a warning. Distances are reported as multiples of this value.
    """

    file: RelativePath
    components: Annotated[int, Field(ge=1, le=128)]
    rest_variance: Annotated[float, Field(gt=0.0)]
    warn_above: Annotated[float, Field(gt=0.0)]


class SpreadSpec(Strict):
    """The spread over the symmetries above which answers were wrong twice as often.

    Attributes:
        views: How many views the spread is over.
        warn_above: A larger spread of the reported P gives a warning.
    """

    views: Annotated[int, Field(ge=2, le=48)]
    warn_above: Annotated[float, Field(gt=0.0, le=0.5)]
