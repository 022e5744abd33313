"""A bundle's ``manifest.json`` as pydantic models: text from outside is validated here and nowhere else.

Unknown fields are refused: a manifest that asks for something this version does not know must not be applied in part.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from nodule_diag.bundle.calibration import (
    CalibrationSpec,
    FeatureDistanceSpec,
    PresenceSpec,
    SegmentationSpec,
    SpreadSpec,
)
from nodule_diag.bundle.fields import Line, LongText, RelativePath, Sha256, Strict, require_apart
from nodule_diag.bundle.parity import ParityRecord
from nodule_diag.errors import BackendError
from nodule_diag.preprocessing import (
    GRID_SIZE,
    LUNG_WINDOW_HU,
    MEDIASTINAL_WINDOW_HU,
    OUTSIDE_LUNG_HU,
    PATCH_SIZE,
    PATCH_SPACING_MM,
)

SCHEMA_VERSION: Final = "nodule-diag/bundle/2"
MANIFEST_NAME = "manifest.json"
MODEL_CARD_NAME = "MODEL_CARD.md"
MAX_K: Final = 10_000
"""The most similar cases that may be asked for: each result holds this many per space."""
FEATURES: Final = 256
"""How many features F_k (paper eq. 4) CNet and RNet read."""


class Preprocessing(Strict):
    """How the model's input is made from a CT (paper 4.2).

    Attributes:
        patch_size: Edge of the input cube in voxels.
        spacing_mm: Its isotropic voxel size.
        windows_hu: One HU window per channel: lung, mediastinal.
        masked_input: Whether step 8 (CT times lung mask) was applied in training and so must be in prediction.
        outside_lung_hu: HU of voxels outside the mask when ``masked_input``.
    """

    patch_size: int = PATCH_SIZE
    spacing_mm: float = PATCH_SPACING_MM
    windows_hu: tuple[tuple[float, float], tuple[float, float]] = (LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU)
    masked_input: bool
    outside_lung_hu: float = OUTSIDE_LUNG_HU

    @model_validator(mode="after")
    def _is_what_this_sdk_does(self) -> Self:
        """The SDK has one preprocessing: a model that was trained with another must not be run with it."""
        for name, field in type(self).model_fields.items():
            if not field.is_required() and getattr(self, name) != field.default:
                raise ValueError(f"{name} is {getattr(self, name)}; this version prepares {field.default}")
        return self


class TensorSpec(Strict):
    """A named tensor. The first axis is the batch, written as a word; the others are numbers."""

    name: Line
    shape: Annotated[tuple[int | Line, ...], Field(min_length=1, max_length=6)]


def _require_shape(tensor: TensorSpec, sizes: tuple[int, ...]) -> None:
    if tensor.shape[1:] != sizes or not isinstance(tensor.shape[0], str):
        raise ValueError(f"tensor {tensor.name} has shape {list(tensor.shape)}; expected {['B', *sizes]}")


_MAP = (GRID_SIZE,) * 3
_OUTPUT_SIZES = {"segmentation": _MAP, "cam": _MAP, "raw_cam": _MAP, "features": (FEATURES,)}


class ModelOutputs(Strict):
    """The five outputs, and two optional ones, each bound by name."""

    malignancy: TensorSpec = TensorSpec(name="malignancy", shape=("B",))
    logit: TensorSpec = TensorSpec(name="logit", shape=("B",))
    expert_score: TensorSpec = TensorSpec(name="expert_score", shape=("B",))
    segmentation: TensorSpec = TensorSpec(name="segmentation", shape=("B", GRID_SIZE, GRID_SIZE, GRID_SIZE))
    cam: TensorSpec = TensorSpec(name="cam", shape=("B", GRID_SIZE, GRID_SIZE, GRID_SIZE))
    raw_cam: TensorSpec | None = None
    features: TensorSpec | None = None

    def given(self) -> dict[str, TensorSpec]:
        """The outputs that this network has, by field."""
        return {field: spec for field, spec in self if spec is not None}

    @model_serializer
    def _written(self) -> dict[str, TensorSpec]:
        """Leave out missing outputs, so that versions that do not know these fields read the manifest, too."""
        return self.given()

    @model_validator(mode="after")
    def _known_shapes(self) -> Self:
        given = self.given()
        for field, spec in given.items():
            _require_shape(spec, _OUTPUT_SIZES.get(field, ()))
        names = [spec.name for spec in given.values()]
        if len(set(names)) != len(names):
            raise ValueError(f"two outputs share a tensor name: {names}")
        return self


ReducedPrecision = Literal["bf16", "fp16"]
"""The number format of a reduced graph's convolutions; the rest of the graph is fp32, inputs and outputs too."""


class ReducedModel(Strict):
    """The same network with convolutions of reduced precision.

    Attributes:
        file: Its ONNX file, whose tensors have the same names and shapes as in the fp32 file.
        opset: Version of the standard operator set.
        parity: Its measured difference from the fp32 file, and the gates that it passed.
    """

    file: RelativePath
    opset: Annotated[int, Field(ge=1, le=100)]
    parity: dict[str, JsonValue]


