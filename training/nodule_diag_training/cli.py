"""``nodule-diag train``: train the packaged model or a fold of it, evaluate the folds, plot a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from nodule_diag.errors import UsageError
from nodule_diag_training.data import TrainingData, split_by_patient
from nodule_diag_training.data import app as prepare_app
from nodule_diag_training.engine import (
    COMMAND_MODULE,
    MODEL,
    Execution,
    Job,
    Processes,
    Run,
    joined,
    keep_freed_memory,
    load_model,
    run_side_by_side,
    start_processes,
)
from nodule_diag_training.evaluation import (
    FOLD,
    HELD_OUT,
    STORES,
    calibrate,
    distance,
    evaluate,
    lung,
    plot,
    spread,
    symmetries,
)
from nodule_diag_training.experiments import (
    DEFAULT_FOLDS,
    FoldRun,
    OwnResultsOption,
    ScheduleName,
    figure_command,
    fold_runs,
    judge_command,
    list_command,
    results_folder,
    run_experiment,
    table_command,
    waiting,
)

from .config import OWN_NODULES, Precision, TrainingConfig
from .options import DEFAULT_DATA, DataOption, StoreOption
from .progress import PrecisionOption, progress
from .recipe import ablate, packaged

app = typer.Typer(
    help="Train the network on LIDC-IDRI or your own nodules, judge it, and make the paper's tables and figures.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(prepare_app, name="prepare")
app.command("list")(list_command)
app.command("judge")(judge_command)
app.command("table")(table_command)
app.command("figure")(figure_command)
app.command()(packaged)
app.command()(ablate)
app.command()(lung)
app.command()(evaluate)
app.command()(calibrate)
app.command()(distance)
app.command()(spread)
app.command()(symmetries)
app.command()(plot)

SPLIT_SEED = 0
RECIPE_FOLDS = 3
FOLD_LOG = "output.txt"
"""The output of a fold that is trained beside others, in that fold's folder."""
BY_NAME = "A row of the paper's tables"
BY_CONFIGURATION = "A run of your own"


def _read_config(path: Path | None, *, default: TrainingConfig) -> TrainingConfig:
    if path is None:
        return default
    try:
        return TrainingConfig.model_validate_json(path.read_text())
    except (OSError, ValidationError) as error:
        raise UsageError(
            f"{path} is not a training configuration: {error}", hint="see config.json of any run"
        ) from error


@app.command()
def run(
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs; an interrupted run is resumed.")],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Row of the paper's tables, such as table1/J (see train list).")
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option("--fold", help="Fold whose patients are left out, from 0. With NAME: every fold if omitted."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            min=2,
            help=f"Number of folds of the patients ({DEFAULT_FOLDS} with NAME, else {RECIPE_FOLDS}).",
            show_default=False,
        ),
    ] = None,
    schedule: Annotated[
        ScheduleName,
        typer.Option(
            "--schedule", help="Training length: paper; medium or short without a GPU.", rich_help_panel=BY_NAME
        ),
    ] = "paper",
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, help="Seed of the weights and draws, not the folds.", rich_help_panel=BY_NAME),
    ] = 0,
    results: OwnResultsOption = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Train again what is already finished or begun.", rich_help_panel=BY_NAME),
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Start from the weights of the run in this folder.", rich_help_panel=BY_CONFIGURATION
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="JSON file, like config.json of any run. If omitted: the packaged model's recipe, without lung.",
            rich_help_panel=BY_CONFIGURATION,
        ),
    ] = None,
    data: DataOption = DEFAULT_DATA,
    store: StoreOption = None,
    precision: PrecisionOption = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    compile_model: Annotated[bool, typer.Option("--compile", help="Compile the model with torch.compile.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Threads that draw the next steps' patches.")] = 1,
    processes: Annotated[
        int,
        typer.Option(
            "--processes",
            min=1,
            help="Processes that share each step, one per GPU (docs/training-runs.md: several computers).",
            rich_help_panel=BY_CONFIGURATION,
        ),
    ] = 1,
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, help="Folds trained at the same time.", rich_help_panel=BY_NAME)
    ] = 1,
) -> None:
    """Train a row of the paper's tables and judge it, or train with a configuration of your own.

    ``train run table1/J --schedule short --out runs`` trains and judges five folds. Repeat the command to resume:
    a fold whose result has this configuration, code and data is skipped.

    ``train run --out DIR`` trains on all patients, or on those outside --fold, with the packaged model's recipe or with
    --config.
    """
    execution = Execution(device=device, compile=compile_model, workers=workers)
    if name is None:
        if parallel > 1:
            raise UsageError(f"--parallel is {parallel}, for one run", hint="leave it out, or give NAME")
        if again:
            raise UsageError("--again is for rows of the tables", hint="give NAME, or another --out")
        if processes > 1:
            start_processes(processes, sys.argv[1:])
            return
        with joined(execution) as (group, own):
            _run_configuration(
                out,
                fold=fold,
                folds=folds or RECIPE_FOLDS,
                start=start,
                config=config,
                data=TrainingData.of(data, store or ()),
                precision=precision,
                execution=own,
                processes=group,
            )
        return
    if processes > 1:
        raise UsageError(f"--processes is {processes}, for {name}", hint="train folds side by side: --parallel")
    if start is not None or config is not None:
        raise UsageError(f"{name} has its own configuration", hint="leave --from and --config out, or NAME")
    results = results_folder(results, out=out, store=store)
    wanted = fold_runs(
        [name], folds=folds or DEFAULT_FOLDS, fold=fold, seed=seed, schedule=schedule, precision=precision, root=out,
        results=results,
    )  # fmt: skip
    loaded = TrainingData.of(data, store or ())
    if parallel > 1:
        jobs = [_fold_job(fold_run, sys.argv[1:]) for fold_run in waiting(wanted, loaded, again=again)]
        run_side_by_side(jobs, at_once=parallel, on_end=_ended)
        return
    run_experiment(wanted, loaded, execution=execution, again=again)


