"""Every row of the paper's tables that is a training, by name; rows that are the same training share one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from nodule_diag_training.config import Modality, Scenario, TrainingConfig
from nodule_diag_training.data import CUE_HU, TrainingDataError
from nodule_diag_training.systems import SystemName

Learns = Literal["sure", "unsure", "sure+unsure"]
"""Which nodules are drawn."""
Tested = Literal["sure", "unsure"]
"""Diagnosed nodules, or nodules of the paper's cohort with the side that readers' scores give them."""
CONFOUNDER = "confounder"
FINE_TUNING_RATE = 0.1
"""1e-4 after 1e-3 (5.4)."""


class UnknownExperimentError(TrainingDataError):
    """No row of the catalogue has this name."""

    code = "unknown-experiment"
    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One training of a run.

    Attributes:
        config: The row's changes to the paper's model J; the schedule adds patch sizes, steps, rates and draws.
        learns: Which nodules are drawn.
        share: Part of the schedule's epochs or steps.
        rate: Factor on the schedule's learning rate.
    """

    config: TrainingConfig
    learns: Learns = "sure+unsure"
    share: float = 1.0
    rate: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A row of a table.

    Attributes:
        name: ``table1/J``; commands take this name.
        table: ``1`` to ``7``, or ``confounder``.
        title: The row in the paper's words.
        phases: Its training; a fine-tuned row has two.
        tested: The nodules that its figures are computed on.
        run: Rows with the same run are the same training.
    """

    name: str
    table: str
    title: str
    phases: tuple[Phase, ...]
    tested: Tested = "sure"
    run: str

    @property
    def folder(self) -> str:
        """The run's name as a folder."""
        return self.run.replace("/", "-")

    @property
    def config(self) -> TrainingConfig:
        """The configuration of the last phase, whose model is judged."""
        return self.phases[-1].config

    @property
    def scenario(self) -> Scenario | None:
        """The rule that turns scores into labels, where the row is tested on unsure nodules."""
        return next((phase.config.scenario for phase in self.phases if phase.config.scenario is not None), None)


def _row(
    name: str,
    title: str,
    *phases: Phase,
    run: str | None = None,
    tested: Tested = "sure",
) -> Experiment:
    table = name.split("/")[0].removeprefix("table")
    return Experiment(name=name, table=table, title=title, phases=phases, tested=tested, run=run or name)


TABLE_1: dict[SystemName, str] = {
    "A": "A: C",
    "B": "B: C,S",
    "C": "C: C,R",
    "D": "D: C,S,R",
    "E": "E: C,S,R,ARL",
    "F": "F: C,S,R,F",
    "G": "G: C,S,R,F,ARL",
    "H": "H: C,S,R,F + CL",
    "I": "I: C,S,R,F + CSL",
    "J": "J: C,S,R,F + ad-CSL",
}
"""Systems and modules."""


def _learns(system: SystemName) -> Learns:
    """Model A has no branch that unsure nodules could teach."""
    return "sure" if system == "A" else "sure+unsure"


def _table_1() -> Iterator[Experiment]:
    for system, title in TABLE_1.items():
        yield _row(f"table1/{system}", title, Phase(config=TrainingConfig(system=system), learns=_learns(system)))


def _table_3() -> Iterator[Experiment]:
    for system in ("C", "D"):
        for mode, loss in (("CE", "cross-entropy"), ("Ord", "ordinal"), ("MSE", "mse")):
            config = TrainingConfig.model_validate({"system": system, "score_loss": loss})
            run = f"table1/{system}" if mode == "MSE" else None
            yield _row(f"table3/{system}/{mode}", f"{system}, {mode}", Phase(config=config), run=run)


def _table_4() -> Iterator[Experiment]:
    rows = [("bkg", "background", 0.5), ("bkg", "background", -0.5)]
    rows += [("ndl", "nodule", margin) for margin in (-0.5, 0.1, 0.5, 0.9)]
    for short, mode, margin in rows:
        for loss, system in (("CSL", "I"), ("ad-CSL", "J")):
            config = TrainingConfig.model_validate({"system": system, "margin_mode": mode, "margin": margin})
            run = f"table1/{system}" if (short, margin) == ("ndl", 0.5) else None
            larger, smaller = ("bkg", "ndl") if short == "bkg" else ("ndl", "bkg")
            condition = f"{larger} >= {smaller} {'+' if margin > 0 else '-'} {abs(margin):g}"
            yield _row(f"table4/{short}/{margin:g}/{loss}", f"{condition}, {loss}", Phase(config=config), run=run)


