"""The figures of ``faithfulness`` per model, for the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .catalogue import Experiment
from .faithfulness import CAM_THRESHOLD, CURVE_STEPS
from .markdown import NOTHING, interval_cell, table
from .records import CamFigures, FoldRecord, NoduleRecord
from .scores import pooled_mean

COLUMNS: dict[str, Callable[[CamFigures], float | None]] = {
    "margin": lambda cam: cam.margin,
    "energy": lambda cam: cam.energy,
    "pointing": lambda cam: cam.pointing,
    "IoU": lambda cam: cam.iou,
    "deletion": lambda cam: cam.deletion,
    "insertion": lambda cam: cam.insertion,
}
LEGEND = (
    "Of CAM_c (eq. 6, min-max normalised) against the readers' masks, over every held-out nodule of the paper's cohort "
    "or with a diagnosis, with 95 % intervals over patients. margin: AvgCAM on the nodule minus background (eq. 8, 9). "
    "energy: share of the CAM inside the nodule dilated by 2 mm; pointing: its maximum lies there. "
    f"IoU: cells at {CAM_THRESHOLD:g} or more with the mask's. deletion and insertion: area under the predicted "
    f"class's probability as the highest cells are blurred (lower is better) or put back (higher is better), in "
    f"{CURVE_STEPS} steps, on a fixed part of each fold. Dice: SegNet against the mask on the same grid, no part of "
    "the CAM. The energy and the IoU of a CAM that is 1 everywhere are those of the nodule's size."
)


def faithfulness_section(runs: Sequence[tuple[Experiment, str, Sequence[FoldRecord]]]) -> str:
    """A table with a line for each row, schedule and seed; nothing where no run has a CAM."""
    lines = []
    for row, title, records in runs:
        nodules = [n for record in records for n in record.nodules if n.cam is not None]
        if nodules:
            cells = [_cell(nodules, value) for value in COLUMNS.values()]
            dice = [n for n in nodules if n.dice is not None]
            lines.append([row.title, title, *cells, _mean([(n, n.dice) for n in dice]), str(len(nodules))])
    if not lines:
        return ""
    head = ("", "", *COLUMNS, "Dice", "nodules")
    return f"## Faithfulness of the class activation maps\n\n{LEGEND}\n\n{table(head, lines)}"


def _cell(nodules: Sequence[NoduleRecord], value: Callable[[CamFigures], float | None]) -> str:
    return _mean([(n, value(n.cam)) for n in nodules if n.cam is not None])


def _mean(values: Sequence[tuple[NoduleRecord, float | None]]) -> str:
    """Mean and interval over the nodules that have the figure, with their number where some lack the figure."""
    own = [(n, v) for n, v in values if v is not None]
    if not own:
        return NOTHING
    result = pooled_mean([v for _, v in own], [n.patient_id for n, _ in own])
    cell = interval_cell(result, scale=1.0, digits=3)
    return cell if len(own) == len(values) else f"{cell} (n = {len(own)})"