def _fold_job(fold_run: FoldRun, arguments: Sequence[str]) -> Job:
    """This command for one fold; of an option that is given twice, the last one counts."""
    fold = ("--fold", str(fold_run.fold), "--parallel", "1")
    return Job(
        name=f"{fold_run.experiment.run} fold {fold_run.fold}",
        argv=(sys.executable, "-m", COMMAND_MODULE, *arguments, *fold),
        log=fold_run.folder / FOLD_LOG,
    )


def _ended(job: Job, code: int) -> None:
    typer.echo(f"{job.name}: {'done' if code == 0 else f'ended with {code}'}, log in {job.log}")


def _run_configuration(
    out: Path,
    *,
    fold: int | None,
    folds: int,
    start: Path | None,
    config: Path | None,
    data: TrainingData,
    precision: Precision | None,
    execution: Execution,
    processes: Processes,
) -> None:
    """Train on all patients, or on those outside one fold."""
    keep_freed_memory()
    settings = _read_config(config, default=OWN_NODULES).in_precision(precision)
    nodules = data.nodules
    provenance: dict[str, Any] = {STORES: [store.to_dict() for store in data.stores]} if data.stores else {}
    if fold is not None:
        if not 0 <= fold < folds:
            raise UsageError(f"--fold is {fold}", hint=f"give 0 to {folds - 1}, or more --folds")
        held_out = split_by_patient(nodules, folds=folds, seed=SPLIT_SEED)[fold]
        nodules = [n for n in nodules if n.patient_id not in held_out]
        provenance |= {FOLD: fold, "folds": folds, "split_seed": SPLIT_SEED, HELD_OUT: sorted(held_out)}
    first = None
    if start is not None:
        first, first_config, first_provenance = load_model(start / MODEL)
        leaked = set(provenance.get(HELD_OUT, ())) - set(first_provenance.get(HELD_OUT, ()))
        if leaked:
            raise UsageError(
                f"{start} was trained on {len(leaked)} of the patients that fold {fold} holds out",
                hint="start from a run of the same --fold and --folds",
            )
        provenance |= {"started_from": {"config": first_config.model_dump(mode="json"), **first_provenance}}
    voxels = data.voxels_of(nodules)
    initial = None if first is None else first.state_dict()
    with progress(precision=settings.precision, device=execution.device, shown=processes.first) as show:
        Run(
            out, config=settings, nodules=nodules, voxels=voxels, provenance=provenance, initial=initial,
            execution=execution, processes=processes,
        ).train(on_step=partial(show, settings))  # fmt: skip
    if processes.first:
        typer.echo(f"wrote {out / MODEL}")
