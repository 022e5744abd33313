"""The figures are drawn without a screen, from finished runs, and show what the records say."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from nodule_diag_training.data.nodule import TrainingDataError
from nodule_diag_training.data.training_data import TrainingData
from nodule_diag_training.experiments import drawing, figures, judging, schedules
from nodule_diag_training.experiments.catalogue import find
from nodule_diag_training.experiments.drawing import save
from nodule_diag_training.experiments.figure_relabelling import draw_relabelling
from nodule_diag_training.experiments.figure_retrieval import Answer, draw_retrieval
from nodule_diag_training.experiments.records import NoduleRecord
from nodule_diag_training.experiments.retrieval import Relabelled, retrieve
from nodule_diag_training.experiments.running import FoldRun, judge_fold, train_fold


@pytest.fixture(scope="module")
def source(tmp_path_factory, paired_nodules, paired_voxels):
    """Model J of one fold, after a step."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(schedules.REDUCED, "short", schedules.Reduced(size=32, steps=1))
        patch.setattr(judging, "CURVES_PER_FOLD", 0)
        run = FoldRun(
            experiment=find("table1/J"), schedule="short", seed=0, fold=0, folds=6, root=folder / "runs",
            results=folder / "results",
        )  # fmt: skip
        data = TrainingData(paired_nodules, load=lambda nodules: {n.case_id: paired_voxels[n.case_id] for n in nodules})
        train_fold(run, data)
        judge_fold(run, data)
    return figures.Source(fold_run=run, data=data, count=4)


def diagnosed(name: str, *, malignant: bool) -> NoduleRecord:
    return NoduleRecord(
        case_id=name, patient_id=name, form="cube", in_paper_cohort=True, diameter_mm=8.0, reader_scores=(3,),
        label=1 if malignant else 0, certainty="nodule", malignancy=0.5, expert_score=3.0,
    )  # fmt: skip


def frames(figure):
    return [tuple(round(c, 3) for c in axes.spines["left"].get_edgecolor()) for axes in figure.axes if axes.images]


def test_cams_are_drawn_for_the_rows_that_were_run(source, tmp_path):
    figure = figures.cam_figure(source, [find("table1/A"), find("table1/J")])
    assert len(figure.axes) == 2 * 4, "inputs and J; A was not run"
    labels = [axes.get_xlabel() for axes in figure.axes[4:]]
    assert all(label[0] in "BM" and 0.5 <= float(label[2:]) <= 1.0 for label in labels)
    truth = [axes.get_title() for axes in figure.axes[:4]]
    assert truth == ["benign", "malignant"] * 2
    right = [label[0].lower() == word[0] for label, word in zip(labels, truth, strict=True)]
    assert [f[1] > f[0] for f in frames(figure)[4:]] == right, "green where the answer is right, red where not"
    save(figure, tmp_path / "figure.png")
    assert np.ptp(imread(tmp_path / "figure.png")[..., :3]) > 0.5
    with pytest.raises(TrainingDataError, match="no model in"):
        figures.cam_figure(source, [find("table1/A")])


def test_retrieval_panels_are_framed_by_the_cases_labels(source):
    figure = figures.retrieval_figure(source)
    images = [axes for axes in figure.axes if axes.images]
    # Two nodules, machine and expert, twenty cases each.
    assert len(images) == 2 * 2 * 21


def test_a_wrong_case_is_framed_red():
    cases = [diagnosed("a", malignant=True), diagnosed("b", malignant=False)]
    answer = retrieve([diagnosed("c", malignant=True)], cases, space="machine", k=2)[0]
    figure = draw_retrieval(
        [Answer(space="machine", retrieved=answer)], lambda _: np.zeros((2, 8, 8, 8), np.float32), title="x"
    )
    green, red = frames(figure)[1:3]
    assert green[1] > green[0]
    assert red[0] > red[1]


def test_losses_and_relabelling_are_drawn(source, tmp_path):
    figure = figures.draw_losses({"J": source.fold_run.folder}, title="x")
    training, validation = figure.axes[0].lines
    assert (len(training.get_xdata()), len(validation.get_xdata())) == (1, 1)
    with pytest.raises(TrainingDataError, match="none of the runs has a log"):
        figures.draw_losses({"J": tmp_path}, title="x")
    bars = figures.relabelling_figure(source.fold_run).axes[0].containers
    assert sum(bar.get_height() for group in bars for bar in group) == 4
    counts = Relabelled(benign=(5, 4, 3, 2, 1), malignant=(0, 1, 2, 3, 4))
    heights = [[bar.get_height() for bar in group] for group in draw_relabelling(counts, title="x").axes[0].containers]
    assert heights == [[5, 4, 3, 2, 1], [0, 1, 2, 3, 4]]


def test_the_outline_is_where_the_segmentation_is():
    segmentation = np.zeros((8, 8, 8), np.float32)
    segmentation[:, 2:4, 4:7] = 1.0
    _, axes = drawing.canvas(rows=1, columns=1)
    drawing.show_contour(axes[0, 0], segmentation)
    points = np.concatenate([path.vertices for path in axes[0, 0].collections[0].get_paths()])
    np.testing.assert_allclose(points.min(axis=0), (4 / 8, 2 / 8), atol=1e-6)
    np.testing.assert_allclose(points.max(axis=0), (7 / 8, 4 / 8), atol=1e-6)
