"""The part of a manifest about a backend's answers: how far they were from the reference's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from nodule_diag.bundle.fields import Line, Strict


class ParityFigures(Strict):
    """How far a backend's answers are from the reference's; ``parity`` measures and judges them.

    Attributes:
        patches: How many were compared.
        malignancy: Largest absolute difference of P.
        expert_score: Largest absolute difference, on the scale 1..5.
        segmentation: Mean absolute difference of the patch with the largest difference.
        cam: Likewise, among the patches whose CAM was compared.
        cam_patches: How many; without those whose P is 0.5 within the gate, where rounding decides the sign in eq. 6.
        overlap: Share of the reference's similar cases that are found again: mean over patches, in the worst space.
        features: Relative difference of the features, by length, of the patch with the largest difference; None where
            the network gives no features, or they were not compared.
    """

    patches: Annotated[int, Field(ge=1)]
    malignancy: Annotated[float, Field(ge=0.0)]
    expert_score: Annotated[float, Field(ge=0.0)]
    segmentation: Annotated[float, Field(ge=0.0)]
    cam: Annotated[float, Field(ge=0.0)]
    cam_patches: Annotated[int, Field(ge=0)]
    overlap: Annotated[float, Field(ge=0.0, le=1.0)]
    features: Annotated[float, Field(ge=0.0)] | None = None

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out missing features, so that versions that do not know the field read the record, too."""
        written: dict[str, object] = write(self)
        return {name: value for name, value in written.items() if name != "features" or value is not None}


class ParityRecord(ParityFigures):
    """Figures of one backend at one precision, measured when the bundle was made.

    Attributes:
        backend: Its name; a record of a backend that this version does not know is ignored.
        device: What kind of device it ran on.
        precision: What it computed in.
        runtime_version: Version of the backend's runtime.
    """

    backend: Line
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]
    runtime_version: Line
