"""What a manifest says of a backend's answers: how far they were from the reference's."""

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
        segmentation: Mean absolute difference of the patch where that is largest.
        cam: Likewise, of the patches whose CAM was compared.
        cam_patches: How many those were: where P is 0.5 to within the gate, rounding decides the sign in eq. 6.
        overlap: Share of the reference's similar cases that are found again: mean over patches, in the worst space.
        features: Of the features of the patch where it is largest: length of the difference by length; None where the
            network gives none, or it was not measured.
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
        """Without features where there are none, so that versions that do not know the field read it, too."""
        written: dict[str, object] = write(self)
        return {name: value for name, value in written.items() if name != "features" or value is not None}


class ParityRecord(ParityFigures):
    """Figures of one backend at one precision, measured when the bundle was made.

    Attributes:
        backend: Which; one that this version does not know is of no use to it, and no fault.
        device: What kind of device it ran on.
        precision: What it computed in.
        runtime_version: Of the backend's runtime.
    """

    backend: Line
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]
    runtime_version: Line
