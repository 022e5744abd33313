"""The configuration of one training run: frozen, written into the run's folder, and compared when the run resumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from nodule_diag_training.losses import DEFAULT_MARGIN, SCORE_LOSSES, MarginMode
from nodule_diag_training.systems import SYSTEMS, System, SystemName

MINIMUM_STAGE_SIZE = 32
Scenario = Literal["1/2345", "12/345", "12/45", "123/45", "1234/5"]
"""Which rounded mean scores are benign and which malignant (Table 6)."""
Modality = Literal["64", "x", "x-resize-64", "x-padding-64"]
"""Input of Table 5: the whole 64-cube; the nodule's own cube; this cube resized to 64; this cube zero-padded to 64."""
Precision = Literal["fp32", "bf16"]
"""Precision of the convolutions; heads, losses and weights are float32 in both."""


class Stage(BaseModel):
    """Steps at one patch size. The model takes any multiple of 4, and a patch costs in proportion to its volume.

    A 40-cube (20 mm) costs a quarter of a 64-cube; the last stage is at 64, the size that the model is used at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=MINIMUM_STAGE_SIZE, multiple_of=4)
    steps: int = Field(ge=1)


class TrainingConfig(BaseModel):
    """One run of the synergic model. The defaults are the paper's wherever the paper names a value.

    Attributes:
        system: Modules and guidance, by name (``systems.SYSTEMS``); A to J are the rows of Table 1.
        cohort: ``paper`` for the 521 shared nodules of the paper's cohort and the cubes in it, ``all`` for every nodule
            with reader scores: a product also meets part-solid nodules and nodules that readers disagree on.
        stages: Patch sizes and steps, in order.
        unsure_per_step: Unsure nodules in a step (1 in the paper).
        sure_per_step: Sure nodules in a step (1 in the paper; at 0 they come only by chance, among the unsure draws).
            Nodules that teach the system nothing are not drawn at all (``unsure_draws``, ``sure_draws``).
        lung_per_step: Places in lung without a nodule in a step, in addition to the nodules. There SegNet learns to
            find nothing, and the other modules learn nothing (``data.lung``).
        sure_teaches_unsure: A diagnosed LIDC nodule also has reader scores and a mask, so it belongs to both sets. With
            this option, such a nodule that is drawn as sure also counts in L_seg and L_reg.
        scores_teach_cnet: CNet also learns from undiagnosed nodules: a mean score below 3 counts as benign, above 3 as
            malignant. This is near the paper's mixed training, scenario 12/345 of Table 6.
        constant_confidence: ad-CSL's confidence is a weight without gradient (``losses.adaptive_cam_sem_loss``).
        ad_csl_on_all: ad-CSL, which needs no label, also guides the nodules that teach CNet nothing.
        scenario: Label scenario of Table 6: an undiagnosed nodule is malignant for CNet if its rounded mean score is
            right of the slash, and benign if it is left. A score on neither side teaches CNet nothing (3 in ``12/45``).
            A system without RNet leaves nodules with such a score out, as the paper does.
        diagnosis_teaches: Whether the model learns from diagnoses; the rows "unsure" of Table 6 and all of Table 7
            learn from scores alone.
        score_loss: How RNet learns the score, one of ``losses.SCORE_LOSSES``: ``mse`` (eq. 2), or Table 3's
            ``cross-entropy`` over the five rounded scores and ``ordinal`` (soft labels of Diaz and Marathe 2019).
        diagnosis_as_score: RNet takes a sure nodule's diagnosis as the lowest or highest score (Table 6, RNet, unsure +
            sure).
        input: Modality of Table 5.
        margin_mode: Table 4: ``nodule`` requires that the CAM on the nodule exceeds the background's by the margin
            (eq. 10), ``background`` the reverse (eq. 15).
        mask_target: SegNet's target for a cell of its grid: the ``share`` that the reader mask fills, or whether the
            mask fills ``half`` of the cell. For shares, eq. 1 is lowest when every cell above about 0.4 is found, so
            small nodules come out too large.
        cue_hu: Amplitude in HU of a background cue that reveals the scenario's label (``confounder``); 0 for none.
        cube_share: Share of cubes among the unsure draws; the surroundings of cubes are real.
        margin: delta of eq. 10.
        score_weight: gamma of eq. 12.
        learning_rate: Peak of Adam's rate.
        head_rate: Factor on this rate for RNet and CNet, which distinguish nodules by small differences between large
            means, and for the scale and shift of SegNet's last layer, which have to change a lot.
        head_mean_share: Share of these heads' gradient that is kept along the batch's mean pooled features. All nodules
            have this direction in common, so a step along it moves every output at once. At 1, this direction limits
            the rate of the heads.
        schedule: ``constant`` as in the paper; ``one-cycle``: up for a tenth of the steps, then a cosine to nearly 0;
            or ``annealing``: up for a tenth, while Adam's moments form, then linearly down to 0.
        accumulate: Batches whose gradients are added up before a step; each batch has ``unsure_per_step`` and
            ``sure_per_step`` nodules.
        validation_share: Share of the training patients that is set aside to choose the best checkpoint (0.2 in the
            paper); at 0 the last checkpoint is kept.
        validate_every: Steps between two validations.
        best_by: Which validation loss chooses: ``classification`` (benign and malignant weigh the same), ``total``
            (eq. 12), or ``auto`` (``validation.criterion``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: SystemName = "J"
    cohort: Literal["paper", "all"] = "paper"
    stages: tuple[Stage, ...] = (Stage(size=64, steps=1000),)
    unsure_per_step: int = Field(default=1, ge=0)
    sure_per_step: int = Field(default=1, ge=0)
    lung_per_step: int = Field(default=0, ge=0)
    sure_teaches_unsure: bool = False
    scores_teach_cnet: bool = False
    constant_confidence: bool = False
    ad_csl_on_all: bool = False
    scenario: Scenario | None = None
    diagnosis_teaches: bool = True
    score_loss: str = "mse"
    diagnosis_as_score: bool = False
    input: Modality = "64"
    margin_mode: MarginMode = "nodule"
    mask_target: Literal["share", "half"] = "share"
    cue_hu: float = Field(default=0.0, ge=0.0)
    cube_share: float = Field(default=0.35, ge=0.0, le=1.0)
    margin: float = Field(default=DEFAULT_MARGIN, ge=-1.0, le=1.0)
    score_weight: float = Field(default=1.0, ge=0.0)
    learning_rate: float = Field(default=1e-3, gt=0.0)
    head_rate: float = Field(default=1.0, gt=0.0)
    head_mean_share: float = Field(default=1.0, gt=0.0, le=1.0)
    schedule: Literal["constant", "one-cycle", "annealing"] = "constant"
    precision: Precision = "fp32"
    accumulate: int = Field(default=1, ge=1)
    validation_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    validate_every: int = Field(default=50, ge=1)
    best_by: Literal["auto", "classification", "total"] = "auto"
    seed: int = 0
    checkpoint_every: int = Field(default=50, ge=1)

    @field_validator("score_loss")
    @classmethod
    def _is_a_score_loss(cls, value: str) -> str:
        if value not in SCORE_LOSSES:
            raise ValueError(f"{value!r} is none of {', '.join(SCORE_LOSSES)}")
        return value

    @model_validator(mode="after")
    def _means_something(self) -> TrainingConfig:
        if not self.stages:
            raise ValueError("a run needs at least one stage")
        if not self.modules.rnet:
            self._refuse("score_loss", self.score_loss != "mse", "system {} has no RNet: leave it at 'mse'")
            self._refuse("diagnosis_as_score", self.diagnosis_as_score, "system {} has no RNet: leave it false")
        self._refuse(
            "lung_per_step", self.lung_per_step > 0 and not self.modules.segnet, "system {} has no SegNet: set 0"
        )
        self._refuse("lung_per_step", self.lung_per_step > 0 and self.input != "64", "leave input at '64'")
        if not self.modules.cnet:
            self._refuse("scenario", self.scenario is not None, "system {} has no CNet to learn labels: leave it null")
        if not self.modules.compares_segmentation:
            background = self.margin_mode == "background"
            self._refuse("margin_mode", background, "system {} has no CSL: leave it at 'nodule', or take I or J")
        both = self.scenario is not None and self.scores_teach_cnet
        self._refuse("scenario", both, "it takes the place of scores_teach_cnet: set that to false")
        contrary = self.diagnosis_as_score and not self.diagnosis_teaches
        self._refuse("diagnosis_as_score", contrary, "it needs diagnosis_teaches: set that to true")
        cut = self.cue_hu > 0.0 and self.input != "64"
        self._refuse("cue_hu", cut, "it lies in the background: leave input at '64'")
        without_label = self.cue_hu > 0.0 and (self.scenario is None or self.sure_draws > 0)
        self._refuse("cue_hu", without_label, "it tells the scenario's label: name one, with sure_per_step 0")
        if self.modules.cnet:
            untaught = self.scenario is None and not self.scores_teach_cnet
            self._refuse(
                "sure_per_step",
                untaught and self.diagnosis_teaches and self.sure_per_step == 0,
                "diagnoses are all that CNet learns: set it to 1 or more, or name a scenario",
            )
            self._refuse(
                "diagnosis_teaches", untaught and not self.diagnosis_teaches, "CNet learns nothing: name a scenario"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before_lung(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out ``lung_per_step`` at 0, so that files of runs without lung keep the bytes of older versions."""
        found: dict[str, Any] = handler(self)
        if not self.lung_per_step:
            del found["lung_per_step"]
        return found

    def _refuse(self, field: str, refused: bool, reason: str) -> None:
        if refused:
            raise ValueError(f"{field}={getattr(self, field)!r}: {reason.format(self.system)}")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed and validated; pydantic's own method would not validate them."""
        return type(self)(**dict(super().model_copy(update=update, deep=deep)))

    @property
    def modules(self) -> System:
        """The modules and guidance that ``system`` names."""
        return SYSTEMS[self.system]

    @property
    def scores_label(self) -> bool:
        """Whether CNet learns from the scores of undiagnosed nodules."""
        return self.modules.cnet and (self.scenario is not None or self.scores_teach_cnet)

    @property
    def unsure_draws(self) -> int:
        """Unsure nodules in a step: none where they teach the system nothing, as in A without a scenario."""
        return self.unsure_per_step if self.modules.segnet or self.modules.rnet or self.scores_label else 0

    @property
    def sure_draws(self) -> int:
        """Sure nodules in a step: none where neither their diagnoses nor their scores and masks teach the system."""
        by_diagnosis = self.diagnosis_teaches and (self.modules.cnet or self.diagnosis_as_score)
        as_unsure = self.sure_teaches_unsure and (self.modules.segnet or self.modules.rnet)
        return self.sure_per_step if by_diagnosis or as_unsure else 0

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def in_precision(self, precision: Precision | None) -> TrainingConfig:
        """This configuration with its convolutions in another precision; None leaves it as it is."""
        return self if precision is None else self.model_copy(update={"precision": precision})

    def patch_size(self, step: int) -> int:
        """The patch size of a step counted from 0."""
        for stage in self.stages:
            if step < stage.steps:
                return stage.size
            step -= stage.steps
        raise ValueError(f"step {step} lies beyond the last stage")


RECIPE = TrainingConfig(
    system="J",
    cohort="all",
    stages=(Stage(size=40, steps=2400), Stage(size=64, steps=1500)),
    unsure_per_step=8,
    sure_per_step=0,
    lung_per_step=2,
    sure_teaches_unsure=True,
    scores_teach_cnet=True,
    constant_confidence=True,
    ad_csl_on_all=True,
    mask_target="half",
    margin=0.9,
    score_weight=4.0,
    learning_rate=8e-4,
    head_rate=10.0,
    head_mean_share=0.05,
    schedule="one-cycle",
    precision="bf16",
    seed=7,
)
"""The packaged model in one run, from scratch. docs/training.md says what each departure is worth. Some reasons:

* ``cohort``: a product also meets part-solid nodules and nodules that readers disagree on.
* ``stages``: 40-cubes cost a quarter, and the model learns most from them; the last 12,000 draws are whole patches,
  the size that the model is used at. A change of size shifts the pooled features, so there is only one change.
* ``sure_per_step``: diagnosed nodules are drawn as often as any other. With one in every step, the 29 benign ones
  come so often that P gets worse on other nodules.
* ``margin``: in Table 4, 0.9 costs no AUC against 0.5 and leaves the background cleaner.
* ``precision``: bf16 halves the time of a step where the CPU or GPU has bf16; the heads stay in float32.
* ``seed``: the seed of the first run by hand. No other seed was tried.
* ``lung_per_step``: trained on nodules alone, a model finds nodules ever more surely where there is none (P of 0.5
  and more at 65 % of random places in a lung). 2 places to 8 nodules: both teach SegNet in every step.
"""

OWN_NODULES = RECIPE.model_copy(update={"lung_per_step": 0, "sure_per_step": 1})
"""``RECIPE`` for stores. Stores hold no lung without a nodule, and a diagnosed nodule without scores or outline is
drawn as a sure nodule or not at all."""
