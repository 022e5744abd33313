"""What one fold of an experiment left behind, from which every table and figure is made."""

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
"""Raised when a nodule's record says more or something else: older results are then judged again."""
CODE_SHOWN = 8
"""Characters of the code's digest that people see."""
Float32 = Annotated[float, AfterValidator(lambda value: float(np.float32(value)))]
"""As it is stored. The network answers in float32, and no figure of a table has more digits."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CamFigures(_Frozen):
    """How much of a nodule's CAM_c lies on it (section 4 and ``faithfulness``).

    Attributes:
        nodule: AvgCAM over the reader mask (eq. 8), 0..1.
        background: AvgCAM over the rest (eq. 9), 0..1.
        energy: Share of the CAM's sum inside the dilated nodule; None where the CAM is flat.
        pointing: Share of the CAM's maxima inside the dilated nodule: 0 or 1 unless several cells tie.
        iou: Of the thresholded CAM with the reader mask, on the grid.
        deletion: Area under the predicted class's probability as the CAM's highest cells are blurred; None where it
            was not measured.
        insertion: The same as they are put back into the blurred patch.
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
    """What a fold's model says of one nodule that it never saw, and the truth that is known.

    Attributes:
        case_id: The nodule.
        patient_id: Whose it is.
        form: With its own surroundings (``cube``) or laid onto another patient's (``voi``).
        in_paper_cohort: Whether it belongs to the paper's unsure data.
        diameter_mm: Of the reader mask; None where nobody measured it.
        reader_scores: Malignancy 1..5, one for each reader; empty where nobody scored it.
        label: Diagnosis, 1 malignant, 0 benign.
        certainty: ``nodule`` where the diagnosis is this nodule's without doubt.
        malignancy: CNet's P; None without CNet.
        expert_score: RNet's score, 1..5; None without RNet.
        dice: SegNet at 0.5 against the reader mask on the grid; None without SegNet or without a mask.
        cam: None without CNet or without a mask.
        cued: P with the confounder's cue, by test; empty unless it was trained with one.
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
        """Of the readers; NaN without any."""
        return sum(self.reader_scores) / len(self.reader_scores) if self.reader_scores else float("nan")

    @property
    def probability(self) -> float:
        """P, or without CNet RNet's score on 0..1: Table 6 takes the lowest and highest score as the two labels."""
        if self.malignancy is not None:
            return self.malignancy
        if self.expert_score is None:
            raise TrainingDataError(f"{self.case_id} has neither P nor an expert score")
        return min(max((self.expert_score - 1.0) / 4.0, 0.0), 1.0)


class FoldRecord(_Frozen):
    """One fold of one run.

    Attributes:
        format: ``RECORD_FORMAT`` of the code that wrote it.
        version: Of the package that trained the model.
        code: Digest of the code that decides what is learned (``engine.code_digest``); None where the run did not say.
        run: The run's name in the catalogue.
        schedule: Its schedule.
        seed: Of weights and draws.
        fold: Counted from 0.
        folds: Into how many the patients were split.
        split_seed: Of the split.
        configs: One for each phase.
        provenance: Of the judged model: data, code, hardware.
        held_out: Its patients.
        training_seconds: Sum over the steps of all phases.
        judging_seconds: What the judgement took.
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
        """``nodule-diag 0.2.0, code 1f0c9a2b``: package, code, and the stores where it learned from some."""
        code = "" if self.code is None else f", code {self.code[:CODE_SHOWN]}"
        stores = [store["name"] for store in self.provenance.get(STORES, ())]
        return f"nodule-diag {self.version}{code}{', stores ' if stores else ''}{', '.join(stores)}"

    def is_of(self, configs: Sequence[TrainingConfig], *, code: str, labels_sha256: str) -> bool:
        """Whether this code would train just this: the same configurations, code and nodules.

        Args:
            configs: One for each phase.
            code: Digest of the code that would train them.
            labels_sha256: Of the training patients' nodules (``engine.labels_digest``).
        """
        if (self.format, self.code) != (RECORD_FORMAT, code) or self.provenance.get(LABELS) != labels_sha256:
            return False
        try:
            return [TrainingConfig.model_validate(stored) for stored in self.configs] == list(configs)
        except ValidationError:  # of a field that is gone
            return False


def record_path(root: Path, experiment: Experiment, *, schedule: ScheduleName, seed: int, fold: int) -> Path:
    """``<root>/table1-J/short/seed-0/fold-0.npz``."""
    return root / experiment.folder / schedule / f"seed-{seed}" / f"fold-{fold}.npz"


def write_record(path: Path, record: FoldRecord) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, serialised(record.model_dump(mode="json")))


def read_record(path: Path) -> FoldRecord:
    """Read it.

    Raises:
        TrainingDataError: If it is missing or was written by other code.
    """
    hint = "nodule-diag train judge makes it again from its run"
    try:
        return FoldRecord.model_validate(parse(path.read_bytes()))
    except OSError as error:
        raise TrainingDataError(f"{path} cannot be read: {error.strerror}") from error
    except ColumnsError as error:
        raise TrainingDataError(f"{path} is no result of this version: {error}", hint=hint) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise TrainingDataError(f"{path} is no result of this version: {place}: {first['msg']}", hint=hint) from error


def read_run(root: Path, experiment: Experiment, *, schedule: ScheduleName) -> dict[int, list[FoldRecord]]:
    """All results of a run under a schedule: by seed, in the order of the folds."""
    found: dict[int, list[FoldRecord]] = {}
    for path in sorted((root / experiment.folder / schedule).glob("seed-*/fold-*.npz")):
        record = read_record(path)
        found.setdefault(record.seed, []).append(record)
    return {seed: sorted(records, key=lambda r: r.fold) for seed, records in sorted(found.items())}
