"""``nodule-diag train evaluate``, ``symmetries`` and ``plot``: what the packaged model's folds are worth."""

from __future__ import annotations

import json
import lzma
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from nodule_diag.backends import require_views
from nodule_diag.errors import UsageError
from nodule_diag.process import write_bytes, writing
from nodule_diag_training.data import TrainingData
from nodule_diag_training.engine import LOG, MODEL, load_model, read_log
from nodule_diag_training.options import DEFAULT_DATA, DataOption, StoreOption

from .appearance import Appearance, looked_at, read_appearance
from .crossval import FoldResult, judge_fold, sections_of, symmetry_gain
from .reports import COMPRESSED, judged_in, not_a_report, of_fold, open_report
from .rows import Section
from .thresholds import by_fold, chosen


def _finite(value: object) -> object:
    """JSON has no NaN: an undefined figure is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def evaluate(
    out: Annotated[Path, typer.Option("--out", help="JSON report; compressed if the name ends in .xz.")],
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, each trained with its own --fold.", show_default=False)
    ] = None,
    data: DataOption = DEFAULT_DATA,
    store: StoreOption = None,
    symmetries: Annotated[int, typer.Option(metavar="1|8|48", help="Views of each patch that are averaged.")] = 1,
    again: Annotated[
        Path | None,
        typer.Option(
            "--again",
            help="Report (JSON or .xz) whose tables are made again from its judgements, instead of RUNS.",
            show_default=False,
        ),
    ] = None,
    fold: Annotated[
        int | None, typer.Option("--fold", help="With --again: only this fold.", show_default=False)
    ] = None,
) -> None:
    """Judge each fold's held-out patients and write every figure with its interval and yardsticks."""
    if (again is None) == (not runs):
        raise UsageError("there is nothing to judge, or twice", hint="give run folders, or one report with --again")
    if again is not None:
        _again(again, out, fold=fold, looks=read_appearance(data))
        return
    if fold is not None:
        raise UsageError(f"--fold is {fold}, and run folders know theirs", hint="leave --fold out, or give --again")
    begin = time.perf_counter()
    loaded = TrainingData.of(data, store or ())
    looks = {} if loaded.stores else read_appearance(data)
    results = [looked_at(judge_fold(path / MODEL, loaded, symmetries=symmetries), looks) for path in runs or ()]
    _, config, provenance = load_model((runs or [])[0] / MODEL)
    _write_judged(
        out,
        results,
        command=f"nodule-diag train evaluate {' '.join(map(shown, runs or ()))}{shown_stores(store)}"
        f" --symmetries {symmetries} --out {shown(out)}",
        folds=provenance["folds"],
        config=config.model_dump(mode="json"),
        seconds=time.perf_counter() - begin,
    )


def _again(path: Path, out: Path, *, fold: int | None, looks: Mapping[str, Appearance]) -> None:
    """Make the tables of a report again from its judgements; it still names the command that judged."""
    report = open_report(path)
    judged = looked_at(judged_in(path, report), looks)
    if fold is not None:
        judged = of_fold(judged, fold)
    if not judged.judgements:
        raise UsageError(f"{path} judges no nodule{'' if fold is None else f' of fold {fold}'}")
    try:
        first, folds, config = str(report["command"]).splitlines()[0], report["folds"]["of"], report["config"]
    except (KeyError, TypeError, IndexError) as error:
        raise not_a_report(path, error) from error
    only = "" if fold is None else f" --fold {fold}"
    again = f"nodule-diag train evaluate --again {shown(path)}{only} --out {shown(out)}"
    _write_judged(out, [judged], command=f"{first}\n{again}", folds=folds, config=config, seconds=report.get("seconds"))


def _write_judged(
    out: Path, results: Sequence[FoldResult], *, command: str, folds: object, config: object, seconds: object
) -> None:
    sections = sections_of(results)
    judgements = [j for result in results for j in result.judgements]
    thresholds = by_fold(judgements)
    report = {
        "sections": [section.to_dict() for section in sections],
        "command": command,
        "folds": {"judged": sorted({j.fold for j in judgements}), "of": folds},
        "config": config,
        "seconds": seconds,
        "thresholds": {str(fold): threshold for fold, threshold in thresholds.items()},
        "segmentation": {"threshold": chosen(judgements)} if thresholds else None,
        "judgements": [j.to_dict() for j in judgements],
        "diagnosed": [j.case_id for result in results for j in result.diagnosed],
        "retrieved": [dict(result.retrieved) for result in results],
    }
    write_report(out, report, sections)


def write_report(out: Path, report: dict[str, object], sections: Sequence[Section]) -> None:
    """Write the JSON, and show the sections."""
    out.parent.mkdir(parents=True, exist_ok=True)
    text = (json.dumps(_finite(report), indent=1) + os.linesep).encode()
    write_bytes(out, lzma.compress(text, preset=9 | lzma.PRESET_EXTREME) if out.suffix == COMPRESSED else text)
    for section in sections:
        typer.echo(f"\n{section.title}")
        for row in section.rows:
            metric = row.metric if row.group is None else f"{row.group}: {row.metric}"
            interval = "" if math.isnan(row.low) else f"[{row.low:.3f}, {row.high:.3f}]"
            goal = f"   target {row.target}: {row.note}" if row.target else ""
            typer.echo(f"  {metric:62s} {row.value:6.3f}  {interval:15s} n={row.n}{goal}")


def symmetries(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run with --fold.")],
    out: Annotated[Path, typer.Option("--out", help="JSON report.")],
    views: Annotated[int, typer.Option(metavar="8|48", help="Views of each patch that are averaged.")] = 8,
    data: DataOption = DEFAULT_DATA,
    store: StoreOption = None,
) -> None:
    """Measure the gain of averaging over symmetries of the patch (`predict --symmetries`) on held-out cubes."""
    begin = time.perf_counter()
    section = symmetry_gain(run_folder / MODEL, TrainingData.of(data, store or ()), views=require_views(views))
    report = {
        "sections": [section.to_dict()],
        "command": f"nodule-diag train symmetries {shown(run_folder)}{shown_stores(store)} --views {views}"
        f" --out {shown(out)}",
        "seconds": time.perf_counter() - begin,
    }
    write_report(out, report, [section])


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


def shown_stores(stores: Sequence[Path] | None) -> str:
    """Stores as a report's command names them."""
    return "".join(f" --store {shown(path)}" for path in stores or ())


def shown(path: Path) -> str:
    """A path as a report may name it: without private folders."""
    return path.name if path.is_absolute() else str(path)
