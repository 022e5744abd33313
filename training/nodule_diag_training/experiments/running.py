"""Run one fold of an experiment and judge it; what is done already is not done again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from nodule_diag_training.config import Precision, TrainingConfig
from nodule_diag_training.data import Nodule, TrainingData, TrainingDataError, split_by_patient
from nodule_diag_training.engine import (
    CODE,
    LABELS,
    MODEL,
    PROVENANCE,
    TIMING,
    Execution,
    Run,
    StepLog,
    StepTime,
    code_digest,
    labels_digest,
    load_model,
    read_lines,
)
from nodule_diag_training.evaluation import FOLD, HELD_OUT, STORES

from .catalogue import Experiment
from .judging import Judge, tested_nodules
from .records import RECORD_FORMAT, FoldRecord, read_record, record_path, write_record
from .schedules import ScheduleName, configured, precision_of

SPLIT_SEED = 0
"""The folds are the same for every row and seed, so that rows are compared on the same patients."""

UNKNOWN_VERSION = "of unknown version"


@dataclass(frozen=True, kw_only=True)
class FoldRun:
    """One fold of a run, in its folder.

    Attributes:
        experiment: The row; rows with the same run share the folder.
        schedule: Its length.
        seed: Seed of weights and draws.
        fold: Counted from 0.
        folds: Number of folds of the patients.
        root: Folder of all runs.
        results: Folder of all results.
        precision: Precision of the convolutions, if not the schedule's.
    """

    experiment: Experiment
    schedule: ScheduleName
    seed: int
    fold: int
    folds: int
    root: Path
    results: Path
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.fold < self.folds:
            raise TrainingDataError(f"fold is {self.fold}", hint=f"give 0 to {self.folds - 1}, or more folds")

    @property
    def folder(self) -> Path:
        """``<root>/table1-J/short/seed-0/fold-0``."""
        return self.root / self.experiment.folder / self.schedule / f"seed-{self.seed}" / f"fold-{self.fold}"

    @property
    def record(self) -> Path:
        """The file of the fold's record."""
        return record_path(self.results, self.experiment, schedule=self.schedule, seed=self.seed, fold=self.fold)

    def phase_folder(self, index: int) -> Path:
        """A fine-tuned row's phases have folders of their own."""
        return self.folder if len(self.experiment.phases) == 1 else self.folder / f"phase-{index + 1}"

    @property
    def model(self) -> Path:
        """The weights that are judged."""
        return self.phase_folder(len(self.experiment.phases) - 1) / MODEL

    def configs(self, nodules: Sequence[Nodule]) -> list[TrainingConfig]:
        """One for each phase; ``nodules`` are the training patients', which the paper's epochs count."""
        phases = self.experiment.phases
        made = (configured(phase, self.schedule, nodules=nodules, seed=self.seed) for phase in phases)
        return [config.in_precision(self.trained_in) for config in made]

    @property
    def trained_in(self) -> Precision:
        """Precision of the convolutions in training."""
        return self.precision or precision_of(self.schedule)

    def is_done(self, nodules: Sequence[Nodule]) -> bool:
        """Whether there is a result with the same format, split, configuration, code and facts on nodules.

        Args:
            nodules: Nodules of all patients.
        """
        if not self.record.exists():
            return False
        try:
            record = read_record(self.record)
        except TrainingDataError:
            return False  # of an older format: judged again
        if (record.folds, record.split_seed) != (self.folds, SPLIT_SEED):
            raise TrainingDataError(
                f"{self.record} is of {record.folds} folds, not {self.folds}", hint="give --folds or another --results"
            )
        seen = training_nodules(self, nodules)
        return record.is_of(self.configs(seen), code=code_digest(), labels_sha256=labels_digest(seen))

    def codes(self) -> set[str | None]:
        """Digests of the code that began its phases; None for a phase that records none; empty without phases."""
        found: set[str | None] = set()
        for index in range(len(self.experiment.phases)):
            folder = self.phase_folder(index)
            if (folder / PROVENANCE).exists():
                found.add(json.loads((folder / PROVENANCE).read_text()).get(CODE))
            elif (folder / MODEL).exists():
                found.add(None)
        return found

    def put_aside(self) -> Path:
        """Rename the folder, so that the run starts again: ``fold-0.old-1``, the next time ``fold-0.old-2``."""
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.old-{number}")).exists():
            number += 1
        return self.folder.rename(aside)


