"""What a manifest says of the numbers that are made of the network's answers; each of them was fitted out of fold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nodule_diag.bundle.fields import RelativePath, Strict


class PresenceSpec(Strict):
    """What turns SegNet's map into how likely there is a nodule (:class:`nodule_diag.results.PresenceCalibration`).

    Attributes:
        scale: Of the evidence.
        shift: Added to it.
        warn_below: A lower presence is warned of.
    """

    scale: Annotated[float, Field(gt=0.0)]
    shift: float
    warn_below: Annotated[float, Field(ge=0.0, le=1.0)]


class SegmentationSpec(Strict):
    """Where SegNet's map is cut (:class:`nodule_diag.results.Segmentation`).

    Attributes:
        threshold: From which a sub-voxel belongs to the nodule.
    """

    threshold: Annotated[float, Field(gt=0.0, lt=1.0)]


class CalibrationSpec(Strict):
    """What turns S into P (:class:`nodule_diag.results.Calibration`): the sigmoid of slope * S + intercept.

    Attributes:
        slope: Above 0, so that the order of nodules stays.
        intercept: Added to it.
    """

    slope: Annotated[float, Field(gt=0.0)]
    intercept: float


class FeatureDistanceSpec(Strict):
    """What the network's features looked like in training (:class:`nodule_diag.results.FeatureDistance`).

    Attributes:
        file: Mean, variances and principal components, little-endian float32.
        components: How many principal components it holds.
        rest_variance: Mean variance along each of the other directions.
        warn_above: The distance that is warned of, and of which distances are told as multiples.
    """

    file: RelativePath
    components: Annotated[int, Field(ge=1, le=128)]
    rest_variance: Annotated[float, Field(gt=0.0)]
    warn_above: Annotated[float, Field(gt=0.0)]


class SpreadSpec(Strict):
    """From which spread over the symmetries on answers were wrong twice as often.

    Attributes:
        views: How many views the spread was of.
        warn_above: A larger spread of P is warned of; in terms of the P that is told.
    """

    views: Annotated[int, Field(ge=2, le=48)]
    warn_above: Annotated[float, Field(gt=0.0, le=0.5)]