def _table_5() -> Iterator[Experiment]:
    systems: tuple[SystemName, ...] = ("A", "D", "D+ad-CSL")
    for system in systems:
        for modality in get_args(Modality):
            run = f"table1/{system}" if modality == "64" and system != "D+ad-CSL" else None
            phase = Phase(
                config=TrainingConfig(system=system, input=modality),
                learns=_learns(system),
            )
            yield _row(f"table5/{system}/{modality}", f"{system}, input {modality}", phase, run=run)


def _scores_only(system: SystemName, scenario: Scenario | None) -> TrainingConfig:
    return TrainingConfig(system=system, scenario=scenario, diagnosis_teaches=False)


def _unsure_run(scenario: Scenario) -> str:
    return f"table6/{slug(scenario)}/unsure"


def slug(scenario: Scenario) -> str:
    """``12-45`` for ``12/45``: names of rows are split at slashes."""
    return scenario.replace("/", "-")


def _table_6() -> Iterator[Experiment]:
    by_total = {"best_by": "total"}  # there is no CNet whose loss could choose the checkpoint
    yield _row(
        "table6/R/unsure/on-sure",
        "RNet, unsure, tested on sure",
        Phase(config=_scores_only("R", None).model_copy(update=by_total), learns="unsure"),
        run="table6/R/unsure",
    )
    both = TrainingConfig(system="R", diagnosis_as_score=True).model_copy(update=by_total)
    yield _row("table6/R/unsure+sure", "RNet, unsure + sure, tested on sure", Phase(config=both))
    for scenario in get_args(Scenario):
        base, title = f"table6/{slug(scenario)}", f"CNet, {scenario}"
        unsure = Phase(config=_scores_only("A", scenario), learns="unsure")
        tests: tuple[Tested, ...] = ("unsure", "sure")
        for tested in tests:
            yield _row(
                f"{base}/unsure/on-{tested}",
                f"{title}, unsure, tested on {tested}",
                unsure,
                run=_unsure_run(scenario),
                tested=tested,
            )
        mixed = Phase(config=TrainingConfig(system="A", scenario=scenario))
        yield _row(f"{base}/unsure+sure", f"{title}, unsure + sure, tested on sure", mixed)
        first = Phase(config=unsure.config, learns="unsure", share=0.5)
        second = Phase(config=TrainingConfig(system="A"), learns="sure", share=0.5, rate=FINE_TUNING_RATE)
        yield _row(f"{base}/fine-tuned", f"{title}, fine-tuned, tested on sure", first, second)


def _table_7() -> Iterator[Experiment]:
    rows: tuple[tuple[str, str, SystemName], ...] = (
        ("C", "C", "A"),
        ("CS", "C,S", "B"),
        ("CSF", "C,S,F", "CSF"),
        ("CSF+ad-CSL", "C,S,F + ad-CSL", "CSF+ad-CSL"),
    )
    for name, title, system in rows:
        phase = Phase(config=_scores_only(system, "12/45"), learns="unsure")
        run = _unsure_run("12/45") if system == "A" else None
        yield _row(f"table7/{name}", title, phase, run=run, tested="unsure")


def _confounder() -> Iterator[Experiment]:
    """Scenario 12/45 of the unsure data, where a model reaches an AUC that a confounder can lower.

    J's RNet is left out, as in Table 7: it would learn the score, which is the label here, without the cue.
    """
    rows: tuple[tuple[str, str, SystemName], ...] = (("A", "A", "A"), ("J", "J without RNet", "CSF+ad-CSL"))
    for name, title, system in rows:
        config = _scores_only(system, "12/45").model_copy(update={"cue_hu": CUE_HU})
        phase = Phase(config=config, learns="unsure")
        yield _row(f"{CONFOUNDER}/{name}", f"{title}, 12/45, cue of {CUE_HU:g} HU", phase, tested="unsure")


@cache
def catalogue() -> tuple[Experiment, ...]:
    """Every row, in the order of the tables."""
    tables = (_table_1, _table_3, _table_4, _table_5, _table_6, _table_7, _confounder)
    return tuple(row for table in tables for row in table())


def rows_of(table: str) -> tuple[Experiment, ...]:
    """The rows of a table."""
    return tuple(row for row in catalogue() if row.table == table)


def find(name: str) -> Experiment:
    """The row, or the first of a run, of this name.

    Raises:
        UnknownExperimentError: If there is none.
    """
    for row in catalogue():
        if name in (row.name, row.run):
            return row
    alike = [row.name for row in catalogue() if row.name.startswith(name.split("/")[0])]
    raise UnknownExperimentError(
        f"there is no experiment {name!r}",
        hint=f"one of {', '.join(alike)}" if alike else "nodule-diag train list shows all",
    )
