"""``nodule-diag train``: train the packaged model or a fold of it, evaluate the folds, plot a run."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from nodule_diag.atomic import write_bytes, writing
from nodule_diag.errors import UsageError

from .allocator import keep_freed_memory
from .checkpoint import MODEL, load_model
from .config import PACKAGED, PRETRAINED, TrainingConfig
from .crossval import FOLD, HELD_OUT, judge_fold, sections_of
from .engine import LOG, Run, StepLog, read_log
from .execution import Execution
from .experiments.commands import (
    DEFAULT_FOLDS,
    DEFAULT_RESULTS,
    fold_runs,
    judge_command,
    list_command,
    run_experiment,
    table_command,
)
from .experiments.running import TrainingData
from .experiments.schedules import ScheduleName
from .lidc import load_nodules, split_by_patient
from .options import DEFAULT_DATA, DataOption
from .patches import load_all
from .prepare_cli import app as prepare_app

app = typer.Typer(
    help="Train and evaluate the synergic model on the shared LIDC-IDRI nodules.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(prepare_app, name="prepare")
app.command("list")(list_command)
app.command("judge")(judge_command)
app.command("table")(table_command)

SPLIT_SEED = 0
PACKAGED_FOLDS = 3
BY_NAME = "A row of the paper's tables"
BY_CONFIGURATION = "A run by configuration"


def _read_config(path: Path | None, *, default: TrainingConfig) -> TrainingConfig:
    if path is None:
        return default
    try:
        return TrainingConfig.model_validate_json(path.read_text())
    except (OSError, ValidationError) as error:
        raise UsageError(f"{path} is no training configuration: {error}", hint="see config.json of any run") from error


@app.command()
def run(
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs; unfinished ones in it are continued.")],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Row of the paper's tables: table1/J (see: train list).")
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option("--fold", help="Leave this fold's patients out (from 0). With NAME and without it: each in turn."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            min=2,
            help=f"Into how many folds patients are split ({DEFAULT_FOLDS} with NAME, else {PACKAGED_FOLDS}).",
            show_default=False,
        ),
    ] = None,
    schedule: Annotated[
        ScheduleName, typer.Option("--schedule", help="The paper's length, or short for CPUs.", rich_help_panel=BY_NAME)
    ] = "paper",
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of weights and draws; folds stay.", rich_help_panel=BY_NAME)
    ] = 0,
    results: Annotated[
        Path, typer.Option("--results", help="Folder of the JSON results.", rich_help_panel=BY_NAME)
    ] = DEFAULT_RESULTS,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Run folder whose weights to start from.", rich_help_panel=BY_CONFIGURATION),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="JSON; without it the packaged model's first run, or second (--from).",
            rich_help_panel=BY_CONFIGURATION,
        ),
    ] = None,
    data: DataOption = DEFAULT_DATA,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    compile_model: Annotated[bool, typer.Option("--compile", help="Compile the model with torch.compile.")] = False,
) -> None:
    """Train a row of the paper's tables in folds and judge it, or a run by configuration.

    ``train run table1/J --schedule short --out runs`` trains and judges five folds; a repeated command goes on.
    ``train run --config FILE --out DIR`` trains on all patients, or on those outside --fold.
    """
    execution = Execution(device=device, compile=compile_model)
    if name is None:
        _run_configuration(
            out, fold=fold, folds=folds or PACKAGED_FOLDS, start=start, config=config, data=data, execution=execution
        )
        return
    if start is not None or config is not None:
        raise UsageError(f"{name} has its own configuration", hint="leave --from and --config out, or NAME")
    wanted = fold_runs(
        [name], folds=folds or DEFAULT_FOLDS, fold=fold, seed=seed, schedule=schedule, root=out, results=results
    )
    run_experiment(wanted, TrainingData(load_nodules(data)), execution=execution)


def _run_configuration(
    out: Path,
    *,
    fold: int | None,
    folds: int,
    start: Path | None,
    config: Path | None,
    data: Path,
    execution: Execution,
) -> None:
    """Train on all patients, or on those outside one fold."""
    from tqdm import tqdm

    keep_freed_memory()
    settings = _read_config(config, default=PRETRAINED if start is None else PACKAGED)
    nodules = load_nodules(data)
    provenance: dict[str, Any] = {}
    if fold is not None:
        if not 0 <= fold < folds:
            raise UsageError(f"--fold is {fold}", hint=f"give 0 to {folds - 1}, or more --folds")
        held_out = split_by_patient(nodules, folds=folds, seed=SPLIT_SEED)[fold]
        nodules = [n for n in nodules if n.patient_id not in held_out]
        provenance = {FOLD: fold, "folds": folds, "split_seed": SPLIT_SEED, HELD_OUT: sorted(held_out)}
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
    voxels = load_all(nodules)
    initial = None if first is None else first.state_dict()
    with tqdm(total=settings.steps, unit="step") as bar:

        def show(entry: StepLog) -> None:
            bar.update(entry.step + 1 - bar.n)
            bar.set_postfix(
                total=f"{entry.total:.3f}", cls=f"{entry.classification:.3f}", cam=f"{entry.cam:.3f}",
                seg=f"{entry.segmentation:.3f}", reg=f"{entry.score:.3f}",
            )  # fmt: skip

        Run(
            out, config=settings, nodules=nodules, voxels=voxels, provenance=provenance, initial=initial,
            execution=execution,
        ).train(on_step=show)  # fmt: skip
    typer.echo(f"wrote {out / MODEL}")


def _finite(value: object) -> object:
    """JSON has no NaN: an undefined figure is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, each trained with its own --fold.")],
    out: Annotated[Path, typer.Option("--out", help="JSON report.")],
    data: DataOption = DEFAULT_DATA,
    symmetries: Annotated[int, typer.Option(metavar="1|8|48", help="Views of each patch that are averaged.")] = 1,
) -> None:
    """Judge each fold's held-out patients and write every figure with its interval and yardsticks."""
    begin = time.perf_counter()
    nodules = load_nodules(data)
    voxels = load_all(nodules)
    results = [judge_fold(path / MODEL, nodules, voxels, symmetries=symmetries) for path in runs]
    _, config, provenance = load_model(runs[0] / MODEL)
    sections = sections_of(results)
    report = {
        "sections": [section.to_dict() for section in sections],
        "command": f"nodule-diag train evaluate {' '.join(map(str, runs))} --symmetries {symmetries} --out {out}",
        "folds": {"judged": sorted({j.fold for r in results for j in r.judgements}), "of": provenance["folds"]},
        "config": config.model_dump(mode="json"),
        "seconds": time.perf_counter() - begin,
        "judgements": [j.to_dict() for result in results for j in result.judgements],
        "retrieved": [dict(result.retrieved) for result in results],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, (json.dumps(_finite(report), indent=1) + os.linesep).encode())
    for section in sections:
        typer.echo(f"\n{section.title}")
        for row in section.rows:
            goal = f"   target {row.target}" if row.target else ""
            typer.echo(f"  {row.metric:58s} {row.value:6.3f}  [{row.low:.3f}, {row.high:.3f}]  n={row.n}{goal}")


@app.command()
def plot(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    out: Annotated[Path, typer.Option("--out", help="PNG or SVG.")],
) -> None:
    """Plot a run's losses, smoothed over fifty steps."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    import numpy as np

    lines = read_log(run_folder / LOG)
    if not lines:
        raise UsageError(f"{run_folder} has no {LOG}", hint="give the folder of a run")
    window = min(50, len(lines))
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, label in (
        ("classification", "BCE (eq. 3)"),
        ("cam", "ad-CSL (eq. 11)"),
        ("segmentation", "Dice (eq. 1)"),
        ("score", "MSE (eq. 2)"),
    ):
        values = np.asarray([getattr(line, name) for line in lines])
        smooth = np.convolve(values, np.full(window, 1 / window), mode="valid")
        axes.plot(np.arange(len(smooth)) + window, smooth, label=label)
    axes.set(xlabel="step", ylabel="loss", yscale="log", title=f"{run_folder.name}: mean of {window} steps")
    axes.legend()
    with writing(out) as temporary:
        figure.savefig(temporary, format=out.suffix.lstrip(".") or "png", dpi=120)
    plt.close(figure)
