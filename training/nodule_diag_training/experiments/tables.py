"""The paper's tables as Markdown, from the recorded results alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nodule_diag.results import Space
from nodule_diag_training.data import TrainingDataError

from .catalogue import CONFOUNDER, Experiment, find, rows_of
from .confounder_table import confounder_section
from .faithfulness_table import faithfulness_section
from .markdown import NOTHING, folds_cell, interval_cell, paper_cell, table
from .paper import PaperFigures, other_methods, paper_figures
from .records import FoldRecord, read_run
from .retrieval import retrieve_folds
from .schedules import DESCRIPTIONS, SCHEDULES, ScheduleName, precision_of
from .scores import METRICS, TITLES, Scored, auc_difference, over_folds, pooled_auc
from .tested import LABELS, Labels, label_of, labels_of, scored, yardsticks

TABLES: dict[str, str] = {
    "1": "Synergic models on diagnosed nodules: modules, attention and losses",
    "2": "Diagnosis by retrieval with model J, K = 20, out of fold (eq. 13, 14)",
    "3": "Modes of RNet: cross-entropy, ordinal regression, mean square error",
    "4": "CSL and ad-CSL with different margins",
    "5": "Input modalities",
    "6": "Unsure and sure data: label scenarios and ways to join them",
    "7": "Readers' scores 1, 2 against 4, 5 (scenario 12/45)",
    CONFOUNDER: "A background that tells the label in training and not in the test",
}
HEAD = ("", "", *TITLES.values(), "pooled AUC [95 %]", "nodules")
SPACE_TITLES: dict[Space, str] = {
    "machine": "Machine (CNet)",
    "expert": "Expert (RNet)",
    "machine+expert": "Machine and expert",
}
RETRIEVAL_RUN = "table1/J"
WHOLE = {"1": RETRIEVAL_RUN, "7": "table7/CSF+ad-CSL"}
"""The row of a table with the whole system; the other rows lack a part of it."""
COMPARED: dict[Labels, str] = {"certain": "certain diagnoses", "all": "all diagnoses", "scores": "readers' scores"}
ORDER = ("J", "F", "D", "A")
"""Table 1's order by AUC, F1 and accuracy."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The folds of one run, seed and schedule."""

    schedule: ScheduleName
    seed: int
    records: tuple[FoldRecord, ...]

    @property
    def key(self) -> tuple[ScheduleName, int, tuple[int, ...]]:
        """What two results must share to be compared nodule by nodule."""
        return self.schedule, self.seed, tuple(r.fold for r in self.records)

    @property
    def made_by(self) -> str:
        """The package, or packages, that its folds were trained by."""
        return "; ".join(sorted({record.made_by for record in self.records}))

    @property
    def title(self) -> str:
        """``short: 250 steps at 40, seed 0, 5 of 5 folds``, as the folds were trained, whatever the schedule is now.

        A precision that is not the schedule's stands behind the size: ``medium: 1500 steps at 48 in fp32``.
        """
        steps = sorted({sum(stage["steps"] for c in r.configs for stage in c["stages"]) for r in self.records})
        sizes = sorted({r.patch_size for r in self.records})
        precisions = {config.get("precision", "fp32") for record in self.records for config in record.configs}
        other = "" if precisions == {precision_of(self.schedule)} else f" in {' and '.join(sorted(precisions))}"
        length = f"{_range(steps)} steps at {_range(sizes)}{other}"
        return f"{self.schedule}: {length}, seed {self.seed}, {len(self.records)} of {self.records[0].folds} folds"


