"""How good a model is by size, by solidity, and by the thickness of the slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from .judgement import UNSAID, Judgement
from .metrics import mean_absolute_error, mean_value, median_value
from .report import nothing, of_enough_readers, reader_score
from .rows import Section, row_of

LEAST_PATIENTS = 10
"""With fewer patients, an interval over resampled patients says nothing."""

SOLID, GROUND_GLASS = 5, 1
"""The two ends of the readers' texture scale."""

GROUPS: tuple[tuple[str, Callable[[Judgement], bool]], ...] = (
    ("all", lambda _: True),
    ("under 6 mm", lambda j: j.diameter_mm < 6.0),
    ("6 to 8 mm", lambda j: 6.0 <= j.diameter_mm < 8.0),
    ("8 to 15 mm", lambda j: 8.0 <= j.diameter_mm < 15.0),
    ("15 mm and more", lambda j: j.diameter_mm >= 15.0),
    ("solid", lambda j: rounded_texture(j) == SOLID),
    ("part-solid", lambda j: GROUND_GLASS < rounded_texture(j) < SOLID),
    ("ground glass", lambda j: rounded_texture(j) == GROUND_GLASS),
    ("slices up to 1 mm", lambda j: j.slice_thickness_mm <= 1.0),
    ("slices above 1, below 2 mm", lambda j: 1.0 < j.slice_thickness_mm < 2.0),
    ("slices of 2 mm and more", lambda j: j.slice_thickness_mm >= 2.0),
)

RULE = (
    "Sizes are volume-equivalent diameters of the reader mask. The readers' mean texture, rounded half up, is 5 for"
    " solid, 2 to 4 for part-solid and 1 for ground glass. Slices are those of the CT before resampling. Nodules of"
    " unknown texture or slice thickness are left out of these classes. The score's error covers nodules with three"
    f" readers or more. A row of fewer than {LEAST_PATIENTS} patients has no interval."
)


def rounded_texture(judgement: Judgement) -> float:
    """The readers' mean, rounded half up as LIDC's cohort of solid nodules does; NaN without one."""
    return UNSAID if math.isnan(judgement.texture) else math.floor(judgement.texture + 0.5)


def breakdown_section(of: str, judgements: Sequence[Judgement]) -> Section:
    """Figures of every group; ``of`` names the nodules."""
    rows = []
    for name, belongs in GROUPS:
        inside = [j for j in judgements if belongs(j)]
        scored = of_enough_readers(inside)
        for metric, statistic, some, truth, value in (
            ("Dice", mean_value, inside, nothing, lambda j: j.dice_grid),
            ("diameter error, median, mm", median_value, inside, nothing, lambda j: abs(j.diameter_error_mm)),
            ("diameter minus the outline's, mean, mm", mean_value, inside, nothing, lambda j: j.diameter_error_mm),
            ("score, MAE", mean_absolute_error, scored, reader_score, lambda j: j.expert_score),
            ("CAM margin, median", median_value, inside, nothing, lambda j: j.margin),
        ):
            row = row_of(metric, statistic, some, truth, value)
            few = len({j.patient_id for j in some}) < LEAST_PATIENTS
            low, high = (UNSAID, UNSAID) if few else (row.low, row.high)
            rows.append(replace(row, group=name, low=low, high=high))
    return Section(title=f"By size, solidity and slices: {of}", rows=tuple(rows), note=RULE)
