"""How a nodule looks, from LIDC-IDRI's tables: the readers' texture, and the thickness of the slices."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nodule_diag_training.data import TrainingDataError

from .crossval import FoldResult
from .judgement import Judgement

VOIS = Path("lidc_vois") / "vois.csv"
CUBES = Path("lidc_cubes") / "index.json"
SERIES = Path("tables") / "lidc_luna16_cohort.csv"
"""LUNA16's nodules with the slice thickness of their series; some of these nodules have no VOI."""


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """How a nodule looks; NaN where it is not known.

    Attributes:
        texture: Mean over the readers, from 1 (ground glass) to 5 (solid).
        slice_thickness_mm: Slice thickness of the CT.
    """

    texture: float
    slice_thickness_mm: float


def read_appearance(root: Path) -> dict[str, Appearance]:
    """The appearance by case id, without nodules whose table is missing or lacks the columns.

    Args:
        root: The LIDC data folder.

    Raises:
        TrainingDataError: If a table is damaged.
    """
    try:
        vois = _rows(root / VOIS)
        thickness = {
            row["seriesuid"]: _number(row["slice_thickness"])
            for row in (*_rows(root / SERIES), *vois)
            if "seriesuid" in row and "slice_thickness" in row
        }
        found = {
            row["voi"]: Appearance(
                texture=_mean([int(part) for part in row["texture"].split(";")]) if "texture" in row else math.nan,
                slice_thickness_mm=_number(row.get("slice_thickness")),
            )
            for row in vois
        }
        cubes = json.loads((root / CUBES).read_bytes()) if (root / CUBES).is_file() else []
        for row in cubes:
            found[f"cube/{row['file']}"] = Appearance(
                texture=_mean(row.get("texture", ())),
                slice_thickness_mm=thickness.get(row.get("series"), math.nan),
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingDataError(
            f"the tables of {root} cannot be read: {error!r}", hint="set NODULE_DIAG_DATA (or --data) to LIDC's data"
        ) from error
    return found


def looked_at(judged: FoldResult, looks: Mapping[str, Appearance]) -> FoldResult:
    """The judgements with the nodule's appearance, where it is known; others stay as they are."""

    def told(judgement: Judgement) -> Judgement:
        look = looks.get(judgement.case_id)
        return judgement if look is None else replace(judgement, **asdict(look))

    return replace(judged, judgements=tuple(map(told, judged.judgements)), diagnosed=tuple(map(told, judged.diagnosed)))


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _mean(readers: Sequence[int]) -> float:
    return sum(readers) / len(readers) if readers else math.nan


def _number(text: str | None) -> float:
    return float(text) if text else math.nan
