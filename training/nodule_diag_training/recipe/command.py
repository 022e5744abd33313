"""``nodule-diag train packaged``: the packaged model's recipe, and the one command that trains and judges it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from nodule_diag.errors import UsageError
from nodule_diag_training.config import RECIPE, Stage, TrainingConfig
from nodule_diag_training.data import (
    LungPlace,
    Nodule,
    TrainingData,
    load_lung,
    patients_of,
    split_by_patient,
    with_lung,
)
from nodule_diag_training.engine import MODEL, Execution, Run, keep_freed_memory, load_model
from nodule_diag_training.evaluation import FOLD, HELD_OUT, HELD_OUT_LUNG, evaluate, lung
from nodule_diag_training.options import DEFAULT_DATA, DataOption
from nodule_diag_training.progress import PrecisionOption, progress

from .finish import STARTED_FROM, Start, finishing

FOLDS = 3
SPLIT_SEED = 0
EVERYBODY = "all"
REPORT = "evaluation.json"
LUNG_REPORT = "lung.json"


def scaled(config: TrainingConfig, share: float) -> TrainingConfig:
    """The configuration with a share of its steps, at least one a stage."""
    stages = tuple(Stage(size=stage.size, steps=max(1, round(share * stage.steps))) for stage in config.stages)
    return config.model_copy(update={"stages": stages})


def lung_of_fold(places: list[LungPlace], fold: int | None) -> tuple[list[LungPlace], list[str]]:
    """The lung that a fold learns from, and the patient whose lung it is judged on, another one for each fold in turn.

    Args:
        places: All places of lung.
        fold: From 0; None for the model of all patients, which learns from all places.
    """
    patients = patients_of(places)
    if fold is None or len(patients) < 2:
        return places, []
    judged = patients[-1 - fold % len(patients)]
    return [place for place in places if place.patient_id != judged], [judged]


def held_out_of(fold: int, nodules: Sequence[Nodule]) -> set[str]:
    """The patients that a fold is judged on."""
    return split_by_patient(nodules, folds=FOLDS, seed=SPLIT_SEED)[fold]


def finished(folder: Path, config: TrainingConfig) -> bool:
    """Whether the folder holds the finished model of a configuration."""
    return (folder / MODEL).exists() and load_model(folder / MODEL)[1] == config


def train_part(
    folder: Path, config: TrainingConfig, data: TrainingData, places: list[LungPlace], *,
    fold: int | None, execution: Execution, command: str, start: Start | None = None,
) -> None:  # fmt: skip
    """Train a fold, or on all patients, unless the finished model is there already.

    Raises:
        TrainingDataError: If the folder holds another run.
        UsageError: If ``start`` was trained on patients that the fold holds out.
    """
    if finished(folder, config):
        return
    learned, judged = lung_of_fold(places, fold)
    provenance: dict[str, object] = {"command": command}
    held_out = set() if fold is None else held_out_of(fold, data.nodules)
    nodules = [n for n in data.nodules if n.patient_id not in held_out]
    if fold is not None:
        provenance |= {
            FOLD: fold, "folds": FOLDS, "split_seed": SPLIT_SEED,
            HELD_OUT: sorted(held_out), HELD_OUT_LUNG: judged,
        }  # fmt: skip
    if start is not None:
        start.require_unseen(held_out, judged)
        provenance |= {STARTED_FROM: start.facts}
    nodules += learned
    voxels = with_lung(data, learned).voxels_of(nodules)
    with progress(folder.name, precision=config.precision, device=execution.device) as show:
        run = Run(
            folder, config=config, nodules=nodules, voxels=voxels, provenance=provenance, execution=execution,
            initial=None if start is None else start.weights,
        )  # fmt: skip
        run.train(on_step=partial(show, config))


def packaged(
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs; unfinished runs are resumed.")],
    fold: Annotated[
        int | None,
        typer.Option("--fold", min=0, max=FOLDS - 1, help="Only this fold. If omitted: every fold, then all patients."),
    ] = None,
    steps_scale: Annotated[
        float, typer.Option("--steps-scale", min=0.0, help="Share of the recipe's steps, for a trial run.")
    ] = 1.0,
    finish: Annotated[
        list[Path] | None,
        typer.Option(
            "--finish",
            help="Instead of training from scratch, finish the run in this folder: from its best weights, with the"
            " learning rate falling to zero. Can be repeated, once per fold.",
        ),
    ] = None,
    data: DataOption = DEFAULT_DATA,
    precision: PrecisionOption = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    compile_model: Annotated[bool, typer.Option("--compile", help="Compile the model with torch.compile.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Threads that draw the next steps' patches.")] = 1,
) -> None:
    """Train and judge the packaged model by its recipe, from scratch. Repeat the command to resume."""
    keep_freed_memory()
    execution = Execution(device=device, compile=compile_model, workers=workers)
    changed = "" if steps_scale == 1.0 else f" --steps-scale {steps_scale:g}"
    if precision is not None:
        changed += f" --precision {precision}"
    parts: dict[int | None, Start | None] = dict.fromkeys([*range(FOLDS), None] if fold is None else [fold])
    if finish:
        if fold is not None:
            raise UsageError(f"--fold is {fold}, and --finish knows its fold", hint="leave --fold out")
        parts = {start.fold: start for start in map(Start.read, finish)}
        if len(parts) < len(finish):
            raise UsageError("two of the runs to finish are of one fold", hint="give each fold once")
    loaded, places = TrainingData.of(data), load_lung(data)
    for part, start in parts.items():
        folder = out / _name_of(part)
        config = RECIPE if start is None else finishing(start)
        asked = "" if fold is None else f" --fold {fold}"
        if start is not None:
            asked = f" --finish {_name_of(part)}"
        train_part(
            folder,
            scaled(config, steps_scale).in_precision(precision),
            loaded,
            places,
            fold=part,
            execution=execution,
            command=f"nodule-diag train packaged{asked}{changed}",
            start=start,
        )
        typer.echo(f"wrote {folder / MODEL}")
    runs = [out / _name_of(part) for part in parts if part is not None]
    if not runs:
        return
    reports = out if len(runs) > 1 else runs[0]
    lung(runs, reports / LUNG_REPORT, data)
    evaluate(runs=runs, out=reports / REPORT, data=data, store=None, symmetries=1)


def _name_of(fold: int | None) -> str:
    return EVERYBODY if fold is None else f"fold-{fold}"
