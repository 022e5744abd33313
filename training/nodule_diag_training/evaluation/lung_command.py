"""``nodule-diag train lung``: what a fold, or a bundle, says where there is no nodule."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nodule_diag.backends import Backend
from nodule_diag.ct import read_ct
from nodule_diag.preprocessing import extract_patches
from nodule_diag_training.data import (
    LungPlace,
    Nodule,
    TrainingData,
    TrainingDataError,
    load_lung,
    patients_of,
    with_lung,
    without_lung,
)
from nodule_diag_training.engine import MODEL, load_model
from nodule_diag_training.options import DEFAULT_DATA, DataOption

from .commands import shown, write_report
from .crossval import HELD_OUT
from .presence import Answer, TorchBackend, ask, fit_presence, lung_section, random_lung_positions, whole_patches

CT = "LIDC-IDRI-0314"
"""A patient of no training set, whose CT is in the data folder."""
POSITIONS = 60
SEED = 0


def judge_lung(
    backend: Backend, data: TrainingData, *, held_out: frozenset[str], root: Path
) -> tuple[list[Answer], list[Answer]]:
    """Run the network on everything that it has not seen and that has its real surroundings.

    Args:
        backend: The network.
        data: Data of all patients, with lung without a nodule.
        held_out: Patients that the network was not trained on; the nodules and the lung places are theirs.
        root: The data folder, which holds the CT.

    Returns:
        The answers for nodules and lung places, and for random positions in the lung of a CT (none without a CT).
    """
    unseen = [n for n in data.nodules if n.is_cube and n.patient_id in held_out]
    if not without_lung(unseen) or not any(isinstance(n, LungPlace) for n in unseen):
        raise TrainingDataError(
            "no nodule in its own surroundings, or no lung, is of patients that were left out",
            hint="judge a run of `nodule-diag train packaged --fold`",
        )
    said = ask(backend, unseen, whole_patches(unseen, data.voxels_of(unseen)))
    file = root / "ct" / f"{CT}.nii.gz"
    if not file.is_file():
        return said, []
    facts = json.loads((root / "ct" / f"{CT}_nodules.json").read_text())
    ct = read_ct(file)
    points = random_lung_positions(
        ct, count=POSITIONS, seed=SEED, nodules_xyz_mm=[own["xyz_world_lps_mm"] for own in facts["nodules"]]
    )
    places: list[Nodule] = [
        LungPlace(case_id=f"{CT}/{number}", patient_id=CT, image=file, mask=None, kind="lung")
        for number in range(len(points))
    ]
    return said, ask(backend, places, [np.ascontiguousarray(extract_patches(ct, [point])[0]) for point in points])


def lung(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, one per fold.")],
    out: Annotated[Path, typer.Option("--out", help="JSON report.")],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Judge how well nodules are distinguished from lung without nodules, on patients that were left out.

    Presence is calibrated on the answers of all runs together. `export bundle --lung` takes the report.
    """
    places = load_lung(data)
    loaded = with_lung(TrainingData.of(data), places)
    judged = [judge_lung(backend, loaded, held_out=unseen, root=data) for backend, unseen in _judges(runs, places)]
    report_lung(
        [answer for said, _ in judged for answer in said],
        [answer for _, positions in judged for answer in positions],
        command=f"nodule-diag train lung {''.join(f'{shown(run)} ' for run in runs)}--out {shown(out)}",
        out=out,
    )


def _judges(runs: Sequence[Path], places: Sequence[LungPlace]) -> Iterator[tuple[Backend, frozenset[str]]]:
    """Each network, and the patients that it was not trained on."""
    for run in runs:
        model, _, facts = load_model(run / MODEL)
        seen = facts.get("lung", {}).get("patients", [])
        unseen = [patient for patient in patients_of(places) if patient not in seen]
        yield TorchBackend(model), frozenset([*facts.get(HELD_OUT, []), *unseen])


def report_lung(said: Sequence[Answer], positions: Sequence[Answer], *, command: str, out: Path) -> None:
    """Calibrate presence, write the report and show it.

    Args:
        said: Answers for nodules and lung places, by networks that had not seen them.
        positions: Answers for random positions in the lung of a CT; none of them is used for calibration.
        command: The command that the report names.
        out: The JSON to write.
    """
    calibration = fit_presence(said)
    nodules = [answer for answer in said if answer.is_nodule]

    def section(title: str, of: Sequence[Answer]) -> tuple[str, list[Answer]]:
        return title, [*nodules, *of]

    parts = [
        section(f"Lung of {patient}", [a for a in said if a.patient_id == patient and not a.is_nodule])
        for patient in sorted({a.patient_id for a in said if not a.is_nodule})
    ]
    if positions:
        count = len({answer.case_id for answer in positions})
        parts.append(section(f"{count} random positions in the lung of {CT}", positions))
    sections = [lung_section(title, answers, calibration) for title, answers in parts]
    report: dict[str, object] = {
        "sections": [own.to_dict() for own in sections],
        "command": command,
        "presence": {"scale": calibration.scale, "shift": calibration.shift, "warn_below": calibration.warn_below},
        "answers": [answer.to_dict() for answer in [*said, *positions]],
    }
    write_report(out, report, sections)
