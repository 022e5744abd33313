"""The record of one fold of an experiment: every table and figure is made from records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from nodule_diag.process import write_bytes
from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import Certainty, CueTest, TrainingDataError
from nodule_diag_training.engine import LABELS
from nodule_diag_training.evaluation import STORES

from .catalogue import Experiment
from .columns import ColumnsError, parse, serialised
from .schedules import ScheduleName

RECORD_FORMAT = 2
"""Increased when the content of a nodule's record changes: older results are then judged again."""
CODE_SHOWN = 8
"""Characters of the code's digest that people see."""
Float32 = Annotated[float, AfterValidator(lambda value: float(np.float32(value)))]
"""A number as it is stored. The network answers in float32, and no figure of a table has more digits."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CamFigures(_Frozen):
    """How much of a nodule's CAM_c lies on the nodule (section 4 and ``faithfulness``).

    Attributes:
        nodule: AvgCAM over the reader mask (eq. 8), 0..1.
        background: AvgCAM over the rest (eq. 9), 0..1.
        energy: Share of the CAM's sum inside the dilated nodule; None where the CAM is flat.
        pointing: Share of the CAM's maxima inside the dilated nodule: 0 or 1 unless several cells tie.
        iou: IoU of the thresholded CAM with the reader mask, on the grid.
        deletion: Area under the predicted class's probability as the CAM's highest cells are blurred; None where it
            was not measured.
        insertion: The same as the cells are put back into the blurred patch.
    """

    nodule: Float32
    background: Float32
    energy: Float32 | None
    pointing: Float32
    iou: Float32
    deletion: Float32 | None = None
    insertion: Float32 | None = None

    @property
    def margin(self) -> float:
        """Eq. 8 minus eq. 9."""
        return self.nodule - self.background


class NoduleRecord(_Frozen):
    """A fold's answers for one nodule that its model never saw, and the known truth.

    Attributes:
        case_id: The nodule.
        patient_id: The nodule's patient.
        form: With its own surroundings (``cube``) or laid onto another patient's (``voi``).
        in_paper_cohort: Whether it belongs to the paper's unsure data.
        diameter_mm: Diameter of the reader mask; None where it was not measured.
        reader_scores: Malignancy 1..5, one for each reader; empty where nobody scored it.
        label: Diagnosis, 1 malignant, 0 benign.
        certainty: ``nodule`` where the patient has no more VOIs than diagnoses.
        malignancy: CNet's P; None without CNet.
        expert_score: RNet's score, 1..5; None without RNet.
        dice: SegNet at 0.5 against the reader mask on the grid; None without SegNet or without a mask.
        cam: Figures of the CAM; None without CNet or without a mask.
        cued: P with the confounder's cue, by test; empty unless the model was trained with a cue.
    """

    case_id: str
    patient_id: str
    form: Literal["voi", "cube"]
    in_paper_cohort: bool
    diameter_mm: Float32 | None
    reader_scores: tuple[int, ...]
    label: Literal[0, 1] | None = None
    certainty: Certainty | None = None
    malignancy: Float32 | None = None
    expert_score: Float32 | None = None
    dice: Float32 | None = None
    cam: CamFigures | None = None
    cued: dict[CueTest, Float32] = Field(default_factory=dict)

    @property
    def mean_score(self) -> float:
        """The readers' mean score; NaN without readers."""
        return sum(self.reader_scores) / len(self.reader_scores) if self.reader_scores else float("nan")

    @property
    def probability(self) -> float:
        """P, or RNet's score on 0..1 without CNet: Table 6 takes the lowest and highest score as the two labels."""
        if self.malignancy is not None:
            return self.malignancy
        if self.expert_score is None:
            raise TrainingDataError(f"{self.case_id} has neither P nor an expert score")
        return min(max((self.expert_score - 1.0) / 4.0, 0.0), 1.0)


