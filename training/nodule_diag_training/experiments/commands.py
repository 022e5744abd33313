"""``nodule-diag train run NAME | judge | list``: experiments of the catalogue, from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nodule_diag.process import write_bytes
from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import TrainingData
from nodule_diag_training.engine import Execution, StepLog, keep_freed_memory
from nodule_diag_training.options import DEFAULT_DATA, DataOption
from nodule_diag_training.systems import SYSTEMS

from .catalogue import Experiment, catalogue, find
from .records import FoldRecord, read_run
from .running import FoldRun, judge_fold, train_fold
from .schedules import SCHEDULES, ScheduleName
from .tables import make_table

DEFAULT_FOLDS = 5
DEFAULT_RESULTS = Path("results") / "experiments"

ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of the JSON results.")]
ScheduleOption = Annotated[ScheduleName, typer.Option("--schedule", help="The paper's length, or short for CPUs.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of weights and draws; the folds stay the same.")]
FoldsOption = Annotated[int, typer.Option("--folds", min=2, help="Into how many folds patients were split.")]
FoldOption = Annotated[int | None, typer.Option("--fold", help="Only this one, counted from 0.")]


def fold_runs(
    names: Sequence[str],
    *,
    folds: int,
    fold: int | None,
    seed: int,
    schedule: ScheduleName,
    root: Path,
    results: Path,
) -> list[FoldRun]:
    """The folds of experiments, in turn."""
    return [
        FoldRun(
            experiment=find(name),
            schedule=schedule,
            seed=seed,
            fold=number,
            folds=folds,
            root=root,
            results=results,
        )
        for name in names
        for number in (range(folds) if fold is None else (fold,))
    ]


def run_experiment(runs: Sequence[FoldRun], data: TrainingData, *, execution: Execution) -> None:
    """Train and judge folds; those with a result are skipped, interrupted ones go on."""
    from tqdm import tqdm

    keep_freed_memory()
    for fold_run in runs:
        if fold_run.is_done():
            typer.echo(f"{fold_run.record} is there already")
            continue
        with tqdm(unit="step", desc=f"{fold_run.experiment.run} fold {fold_run.fold}") as bar:

            def show(config: TrainingConfig, entry: StepLog, bar: tqdm[None] = bar) -> None:
                bar.total = config.steps
                bar.update(entry.step + 1 - bar.n)
                bar.set_postfix(total=f"{entry.total:.3f}", cls=f"{entry.classification:.3f}", cam=f"{entry.cam:.3f}")

            train_fold(fold_run, data, execution=execution, on_step=show)
        typer.echo(_judged(judge_fold(fold_run, data, execution=execution), fold_run.record))


def _judged(record: FoldRecord, path: Path) -> str:
    return f"wrote {path}: {len(record.nodules)} nodules, judged in {record.judging_seconds:.0f} s"


def judge_command(
    runs: Annotated[list[str], typer.Argument(metavar="NAME...", help="Experiments that were run: table1/J")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs.")],
    results: ResultsOption = DEFAULT_RESULTS,
    schedule: ScheduleOption = "paper",
    seed: SeedOption = 0,
    folds: FoldsOption = DEFAULT_FOLDS,
    fold: FoldOption = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Judge finished folds again, whatever results are there: after a change of what is recorded."""
    wanted = fold_runs(runs, folds=folds, fold=fold, seed=seed, schedule=schedule, root=out, results=results)
    loaded = TrainingData.of(data)
    for fold_run in wanted:
        if fold_run.model.exists():
            typer.echo(_judged(judge_fold(fold_run, loaded), fold_run.record))
        else:
            typer.echo(f"{fold_run.model} does not exist: not judged")


def list_command(results: ResultsOption = DEFAULT_RESULTS) -> None:
    """Show every row of the paper's tables: system, parameters, the paper's AUC, and the results that are there."""
    import torch

    from nodule_diag_training.model import SynergicModel, count_weights

    from .paper import paper_figures

    with torch.device("meta"):  # shapes alone: no weight is drawn or stored
        weights = {system: count_weights(SynergicModel(modules)) for system, modules in SYSTEMS.items()}
    typer.echo(f"{'experiment':34s} {'system':11s} {'weights':>9s} {'paper AUC':>9s}  results, title")
    for row in catalogue():
        paper = paper_figures(row.name)
        auc = f"{paper.auc.mean:9.2f}" if paper is not None and paper.auc is not None else f"{'-':>9s}"
        typer.echo(
            f"{row.name:34s} {row.config.system:11s} {weights[row.config.system]:9,d} {auc}  "
            f"{_there(row, results)}, {row.title}"
        )


def table_command(
    number: Annotated[str, typer.Argument(metavar="TABLE", help="1 to 7, or confounder.")],
    out: Annotated[Path | None, typer.Option("--out", help="Markdown file; without it the table is printed.")] = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Make one of the paper's tables from the results: ours, the paper's and the yardsticks side by side."""
    written = "" if out is None else f" --out {out}"
    command = f"nodule-diag train table {number} --results {results}{written}"
    text = make_table(number, results, command=command)
    if out is None:
        typer.echo(text, nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, text.encode())
    typer.echo(f"wrote {out}")


def _there(row: Experiment, results: Path) -> str:
    """Which folds have results, in a few words."""
    found = []
    for schedule in SCHEDULES:
        for seed, records in read_run(results, row, schedule=schedule).items():
            found.append(f"{schedule} seed {seed}: {len(records)}/{records[0].folds} folds")
    return "; ".join(found) or "not run"