def _range(values: Sequence[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def results_of(root: Path, rows: Sequence[Experiment]) -> dict[str, list[Result]]:
    """The results of a table's rows by name, the paper's schedule first.

    Rows are compared within a schedule, so ``short`` is left out only once ``medium`` has the same folds of every row.
    """
    found = {
        row.name: [
            Result(schedule=schedule, seed=seed, records=tuple(records))
            for schedule in SCHEDULES
            for seed, records in read_run(root, row, schedule=schedule).items()
        ]
        for row in rows
    }
    longer = [{r.key[1:] for r in results if r.schedule == "medium"} for results in found.values() if results]
    replaced = set.intersection(*longer) if longer else set()
    return {
        name: [r for r in results if r.schedule != "short" or r.key[1:] not in replaced]
        for name, results in found.items()
    }


def make_table(number: str, root: Path, *, command: str) -> str:
    """A table as Markdown.

    Args:
        number: ``1`` to ``7``, or ``confounder``.
        root: Folder of the results.
        command: The command that makes the table, for the reader.

    Raises:
        TrainingDataError: If there is no such table, or a result cannot be read.
    """
    if number not in TABLES:
        raise TrainingDataError(f"there is no table {number!r}", hint=f"one of {', '.join(TABLES)}")
    rows = (find(RETRIEVAL_RUN),) if number == "2" else rows_of(number)
    results = results_of(root, rows)
    title = TABLES[number]
    parts = [f"# {title}" if number == CONFOUNDER else f"# Table {number}: {title}", _preamble(results, command)]
    if number == CONFOUNDER:
        parts.append(confounder_section([(row, r.title, r.records) for row in rows for r in results[row.name]]))
    labels = sorted({label for row in rows for label in labels_of(row)}, key=list(LABELS).index)
    for label in labels:
        parts.append(f"## {LABELS[label]}")
        parts.append(_retrieval(results[RETRIEVAL_RUN], label) if number == "2" else _rows(rows, results, label))
        parts += _yardsticks(rows, results, label)
    if number == "1":
        parts.append(_order(rows, results))
    if number in WHOLE:
        parts.append(_differences(find(WHOLE[number]), rows, results))
    if number in ("1", "4", "5", "7"):
        parts.append(faithfulness_section([(row, r.title, r.records) for row in rows for r in results[row.name]]))
    if number == "7":
        parts.append(_others())
    return "\n\n".join(part for part in parts if part) + "\n"


def _preamble(results: dict[str, list[Result]], command: str) -> str:
    schedules = [s for s in SCHEDULES if any(r.schedule == s for found in results.values() for r in found)]
    told = "\n".join(f"- schedule `{name}`: {DESCRIPTIONS[name]}" for name in schedules)
    lines = [
        f"Made by `{command}`; nothing in it is typed by hand. {_versions(results)}",
        "Percent. Lines name the schedule, the steps and the size of the patches (voxels of 0.5 mm). Folds are of "
        "patients, each judged by a model that never saw them; mean ± standard deviation over the folds is the paper's "
        "form. The pooled AUC is of the nodules of all folds together, with its interval over 2000 draws of patients. "
        "`paper` rows are the paper's own figures, of other nodules: 330 with a diagnosis from Shanghai Chest Hospital "
        "and LIDC-IDRI's 686.",
    ]
    return "\n\n".join([*lines, told] if told else lines)


def _versions(results: dict[str, list[Result]]) -> str:
    """The versions of package, code and data of the models; row by row where these differ."""
    by_version: dict[str, list[str]] = {}
    for name, found in results.items():
        for result in found:
            by_version.setdefault(result.made_by, []).append(name)
    if not by_version:
        return ""
    told = [made_by if len(by_version) == 1 else f"{made_by} ({', '.join(n)})" for made_by, n in by_version.items()]
    return f"The models were trained by {'; '.join(told)}."


def _rows(rows: Sequence[Experiment], results: dict[str, list[Result]], labels: Labels) -> str:
    lines = []
    for row in rows:
        if labels not in labels_of(row):
            continue
        found = results[row.name]
        if not found:
            lines.append([row.title, "not run", *[NOTHING] * (len(METRICS) + 2)])
        lines += [[row.title, *_figures(r.title, scored(r.records, labels, row.scenario))] for r in found]
        paper = paper_figures(row.name)
        if paper is not None:
            lines.append([row.title, *_paper(paper)])
    return table(HEAD, lines)


def _figures(title: str, nodules: Sequence[Scored]) -> list[str]:
    malignant = sum(n.label for n in nodules)
    return [
        title,
        *(folds_cell(over_folds(metric, nodules)) for metric in METRICS),
        interval_cell(pooled_auc(nodules)),
        f"{len(nodules)} ({malignant} malignant)",
    ]


def _paper(figures: PaperFigures) -> list[str]:
    return ["paper", *(paper_cell(getattr(figures, metric)) for metric in METRICS), NOTHING, NOTHING]


def _retrieval(results: Sequence[Result], labels: Labels) -> str:
    lines = []
    for space, title in SPACE_TITLES.items():
        if not results:
            lines.append([title, "not run", *[NOTHING] * (len(METRICS) + 2)])
        for result in results:
            nodules = [
                Scored(label=label, score=answer.diagnosis, patient_id=answer.nodule.patient_id, fold=fold)
                for fold, answer in retrieve_folds(result.records, space=space, diagnosed=True)
                if (label := label_of(answer.nodule, labels, None)) is not None
            ]
            lines.append([title, *_figures(result.title, nodules)])
        paper = paper_figures(f"table2/{space}")
        if paper is not None:
            lines.append([title, *_paper(paper)])
    return table(HEAD, lines)


def _yardsticks(rows: Sequence[Experiment], results: dict[str, list[Result]], labels: Labels) -> list[str]:
    """Yardsticks on the nodules of the result with the most folds, for each scenario that divides scores."""
    parts = []
    scenarios = {row.scenario if labels == "scores" else None for row in rows if labels in labels_of(row)}
    for scenario in sorted(scenarios, key=str):
        own = [r for row in rows for r in results[row.name] if scenario in (None, row.scenario)]
        if not own:
            continue
        fullest = max(own, key=lambda r: len(r.records))
        found = yardsticks(fullest.records, labels, scenario)
        lines = [[y.title, interval_cell(y.auc), str(y.auc.n)] for y in found]
        parts.append(table((f"Yardstick{f', {scenario}' if scenario else ''}", "pooled AUC [95 %]", "n"), lines))
    return parts


def _order(rows: Sequence[Experiment], results: dict[str, list[Result]]) -> str:
    """Whether the paper's J > F > D > A holds here, by the pooled AUC of all diagnosed nodules."""
    sentences = []
    for schedule in SCHEDULES:
        aucs = {}
        for row in rows:
            full = [r for r in results[row.name] if r.schedule == schedule and len(r.records) == r.records[0].folds]
            if full and row.config.system in ORDER:
                aucs[row.config.system] = pooled_auc(scored(full[0].records, "all", None)).value
        if len(aucs) == len(ORDER):
            here = sorted(aucs, key=lambda system: -aucs[system])
            holds = tuple(here) == ORDER
            values = " > ".join(f"{system} ({100 * aucs[system]:.2f})" for system in here)
            sentences.append(
                f"Schedule `{schedule}`: by the pooled AUC of all diagnosed nodules the order is {values}; the paper's "
                f"{' > '.join(ORDER)} {'holds' if holds else 'does not hold'}. Where intervals overlap as they do "
                "above, an order says little."
            )
    return "## The paper's order\n\n" + "\n\n".join(sentences) if sentences else ""


def _differences(whole: Experiment, rows: Sequence[Experiment], results: dict[str, list[Result]]) -> str:
    """The AUC of the whole system minus each other row's, on the same nodules, where the same folds were run."""
    lines = []
    for ours in results[whole.name]:
        for row in rows:
            for other in results[row.name]:
                if row.name == whole.name or other.key != ours.key:
                    continue
                cells = []
                for labels in labels_of(row):
                    pair = [scored(r.records, labels, whole.scenario) for r in (ours, other)]
                    cells.append(interval_cell(auc_difference(pair[0], pair[1])))
                lines.append([f"{_short(whole)} minus {_short(row)}", other.title, *cells])
    if not lines:
        return ""
    head = ("", "", *(COMPARED[labels] for labels in labels_of(whole)))
    told = "Difference of the pooled AUC with its 95 % interval over patients, both models on the same nodules."
    return f"## What {_short(whole)} has on the others\n\n{told}\n\n{table(head, lines)}"


def _short(row: Experiment) -> str:
    """``J`` of ``table1/J``."""
    return row.name.partition("/")[2]


def _others() -> str:
    lines = [[name, *_paper(figures)[1 : 1 + len(METRICS)]] for name, figures in other_methods().items()]
    return "## Other methods, as the paper reports them\n\n" + table(("", *TITLES.values()), lines)