class FoldRecord(_Frozen):
    """One fold of one run.

    Attributes:
        format: ``RECORD_FORMAT`` of the code that wrote it.
        version: Version of the package that trained the model.
        code: Digest of the code that decides what is learned (``engine.code_digest``); None where the run has none.
        run: The run's name in the catalogue.
        schedule: Its schedule.
        seed: Seed of weights and draws.
        fold: Counted from 0.
        folds: Number of folds.
        split_seed: Seed of the split.
        configs: One for each phase.
        provenance: Provenance of the judged model: data, code, hardware.
        held_out: The fold's patients.
        training_seconds: Sum over the steps of all phases.
        judging_seconds: Time of the judgement.
        patch_size: Side of the judged patches in 0.5 mm voxels.
        nodules: The held-out ones.
        cases: Diagnosed nodules of the training patients, the case base of the retrieval (eq. 13).
    """

    format: int
    version: str
    code: str | None
    run: str
    schedule: ScheduleName
    seed: int
    fold: int
    folds: int
    split_seed: int
    configs: tuple[dict[str, Any], ...]
    provenance: dict[str, Any]
    held_out: tuple[str, ...]
    training_seconds: float
    judging_seconds: float
    patch_size: int
    nodules: tuple[NoduleRecord, ...]
    cases: tuple[NoduleRecord, ...] = ()

    @property
    def made_by(self) -> str:
        """``nodule-diag 0.2.0, code 1f0c9a2b``: package, code, and the stores where the run learned from stores."""
        code = "" if self.code is None else f", code {self.code[:CODE_SHOWN]}"
        stores = [store["name"] for store in self.provenance.get(STORES, ())]
        return f"nodule-diag {self.version}{code}{', stores ' if stores else ''}{', '.join(stores)}"

    def is_of(self, configs: Sequence[TrainingConfig], *, code: str, labels_sha256: str) -> bool:
        """Whether this code would train the same run: the same configurations, code and nodules.

        Args:
            configs: One for each phase.
            code: Digest of the code that would train them.
            labels_sha256: Digest of the training patients' nodules (``engine.labels_digest``).
        """
        if (self.format, self.code) != (RECORD_FORMAT, code) or self.provenance.get(LABELS) != labels_sha256:
            return False
        try:
            return [TrainingConfig.model_validate(stored) for stored in self.configs] == list(configs)
        except ValidationError:  # a field that no longer exists
            return False


def record_path(root: Path, experiment: Experiment, *, schedule: ScheduleName, seed: int, fold: int) -> Path:
    """``<root>/table1-J/short/seed-0/fold-0.npz``."""
    return root / experiment.folder / schedule / f"seed-{seed}" / f"fold-{fold}.npz"


def write_record(path: Path, record: FoldRecord) -> None:
    """Write a record, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, serialised(record.model_dump(mode="json")))


def read_record(path: Path) -> FoldRecord:
    """Read a record.

    Raises:
        TrainingDataError: If the file is missing or was written by other code.
    """
    hint = "nodule-diag train judge makes it again from its run"
    try:
        return FoldRecord.model_validate(parse(path.read_bytes()))
    except OSError as error:
        raise TrainingDataError(f"{path} cannot be read: {error.strerror}") from error
    except ColumnsError as error:
        raise TrainingDataError(f"{path} is not a result of this version: {error}", hint=hint) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise TrainingDataError(
            f"{path} is not a result of this version: {place}: {first['msg']}", hint=hint
        ) from error


def read_run(root: Path, experiment: Experiment, *, schedule: ScheduleName) -> dict[int, list[FoldRecord]]:
    """All results of a run under a schedule: by seed, in the order of the folds."""
    found: dict[int, list[FoldRecord]] = {}
    for path in sorted((root / experiment.folder / schedule).glob("seed-*/fold-*.npz")):
        record = read_record(path)
        found.setdefault(record.seed, []).append(record)
    return {seed: sorted(records, key=lambda r: r.fold) for seed, records in sorted(found.items())}
