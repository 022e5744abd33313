"""The catalogue against the paper: its rows, its schedule, and the consistency of the numbers that were copied."""

from __future__ import annotations

import pytest

from nodule_diag_training.experiments.catalogue import UnknownExperimentError, catalogue, find, rows_of
from nodule_diag_training.experiments.paper import other_methods, paper_figures
from nodule_diag_training.experiments.schedules import configured
from nodule_diag_training.model.synergic import SynergicModel, count_weights

ROWS = catalogue()
WEIGHTS = {
    "A": 3.6282, "B": 3.8770, "C": 3.6284, "D": 3.8773, "E": 3.8773,
    "F": 3.8842, "G": 3.8842, "H": 3.8842, "I": 3.8842, "J": 3.8842,
}  # fmt: skip
"""Table 1, millions."""


def test_every_row_of_the_tables_is_there_with_its_numbers():
    assert {table: len(rows_of(table)) for table in ("1", "3", "4", "5", "6", "7", "confounder")} == {
        "1": 10, "3": 6, "4": 12, "5": 12, "6": 22, "7": 4, "confounder": 2,
    }  # fmt: skip
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert [row.name for row in ROWS if paper_figures(row.name) is None] == ["confounder/A", "confounder/J"]
    assert all(paper_figures(f"table2/{space}") for space in ("machine", "expert", "machine+expert"))
    assert len(other_methods()) == 7


def test_rows_share_a_run_exactly_where_they_are_the_same_training():
    by_run = {row.run: row.phases for row in ROWS}
    assert all(by_run[row.run] == row.phases for row in ROWS)
    assert len({repr(phases) for phases in by_run.values()}) == len(by_run)
    shared = {"table3/D/MSE": "table1/D", "table4/ndl/0.5/ad-CSL": "table1/J", "table5/A/64": "table1/A"}
    assert {name: find(name).run for name in shared} == shared
    assert find("table7/C").run == find("table6/12-45/unsure/on-sure").run


def test_shared_rows_have_the_same_numbers_in_the_paper_too():
    for row in ROWS:
        one, other = paper_figures(row.name), paper_figures(row.run)
        if row.name != row.run and one is not None and other is not None:
            means = [[f and f.mean for _, f in figures] for figures in (one, other)]
            assert means[0] == means[1], row.name


@pytest.mark.parametrize(("system", "millions"), WEIGHTS.items())
def test_parameters_are_the_papers(system, millions):
    config = find(f"table1/{system}").config
    assert count_weights(SynergicModel(config.modules)) / 1e6 == pytest.approx(millions, abs=6e-5)


@pytest.mark.parametrize("row", [r for r in ROWS if r.tested == "sure"], ids=lambda row: row.name)
def test_the_papers_numbers_on_sure_data_fit_each_other(row):
    """165 benign and 165 malignant, in folds of 33 and 33: means of sensitivity and specificity average to accuracy."""
    paper = paper_figures(row.name)
    assert (paper.sensitivity.mean + paper.specificity.mean) / 2 == pytest.approx(paper.accuracy.mean, abs=0.011)
    nodules = 165 * paper.sensitivity.mean / 100
    assert nodules == pytest.approx(round(nodules), abs=0.01), "whole nodules"
    # F1 and precision are means of ratios over folds: near the ratios of the means, not on them.
    f1 = 2 * paper.precision.mean * paper.sensitivity.mean / (paper.precision.mean + paper.sensitivity.mean)
    assert paper.f1.mean == pytest.approx(f1, abs=10.0 if paper.sensitivity.mean < 60 else 2.0)
    assert min(figure.mean for _, figure in paper) >= 0.0
    assert max(figure.mean for _, figure in paper) <= 100.0


def test_an_unknown_row_is_named_with_those_that_are_alike():
    with pytest.raises(UnknownExperimentError, match="no experiment 'table1/K'") as error:
        find("table1/K")
    assert "table1/J" in error.value.hint


def test_the_papers_schedule(paired_nodules):
    j = configured(find("table1/J").phases[0], "paper", nodules=paired_nodules, seed=3)
    # 24 sure nodules, of which 80 % are trained on: 19 steps in each of 100 epochs.
    assert (j.steps, j.validate_every, j.patch_size(0)) == (1900, 19, 64)
    assert (j.unsure_draws, j.sure_draws, j.learning_rate, j.schedule) == (1, 1, 1e-3, "constant")
    assert (j.validation_share, j.seed, j.margin, j.constant_confidence) == (0.2, 3, 0.5, False)
    # Scores of 3 have no side in 12/45: 18 of the 24.
    c = configured(find("table7/C").phases[0], "paper", nodules=paired_nodules, seed=0)
    assert (c.steps, c.unsure_draws, c.sure_draws) == (1400, 1, 0)
    first, second = (
        configured(phase, "paper", nodules=paired_nodules, seed=0) for phase in find("table6/12-45/fine-tuned").phases
    )
    assert (first.steps, first.learning_rate, first.sure_draws) == (700, 1e-3, 0)
    assert (second.steps, second.learning_rate, second.unsure_draws) == (950, pytest.approx(1e-4), 0)


@pytest.mark.parametrize(
    ("schedule", "size", "steps", "precision"), [("short", 32, 300, "fp32"), ("medium", 48, 1500, "bf16")]
)
def test_the_reduced_schedules(schedule, size, steps, precision):
    a, j, c = (
        configured(find(name).phases[-1], schedule, nodules=[], seed=0) for name in ("table1/A", "table1/J", "table7/C")
    )
    assert [(x.unsure_draws, x.sure_draws) for x in (a, j, c)] == [(0, 2), (2, 2), (4, 0)]
    assert {(x.steps, x.patch_size(0), x.head_rate) for x in (a, j, c)} == {(steps, size, 10.0)}
    assert {(x.precision, x.steps % x.validate_every) for x in (a, j, c)} == {(precision, 0)}
    assert all(x.constant_confidence and x.schedule == "one-cycle" and x.validation_share == 0.2 for x in (a, j, c))