class WinogradModel(Strict):
    """The fp32 network with fewer products (:mod:`nodule_diag.backends.winograd`).

    Attributes:
        file: Its ONNX file: nodes only, the weights are those of the fp32 file.
        kernels: The ONNX file that makes the transformed kernels from these weights: no inputs, one output per kernel.
        opset: Version of the standard operator set.
    """

    file: RelativePath
    kernels: RelativePath
    opset: Annotated[int, Field(ge=1, le=100)]


class ModelSpec(Strict):
    """The ONNX file and its tensors.

    Attributes:
        file: The fp32 network.
        opset: Version of the standard operator set.
        reduced: Graphs of reduced precision, each of which passed its gate when it was exported.
        winograd: The fp32 network with fewer products, where the bundle holds it.
        input: The one input.
        outputs: The five outputs, and the optional ones.
    """

    file: RelativePath = "model.onnx"
    opset: Annotated[int, Field(ge=1, le=100)]
    reduced: dict[ReducedPrecision, ReducedModel] = Field(default_factory=dict)
    winograd: WinogradModel | None = None
    input: TensorSpec = TensorSpec(name="patch", shape=("B", 2, PATCH_SIZE, PATCH_SIZE, PATCH_SIZE))
    outputs: ModelOutputs = ModelOutputs()

    @model_validator(mode="after")
    def _known_input(self) -> Self:
        _require_shape(self.input, (2, PATCH_SIZE, PATCH_SIZE, PATCH_SIZE))
        return self

    def file_of(self, precision: str) -> str:
        """The ONNX file of a precision: ``fp32``, ``bf16`` or ``fp16``.

        Raises:
            BackendError: ``precision-unavailable`` when the bundle has none.
        """
        files = {"fp32": self.file} | {str(name): model.file for name, model in self.reduced.items()}
        if precision not in files:
            raise BackendError(
                f"precision {precision} is not available: the bundle holds {', '.join(files)}",
                hint=f"use one of these, or add it: nodule-diag export precision BUNDLE --precision {precision}",
                code="precision-unavailable",
            )
        return files[precision]


class ScoreScale(Strict):
    """The readers' scale that ``expert_score`` is on (LIDC: 1 highly unlikely .. 5 highly suspicious)."""

    min: Literal[1] = 1
    max: Literal[5] = 5


class RetrievalSpec(Strict):
    """The historical cases (paper 3.3).

    Attributes:
        k: How many cases make a diagnosis unless the caller says otherwise (paper: 20).
        cases: The case base.
    """

    k: Annotated[int, Field(ge=1, le=MAX_K)] = 20
    cases: RelativePath = "index/cases.sqlite"


class Golden(Strict):
    """Answers of the fp32 network to made-up nodules (:mod:`nodule_diag.backends.golden`).

    Attributes:
        file: The answers.
        seeds: Seeds of the nodules, in the file's order.
        patches_sha256: The hash of the patches that the seeds gave where the answers were computed.
    """

    file: RelativePath
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=8, max_length=64)]
    patches_sha256: Sha256


_NUMBERS = frozenset({"segmentation", "presence", "calibration", "feature_distance", "spread"})


class Manifest(Strict):
    """``manifest.json``: what the bundle is, and the sha256 of everything else in it."""

    schema_version: Literal["nodule-diag/bundle/2"] = SCHEMA_VERSION
    name: Line
    version: Line
    created: Line
    license: Line
    intended_use: LongText
    preprocessing: Preprocessing
    model: ModelSpec
    expert_score_scale: ScoreScale = ScoreScale()
    retrieval: RetrievalSpec = RetrievalSpec()
    segmentation: SegmentationSpec | None = None
    presence: PresenceSpec | None = None
    calibration: CalibrationSpec | None = None
    feature_distance: FeatureDistanceSpec | None = None
    spread: SpreadSpec | None = None
    training: dict[str, JsonValue] = Field(default_factory=dict)
    parity: Annotated[tuple[ParityRecord, ...], Field(max_length=100)] = ()
    golden: Golden | None = None
    files: Annotated[dict[RelativePath, Sha256], Field(max_length=1000), AfterValidator(require_apart)] = Field(
        default_factory=dict
    )

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out missing numbers, so that versions that do not know these fields read the manifest, too."""
        written: dict[str, object] = write(self)
        return {name: value for name, value in written.items() if name not in _NUMBERS or value is not None}

    @model_validator(mode="after")
    def _has_features(self) -> Self:
        if self.feature_distance is not None and self.model.outputs.features is None:
            raise ValueError("feature_distance is of features, and the network gives none")
        return self

    def required_files(self) -> tuple[str, ...]:
        """Every file that the rest of the manifest names, without repeats."""
        named = [MODEL_CARD_NAME, self.model.file, self.retrieval.cases]
        named += [model.file for model in self.model.reduced.values()]
        named += [] if self.model.winograd is None else [self.model.winograd.file, self.model.winograd.kernels]
        named += [part.file for part in (self.golden, self.feature_distance) if part is not None]
        return tuple(dict.fromkeys(named))
