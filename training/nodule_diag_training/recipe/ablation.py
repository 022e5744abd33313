"""``nodule-diag train ablate``: what each departure from the paper is worth in the recipe.

A short version of the recipe, on 40-cubes, is trained once as it is and once for each departure, with this departure
switched off. Steps and seed are the same, and so are the draws where the departure does not change them. All runs are
judged on the same patients, who were not learned from and are not of fold 0, on which the recipe is judged.
"""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from nodule_diag.errors import UsageError
from nodule_diag.process import write_bytes
from nodule_diag.results import presence_evidence
from nodule_diag_training.config import RECIPE, Precision, TrainingConfig
from nodule_diag_training.data import (
    PatchSampler,
    Sample,
    TrainingData,
    case_generator,
    load_lung,
    once,
    with_lung,
    without_lung,
)
from nodule_diag_training.engine import MODEL, Execution, Run, keep_freed_memory, load_model, set_aside
from nodule_diag_training.evaluation import HELD_OUT, Array, Estimate, auc, batches_of, estimate, judge, spearman
from nodule_diag_training.model import SynergicModel
from nodule_diag_training.options import DEFAULT_DATA, DataOption
from nodule_diag_training.progress import PrecisionOption, progress

from .command import finished, held_out_of, lung_of_fold
from .departures import DEPARTURES, SIZE, WHOLE, configured, first_weights

STEPS = 1200
FOLD = 0
SHARE = 0.2
"""Share of the patients outside the fold that the runs are judged on."""
Columns = Mapping[str, Array]
"""Values of some nodules, by name: one value for each nodule."""
JUDGED = "judged.json"
REPORT = "ablations.json.xz"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A column of the table.

    Attributes:
        title: In words.
        value: Computes the figure from the values of some nodules.
        digits: Decimal places.
    """

    title: str
    value: Callable[[Columns], float]
    digits: int = 3


SAID = (
    "is_nodule", "evidence", "reader_score", "expert_score", "label", "malignancy", "dice_grid", "diameter_error_mm",
    "cam_nodule", "cam_background",
)  # fmt: skip
"""The values that the figures are computed from."""


def columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """The values of some rows by name; NaN where there is none."""
    return {name: np.array([row.get(name) for row in rows], dtype=np.float64) for name in SAID}


def _of(found: Columns, *names: str) -> tuple[Array, ...]:
    """Columns, of the nodules that have all of them."""
    known = np.all([np.isfinite(found[name]) for name in names], axis=0)
    return tuple(found[name][known] for name in names)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _sides(found: Columns) -> float:
    score, malignancy = _of(found, "reader_score", "malignancy")
    clear = (score < 2.5) | (score >= 3.5)
    return auc((score > 3.0)[clear].astype(float), malignancy[clear])


def _score_error(found: Columns) -> float:
    score, expert = _of(found, "reader_score", "expert_score")
    return _mean(abs(score - expert))


def _margin(found: Columns) -> float:
    nodule, background = _of(found, "cam_nodule", "cam_background")
    return _mean(nodule - background)


FIGURES = (
    Figure(title="Dice", value=lambda found: _mean(*_of(found, "dice_grid"))),
    Figure(title="diameter error, mm", value=lambda found: _mean(abs(_of(found, "diameter_error_mm")[0])), digits=2),
    Figure(title="score, Spearman", value=lambda found: spearman(*_of(found, "reader_score", "expert_score"))),
    Figure(title="score, MAE", value=_score_error),
    Figure(title="CAM margin", value=_margin),
    Figure(title="12/45, AUC of P", value=_sides),
    Figure(title="diagnoses, AUC of P", value=lambda found: auc(*_of(found, "label", "malignancy"))),
    Figure(title="presence, AUC", value=lambda found: auc(*_of(found, "is_nodule", "evidence"))),
)


class Ablation:
    """The runs of a folder: each departure's run, and its answers for the patients set aside.

    Args:
        folder: Folder of the runs.
        root: The data folder.
        steps: Steps of each run.
        seed: Seed of each run; the patients set aside do not depend on it.
        precision: Precision of the convolutions, if not the recipe's.
    """

    def __init__(
        self, folder: Path, *, root: Path, steps: int, seed: int = RECIPE.seed, precision: Precision | None = None
    ) -> None:
        self._folder = folder
        self._steps, self._seed, self._precision = steps, seed, precision
        data, places = TrainingData.of(root), load_lung(root)
        outside = held_out_of(FOLD, data.nodules)
        nodules = [n for n in data.nodules if n.patient_id not in outside]
        aside = set_aside(nodules, share=SHARE, seed=RECIPE.seed)
        learned, lung = lung_of_fold(places, FOLD)
        self._learned = [*(n for n in nodules if n.patient_id not in aside), *learned]
        self._judged = [n for n in once(nodules) if n.patient_id in aside]
        self._lung = [place for place in places if place.patient_id in lung]
        self._data = with_lung(data, places)
        self._held_out = sorted({*outside, *aside, *lung})

    def train(self, name: str, *, execution: Execution) -> None:
        """Train a departure's run, unless it is finished, and judge it."""
        departure, config, folder = DEPARTURES[name], self._config(name), self._folder / name
        if not finished(folder, config):
            with progress(name, precision=config.precision, device=execution.device) as show:
                Run(
                    folder,
                    config=config,
                    nodules=self._learned,
                    voxels=self._data.voxels_of(self._learned),
                    provenance={"ablation": name, HELD_OUT: self._held_out},
                    initial=first_weights(config, departure),
                    execution=execution,
                ).train(on_step=partial(show, config))
        rows = self._judgement(folder / MODEL)
        write_bytes(folder / JUDGED, (json.dumps(rows) + os.linesep).encode())

    def gathered(self) -> dict[str, Any]:
        """All judgements in the folder, from which :func:`table` can be made again; floats to five digits.

        Runs of other steps, of another seed or in another precision are left out.
        """
        judged = {}
        for name in DEPARTURES:
            file = self._folder / name / JUDGED
            if file.is_file() and finished(file.parent, self._config(name)):
                judged[name] = json.loads(file.read_text(), parse_float=_short)
        return {"steps": self._steps, "seed": self._seed, "judged": judged}

    def _config(self, name: str) -> TrainingConfig:
        return configured(DEPARTURES[name], steps=self._steps, seed=self._seed).in_precision(self._precision)

    def _judgement(self, path: Path) -> list[dict[str, Any]]:
        model = load_model(path)[0]
        everything = [*self._judged, *self._lung]
        lenders = without_lung(self._learned)
        voxels = self._data.voxels_of([*lenders, *everything])
        sampler = PatchSampler(voxels, lenders)
        samples = [
            sampler.place(voxels[n.case_id], case_generator(n.case_id), patient_id=n.patient_id, size=SIZE)
            for n in everything
        ]
        evidence = _evidence(model, samples)
        said = judge(model, self._judged, samples[: len(self._judged)], fold=FOLD, form="voi")
        rows = [{**j.to_dict(), "is_nodule": 1.0} for j in said]
        rows += [{"case_id": n.case_id, "patient_id": n.patient_id, "is_nodule": 0.0} for n in self._lung]
        return [{**row, "evidence": own} for row, own in zip(rows, evidence, strict=True)]


