"""What LIDC-IDRI's tables say of how a nodule looks: the readers' texture, and the slices it was seen in."""

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
"""LUNA16's nodules: of whose series the thickness of the slices is known here, though there may be no VOI of them."""


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """How a nodule looks; NaN where nobody says.

    Attributes:
        texture: Mean over the readers, from 1 (ground glass) to 5 (solid).
        slice_thickness_mm: Of the CT.
    """

    texture: float
    slice_thickness_mm: float


def read_appearance(root: Path) -> dict[str, Appearance]:
    """By case id; nothing of a nodule whose table is absent or lacks the columns.

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
    """Judgements that say how the nodule looks, where that is known; others stay as they are."""

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
