"""The part of a model card on training: which nodules, which runs, and which configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nodule_diag_training.config import TrainingConfig

from .card_text import KINDS, LIDC_FOLDER, LIDC_KINDS

Facts = Mapping[str, Any]
LONGEST_LIST = 8
"""Most entries of a list that the card spells out."""
IN_THE_HISTORY = ("nodules", "patients", "cubes", "sure", "fold", "folds", "held_out_patients", "stores")
OF_A_RUN = ("config", "started_from", "steps", "steps_done", "then")


def table_cell(value: object) -> str:
    """Text that cannot end a table cell."""
    return " ".join(str(value).replace("|", "\\|").split())


def of_lidc(data: Facts) -> bool:
    """Whether any run, the first one too, learned from LIDC-IDRI."""
    own = any(store["kind"] in LIDC_KINDS for store in data.get("stores", ())) or "stores" not in data
    return own or ("started_from" in data and of_lidc(data["started_from"]))


def of_cut_boxes(data: Facts) -> bool:
    """Whether any run learned mostly from VOIs, which end close to the nodule."""
    own = 2 * data.get("cubes", 0) < data.get("nodules", 1)
    return own or ("started_from" in data and of_cut_boxes(data["started_from"]))


def trained_on(data: Facts, config: Facts) -> str:
    """The section.

    Args:
        data: The checkpoint's facts on the nodules, and below ``started_from`` those of the runs before.
        config: The configuration of the last run.
    """
    runs = list(_runs(data, config))[::-1]
    parts = [f"## What it was trained on\n\n{_sources([run for run, _ in runs])}"]
    if len(runs) > 1:
        parts.append("The runs that the weights went through, the last one last:")
    parts.append(_history(runs))
    others = {key: value for key, value in data.items() if key not in (*IN_THE_HISTORY, *OF_A_RUN)}
    settings = {**config, "stages": stages_of(config)} if "stages" in config else config
    rows = [f"| {table_cell(key)} | {table_cell(value)} |" for key, value in (*_flat(others), *_flat(settings))]
    last = "The last run" if len(runs) > 1 else "The run"
    parts.append("\n".join([f"{last}:", "", "| | |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _sources(runs: Sequence[Facts]) -> str:
    """The sources of all runs, each source once."""
    stores = {store["name"]: store for run in runs for store in run.get("stores", ())}
    lines = [f"- {store['name']}: {store['nodules']} {KINDS[store['kind']]}" for store in stores.values()]
    if not stores:
        return LIDC_FOLDER
    if any("stores" not in run for run in runs):
        lines.insert(0, "- " + LIDC_FOLDER.replace("\n", "\n  "))
    return "\n".join(lines)


def _learned_from(run: Facts) -> str:
    """The nodules in words; what is not known is left out."""
    if "nodules" not in run:
        return "not recorded"
    patients = f" of {run['patients']} patients" if "patients" in run else ""
    known = {"cubes": "{} with their own surroundings", "sure": "{} diagnosed"}
    told = "".join(f", {words.format(run[key])}" for key, words in known.items() if key in run)
    of = f" ({', '.join(store['name'] for store in run['stores'])})" if "stores" in run else ""
    return table_cell(f"{run['nodules']} volumes{of}{patients}{told}")


def _left_out(run: Facts) -> str:
    if "held_out_patients" not in run:
        aside = run.get("validation_patients")
        return f"{len(aside)} patients, to choose the weights" if aside else "not recorded"
    fold = f" (fold {run['fold']} of {run['folds']}, from 0)" if {"fold", "folds"} <= run.keys() else ""
    return f"{len(run['held_out_patients'])} patients{fold}"


def _runs(data: Facts, config: Facts) -> Iterator[tuple[Facts, Facts]]:
    """The last run and those before it: the facts of each, and its configuration.

    A setting that is newer than a run has its default value for this run: it changes nothing there.
    """
    yield data, {**TrainingConfig().model_dump(mode="json"), **config}
    if "started_from" in data:
        before = data["started_from"]
        yield from _runs(before, before.get("config", {}))


def _history(runs: Sequence[tuple[Facts, Facts]]) -> str:
    last = runs[-1][1]
    head = ["run", "learned from", "left out", "steps", "configuration where it differs from the last run's"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [
        f"| {number} | {_learned_from(run)} | {_left_out(run)} | {_steps(run, config)} | {_differences(config, last)} |"
        for number, (run, config) in enumerate(runs, 1)
    ]
    return "\n".join(lines)


def stages_of(config: Facts) -> str:
    """The stages of a configuration in words."""
    return " + ".join(f"{stage['steps']} of {stage['size']}-cubes" for stage in config["stages"])


def _steps(run: Facts, config: Facts) -> str:
    planned = sum(stage["steps"] for stage in config["stages"])
    done = run.get("steps_done", planned)
    text = stages_of(config) + (f", {done} of {planned} done" if done != planned else "")
    return table_cell(f"{text}; then {run['then']}" if "then" in run else text)


def _differences(config: Facts, last: Facts) -> str:
    changed = sorted(
        key for key, value in config.items() if key != "stages" and (key not in last or value != last[key])
    )
    return ", ".join(f"{table_cell(key)} {table_cell(config[key])}" for key in changed)


def _flat(entries: Facts, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested facts as rows; long lists (of patients, say) by their length."""
    for key, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}: ")
        else:
            long = isinstance(value, list) and len(value) > LONGEST_LIST
            yield f"{prefix}{key}", f"{len(value)} entries" if long else value
