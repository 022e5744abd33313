"""The paper's figures 3, 4, 5, 6 and 9 from runs and results."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure

from nodule_diag.results import Space
from nodule_diag_training.data import Nodule, TrainingData, TrainingDataError, Voxels
from nodule_diag_training.engine import load_model

from .catalogue import Experiment, find, rows_of
from .figure_cams import Model, draw_cams
from .figure_losses import draw_losses
from .figure_relabelling import draw_relabelling
from .figure_retrieval import Answer, draw_retrieval
from .judging import Judge, tested_nodules
from .records import read_record, read_run
from .retrieval import relabel, retrieve
from .running import FoldRun, held_out_patients

FIGURE_3 = ("A", "D", "F", "J")
FIGURE_4 = ("A", "D", "E", "F", "H", "I", "J")
RETRIEVAL_SPACES: tuple[Space, ...] = ("machine", "expert")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which fold's models are drawn, on which nodules.

    Attributes:
        fold_run: The fold's run of model J; runs of other rows lie beside it.
        data: The nodules.
        count: How many nodules are drawn, benign and malignant in turn.
    """

    fold_run: FoldRun
    data: TrainingData
    count: int

    @property
    def title(self) -> str:
        """Schedule, seed and fold."""
        run = self.fold_run
        return f"schedule {run.schedule}, seed {run.seed}, held-out patients of fold {run.fold} of {run.folds}"

    def of(self, experiment: Experiment) -> FoldRun:
        """The same fold of another row."""
        return replace(self.fold_run, experiment=experiment)

    def nodules(self) -> list[Nodule]:
        """Held-out diagnosed nodules, those whose diagnosis is certain first."""
        held_out = held_out_patients(self.fold_run, self.data.nodules)
        diagnosed = [n for n in tested_nodules([n for n in self.data.nodules if n.patient_id in held_out]) if n.sure]
        ordered = sorted(diagnosed, key=lambda n: (n.sure is not None and n.sure.certainty != "nodule", n.case_id))
        sides = [[n for n in ordered if n.sure is not None and n.sure.malignant == side] for side in (0, 1)]
        half = (self.count + 1) // 2
        return [n for pair in zip(sides[0][:half], sides[1][:half], strict=False) for n in pair][: self.count]

    def voxels(self, case_ids: Collection[str]) -> Voxels:
        """The voxels of these nodules, and of all cubes, which lend VOIs their surroundings."""
        return self.data.voxels_of([n for n in self.data.nodules if n.is_cube or n.case_id in case_ids])

    def judge(self, fold_run: FoldRun, voxels: Voxels) -> Judge:
        """The judge of a finished fold."""
        model, config, _ = load_model(fold_run.model)
        return Judge.of(model, config, nodules=self.data.nodules, voxels=voxels)


def cam_figure(source: Source, rows: Sequence[Experiment]) -> Figure:
    """Class activation maps of the rows that were run, on the same nodules.

    Raises:
        TrainingDataError: If none was run.
    """
    there = [(row, source.of(row)) for row in rows if source.of(row).model.exists()]
    if not there:
        raise TrainingDataError(
            f"no model in {source.fold_run.root} for {', '.join(row.name for row in rows)}", hint="train run them first"
        )
    nodules = source.nodules()
    voxels = source.voxels({n.case_id for n in nodules})
    models = [Model(title=row.title, judge=source.judge(fold_run, voxels)) for row, fold_run in there]
    return draw_cams(models, nodules, title=source.title)


def retrieval_figure(source: Source) -> Figure:
    """A benign and a malignant held-out nodule of model J."""
    record = read_record(source.fold_run.record)
    records = {n.case_id: n for n in record.nodules}
    nodules = {n.case_id: n for n in source.data.nodules}
    answers = [
        Answer(space=space, retrieved=retrieve([records[nodule.case_id]], record.cases, space=space)[0])
        for nodule in source.nodules()[:2]
        for space in RETRIEVAL_SPACES
    ]
    drawn = {n.case_id for a in answers for n in (a.retrieved.nodule, *a.retrieved.cases)}
    judge = source.judge(source.fold_run, source.voxels(drawn))
    return draw_retrieval(answers, lambda case: judge.sample(nodules[case]).patch, title=source.title)


def relabelling_figure(fold_run: FoldRun) -> Figure:
    """The relabelling over all folds of model J that have results.

    Raises:
        TrainingDataError: If no fold has results.
    """
    records = read_run(fold_run.results, fold_run.experiment, schedule=fold_run.schedule).get(fold_run.seed, [])
    if not records:
        raise TrainingDataError(f"{fold_run.results} has no result of {fold_run.experiment.run}", hint="train run it")
    title = f"schedule {fold_run.schedule}, seed {fold_run.seed}, {len(records)} of {records[0].folds} folds"
    return draw_relabelling(relabel(records), title=title)


def drawn(number: str, fold_run: FoldRun, *, count: int, data: Path, stores: Sequence[Path]) -> Figure:
    """A figure of the paper, from the runs and results of ``fold_run``."""
    if number == "9":
        return relabelling_figure(fold_run)
    if number == "3":
        own = {name: replace(fold_run, experiment=find(f"table1/{name}")).folder for name in FIGURE_3}
        run = fold_run
        return draw_losses(own, title=f"schedule {run.schedule}, seed {run.seed}, fold {run.fold} of {run.folds}")
    source = Source(fold_run=fold_run, data=TrainingData.of(data, stores), count=count)
    if number == "5":
        return retrieval_figure(source)
    rows = [find(f"table1/{name}") for name in FIGURE_4] if number == "4" else list(rows_of("4"))
    return cam_figure(source, rows)