def _evidence(model: SynergicModel, samples: Sequence[Sample]) -> list[float]:
    found = []
    for part in batches_of(samples):
        with torch.inference_mode():
            logit = model(torch.from_numpy(np.stack([s.patch for s in samples[part]]))).segmentation_logit
        found += [presence_evidence(map_) for map_ in torch.sigmoid(logit).numpy()]
    return found


def gain(figure: Figure, rows: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> Estimate:
    """A figure of some rows minus that of the same nodules' rows in ``base``, with patients resampled in both alike."""
    other = {row["case_id"]: row for row in base}
    one, two = columns(rows), columns([other[row["case_id"]] for row in rows])
    index = [float(i) for i in range(len(rows))]

    def difference(_truth: Array, chosen: Array) -> float:
        those = chosen.astype(np.intp)
        first, second = ({name: value[those] for name, value in found.items()} for found in (one, two))
        return figure.value(first) - figure.value(second)

    return estimate(difference, index, index, [row["patient_id"] for row in rows])


def table(judged: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown: the recipe's figures, and for each departure what switching it off changes, with its interval."""
    base = judged[WHOLE]
    lines = [["", *(figure.title for figure in FIGURES)], ["---"] * (1 + len(FIGURES))]
    lines.append([DEPARTURES[WHOLE].title, *(f"{figure.value(columns(base)):.{figure.digits}f}" for figure in FIGURES)])
    for name, departure in DEPARTURES.items():
        if name == WHOLE or name not in judged:
            continue
        gains = [(figure, gain(figure, judged[name], base)) for figure in FIGURES]
        cells = [f"{g.value:+.{f.digits}f} [{g.low:+.{f.digits}f}, {g.high:+.{f.digits}f}]" for f, g in gains]
        lines.append([departure.title, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(number: str) -> float:
    return round(float(number), 5)


def ablate(
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs; unfinished runs are resumed.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help=f"Departures to switch off, all if omitted ({WHOLE}: none): {', '.join(DEPARTURES)}.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of each run.")] = STEPS,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of each run; another seed needs another folder.")] = (
        RECIPE.seed
    ),
    data: DataOption = DEFAULT_DATA,
    precision: PrecisionOption = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Train short runs of the recipe, each with one departure from the paper switched off, and show what each is worth.

    The table has every departure with a judged run in the folder, of the same steps, seed and precision. The judgements
    are in ablations.json.xz there.
    """
    if unknown := set(names or ()) - set(DEPARTURES):
        raise UsageError(f"{min(unknown)!r} is not a departure", hint=f"one of {', '.join(DEPARTURES)}")
    keep_freed_memory()
    ablation = Ablation(out, root=data, steps=steps, seed=seed, precision=precision)
    for name in names or DEPARTURES:
        ablation.train(name, execution=Execution(device=device))
    report = ablation.gathered()
    write_bytes(out / REPORT, lzma.compress(json.dumps(report).encode()))
    if WHOLE in report["judged"]:
        typer.echo(table(report["judged"]))
