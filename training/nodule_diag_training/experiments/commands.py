"""``nodule-diag train run NAME | judge | list | table | figure``: the catalogue from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from nodule_diag.errors import UsageError
from nodule_diag.process import write_bytes
from nodule_diag_training.config import Precision
from nodule_diag_training.data import TrainingData
from nodule_diag_training.engine import Execution, code_digest, keep_freed_memory
from nodule_diag_training.options import DEFAULT_DATA, DataOption, StoreOption
from nodule_diag_training.progress import progress
from nodule_diag_training.systems import SYSTEMS

from .catalogue import Experiment, catalogue, find
from .records import FoldRecord, read_run
from .running import FoldRun, judge_fold, train_fold
from .schedules import SCHEDULES, ScheduleName

FigureName = Literal["3", "4", "5", "6", "9"]
WITH_PIXELS = ("4", "5", "6")
DEFAULT_FOLDS = 5
DEFAULT_RESULTS = Path("results") / "experiments"

STORE_RESULTS = "results"
"""Folder in ``--out`` for the results of own stores, unless another is named: never among LIDC-IDRI's results."""

ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of the results.")]
OwnResultsOption = Annotated[
    Path | None,
    typer.Option(
        "--results",
        help=f"Folder of the results. Default: {DEFAULT_RESULTS}; with --store: {STORE_RESULTS} in --out.",
        show_default=False,
    ),
]
ScheduleOption = Annotated[
    ScheduleName,
    typer.Option("--schedule", help="Training length of the runs: paper; medium or short without a GPU."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the initial weights and draws.")]
FoldsOption = Annotated[int, typer.Option("--folds", min=2, help="Number of folds of the patients.")]
FoldOption = Annotated[int | None, typer.Option("--fold", help="Only this fold; the first is 0.")]


def results_folder(given: Path | None, *, out: Path, store: Sequence[Path] | None) -> Path:
    """Where the results of a run lie."""
    return given or (out / STORE_RESULTS if store else DEFAULT_RESULTS)


def fold_runs(
    names: Sequence[str],
    *,
    folds: int,
    fold: int | None,
    seed: int,
    schedule: ScheduleName,
    precision: Precision | None = None,
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
            precision=precision,
            root=root,
            results=results,
        )
        for name in names
        for number in (range(folds) if fold is None else (fold,))
    ]


def waiting(runs: Sequence[FoldRun], data: TrainingData, *, again: bool) -> list[FoldRun]:
    """The folds to train or judge. It reports what is done already, and renames runs that are in the way.

    Args:
        runs: The folds.
        data: Data of all patients.
        again: Take all of them, from the start, whatever is there.
    """
    found = []
    for fold_run in runs:
        if not again and fold_run.is_done(data.nodules):
            typer.echo(f"{fold_run.record} is there already (--again trains it anew)")
            continue
        codes = fold_run.codes()
        if codes and (again or codes != {code_digest()}):
            typer.echo(f"{fold_run.folder} is trained anew; the earlier run is now {fold_run.put_aside()}")
        found.append(fold_run)
    return found


def run_experiment(runs: Sequence[FoldRun], data: TrainingData, *, execution: Execution, again: bool = False) -> None:
    """Train and judge folds; finished folds are skipped, interrupted ones are resumed.

    Args:
        runs: The folds.
        data: Data of all patients.
        execution: Where and how it is computed.
        again: Train every fold from the start, whatever is there.
    """
    keep_freed_memory()
    for fold_run in waiting(runs, data, again=again):
        title, precision = f"{fold_run.experiment.run} fold {fold_run.fold}", fold_run.trained_in
        with progress(title, precision=precision, device=execution.device) as show:
            train_fold(fold_run, data, execution=execution, on_step=show)
        typer.echo(_judged(judge_fold(fold_run, data, execution=execution), fold_run.record))


def _judged(record: FoldRecord, path: Path) -> str:
    return f"wrote {path}: {len(record.nodules)} nodules, judged in {record.judging_seconds:.0f} s"


def judge_command(
    runs: Annotated[list[str], typer.Argument(metavar="NAME...", help="Experiments that were run, such as table1/J.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs.")],
    results: OwnResultsOption = None,
    schedule: ScheduleOption = "paper",
    seed: SeedOption = 0,
    folds: FoldsOption = DEFAULT_FOLDS,
    fold: FoldOption = None,
    data: DataOption = DEFAULT_DATA,
    store: StoreOption = None,
) -> None:
    """Judge trained folds again without training, for example after a change of what is recorded."""
    results = results_folder(results, out=out, store=store)
    wanted = fold_runs(runs, folds=folds, fold=fold, seed=seed, schedule=schedule, root=out, results=results)
    loaded = TrainingData.of(data, store or ())
    for fold_run in wanted:
        if fold_run.model.exists():
            typer.echo(_judged(judge_fold(fold_run, loaded), fold_run.record))
        else:
            typer.echo(f"{fold_run.model} does not exist: not judged")


def list_command(results: ResultsOption = DEFAULT_RESULTS) -> None:
    """List every row of the paper's tables: system, parameters, the paper's AUC and the results so far."""
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
    number: Annotated[str, typer.Argument(metavar="TABLE", help="Table: 1 to 7, or confounder.")],
    out: Annotated[Path | None, typer.Option("--out", help="Markdown file; if omitted, the table is printed.")] = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Make a table of the paper from the results: ours, the paper's and the yardsticks side by side."""
    from .tables import make_table

    written = "" if out is None else f" --out {out}"
    command = f"nodule-diag train table {number} --results {results}{written}"
    text = make_table(number, results, command=command)
    if out is None:
        typer.echo(text, nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, text.encode())
    typer.echo(f"wrote {out}")


def figure_command(
    number: Annotated[FigureName, typer.Argument(metavar="FIGURE", help="Figure: 3, 4, 5, 6 or 9.")],
    out: Annotated[Path, typer.Option("--out", help="PNG, SVG or PDF file.")],
    runs: Annotated[Path | None, typer.Option("--runs", help="Folder of the runs (--out of train run).")] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    schedule: ScheduleOption = "paper",
    seed: SeedOption = 0,
    folds: FoldsOption = DEFAULT_FOLDS,
    fold: Annotated[int, typer.Option("--fold", help="Fold whose models and held-out nodules are drawn.")] = 0,
    count: Annotated[int, typer.Option("--nodules", min=2, help="Number of nodules (figures 4 and 6).")] = 10,
    data: DataOption = DEFAULT_DATA,
    store: StoreOption = None,
) -> None:
    """Draw a figure of the paper: 3 loss curves, 4 and 6 class activation maps, 5 similar cases, 9 relabelling.

    Figures 4, 5 and 6 show CT pixels. Only figure 9 does not need --runs.
    """
    from .drawing import PIXELS, save
    from .figures import drawn

    if runs is None and number != "9":
        raise UsageError(f"figure {number} is drawn from runs", hint="give --runs, the folder of train run --out")
    fold_run = FoldRun(
        experiment=find("table1/J"),
        schedule=schedule,
        seed=seed,
        fold=fold,
        folds=folds,
        root=runs or Path(),
        results=results,
    )
    save(drawn(number, fold_run, count=count, data=data, stores=store or ()), out)
    typer.echo(f"wrote {out}")
    if number in WITH_PIXELS:
        typer.echo(PIXELS, err=True)


def _there(row: Experiment, results: Path) -> str:
    """Which folds have results, in a few words."""
    found = []
    for schedule in SCHEDULES:
        for seed, records in read_run(results, row, schedule=schedule).items():
            others = sorted({record.made_by for record in records if record.code != code_digest()})
            told = f" (of {'; '.join(others)})" if others else ""
            found.append(f"{schedule} seed {seed}: {len(records)}/{records[0].folds} folds{told}")
    return "; ".join(found) or "not run"