def held_out_patients(fold_run: FoldRun, nodules: Sequence[Nodule]) -> set[str]:
    """The patients of a fold."""
    return split_by_patient(nodules, folds=fold_run.folds, seed=SPLIT_SEED)[fold_run.fold]


def training_nodules(fold_run: FoldRun, nodules: Sequence[Nodule]) -> list[Nodule]:
    """The nodules of the patients that the fold does not hold out."""
    held_out = held_out_patients(fold_run, nodules)
    return [n for n in nodules if n.patient_id not in held_out]


def train_fold(
    fold_run: FoldRun,
    data: TrainingData,
    *,
    execution: Execution | None = None,
    on_step: Callable[[TrainingConfig, StepLog], None] | None = None,
) -> None:
    """Train the phases that are not finished, each from the weights of the one before.

    Raises:
        TrainingDataError: If the folder holds another configuration, or learned from other nodules.
    """
    held_out = held_out_patients(fold_run, data.nodules)
    seen = training_nodules(fold_run, data.nodules)
    initial: Mapping[str, Tensor] | None = None
    for index, config in enumerate(fold_run.configs(seen)):
        folder = fold_run.phase_folder(index)
        if not (folder / MODEL).exists():
            provenance: dict[str, object] = {
                "experiment": fold_run.experiment.run,
                "schedule": fold_run.schedule,
                "phase": index + 1,
                FOLD: fold_run.fold,
                "folds": fold_run.folds,
                "split_seed": SPLIT_SEED,
                HELD_OUT: sorted(held_out),
            }
            if data.stores:
                provenance[STORES] = [store.to_dict() for store in data.stores]
            run = Run(
                folder,
                config=config,
                nodules=seen,
                voxels=data.voxels,
                provenance=provenance,
                initial=initial,
                execution=execution,
            )
            run.train(on_step=None if on_step is None else partial(on_step, config))
        model, stored, told = load_model(folder / MODEL)
        hint = "use another --out, or train anew: --again"
        if stored != config:
            raise TrainingDataError(f"{folder} holds a model of another configuration", hint=hint)
        if told.get(LABELS) != labels_digest(seen):
            raise TrainingDataError(f"{folder} holds a model that learned from other nodules", hint=hint)
        initial = model.state_dict()


def judge_fold(fold_run: FoldRun, data: TrainingData, *, execution: Execution | None = None) -> FoldRecord:
    """Judge a finished fold and write its record."""
    begin = time.perf_counter()
    model, config, provenance = load_model(fold_run.model)
    held_out = held_out_patients(fold_run, data.nodules)
    if sorted(held_out) != provenance.get(HELD_OUT):
        raise TrainingDataError(
            f"{fold_run.model} did not leave out the patients of fold {fold_run.fold} of {fold_run.folds}",
            hint="the data or the folds differ from those it was trained on",
        )
    device = (execution or Execution()).torch_device()
    judge = Judge.of(model.to(device), config, nodules=data.nodules, voxels=data.voxels)
    tested = tested_nodules([n for n in data.nodules if n.patient_id in held_out])
    retrieves = config.modules.cnet and config.modules.rnet
    seen = [n for n in data.nodules if n.patient_id not in held_out] if retrieves else []
    folders = [fold_run.phase_folder(index) for index in range(len(fold_run.experiment.phases))]
    record = FoldRecord(
        format=RECORD_FORMAT,
        version=provenance.get("version", UNKNOWN_VERSION),
        code=provenance.get(CODE),
        run=fold_run.experiment.run,
        schedule=fold_run.schedule,
        seed=fold_run.seed,
        fold=fold_run.fold,
        folds=fold_run.folds,
        split_seed=SPLIT_SEED,
        configs=tuple(load_model(folder / MODEL)[1].model_dump(mode="json") for folder in folders),
        provenance={key: value for key, value in provenance.items() if key != HELD_OUT},
        held_out=tuple(sorted(held_out)),
        training_seconds=sum(line.seconds for folder in folders for line in read_lines(folder / TIMING, StepTime)),
        nodules=tuple(judge.records(tested)),
        cases=tuple(judge.cases(seen)),
        patch_size=judge.size,
        judging_seconds=time.perf_counter() - begin,
    )
    write_record(fold_run.record, record)
    return record
