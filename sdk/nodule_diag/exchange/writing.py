"""Writes nodules with their figures as position files for other programs; ``--nodules`` reads these files, too."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nodule_diag.errors import UsageError
from nodule_diag.process import write_bytes
from nodule_diag.results import Diagnosis, Space

MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
SPACE: Space = "machine+expert"
"""The feature space whose share of malignant cases is shown."""


def _markups(diagnoses: Sequence[Diagnosis]) -> str:
    """3D Slicer's markups, in LPS mm, with the figures as descriptions."""
    points = [
        {
            "id": str(number),
            "label": diagnosis.id,
            "description": description(diagnosis),
            "position": list(diagnosis.xyz_lps_mm),
            "selected": True,
            "locked": True,
            "visibility": True,
            "positionStatus": "defined",
        }
        for number, diagnosis in enumerate(diagnoses, start=1)
    ]
    markup = {
        "type": "Fiducial",
        "name": "nodule-diag",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "labelFormat": "%N-%d",
        "controlPoints": points,
    }
    return json.dumps({"@schema": MARKUPS_SCHEMA, "markups": [markup]}, allow_nan=False, indent=2) + "\n"


def description(diagnosis: Diagnosis) -> str:
    """P with its prior, the expert score and the diameter, in one line."""
    prior = "half" if diagnosis.prevalence is None else f"{100 * diagnosis.prevalence:.3g} %"
    return (
        f"P {diagnosis.malignancy:.2f} if {prior} were malignant, expert score {diagnosis.expert_score:.1f} of 5,"
        f" diameter {diagnosis.segmentation.diameter_mm:.1f} mm"
    )


def _row(diagnosis: Diagnosis) -> dict[str, Any]:
    x, y, z = diagnosis.xyz_lps_mm
    return {
        "id": diagnosis.id,
        "x": x,
        "y": y,
        "z": z,
        "malignancy": diagnosis.malignancy,
        "expert_score": diagnosis.expert_score,
        "diagnosis": diagnosis.diagnosis[SPACE],
        "diagnosis_balanced": diagnosis.diagnosis_balanced[SPACE],
        "base_rate": diagnosis.base_rate,
        "presence": diagnosis.presence,
        "feature_distance": diagnosis.feature_distance,
        "in_lung": diagnosis.in_lung,
        "diameter_mm": diagnosis.segmentation.diameter_mm,
        "volume_mm3": diagnosis.segmentation.volume_mm3,
        "warnings": " ".join(diagnosis.warnings),
    }


def _csv(diagnoses: Sequence[Diagnosis]) -> str:
    """One row per nodule, LPS mm; unknown values are empty."""
    rows = [_row(diagnosis) for diagnosis in diagnoses]
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _json_lines(diagnoses: Sequence[Diagnosis]) -> str:
    """One line per nodule, each an entry of the prediction document's ``nodules``."""
    return "".join(json.dumps(diagnosis.to_dict(), allow_nan=False) + "\n" for diagnosis in diagnoses)


FORMATS: dict[str, Callable[[Sequence[Diagnosis]], str]] = {
    ".mrk.json": _markups,
    ".csv": _csv,
    ".jsonl": _json_lines,
}
"""By the ending of a file's name."""


def require_positions_format(path: str | os.PathLike[str]) -> str:
    """The format that a file's name asks for.

    Returns:
        ``.mrk.json`` (3D Slicer), ``.csv`` or ``.jsonl``.

    Raises:
        UsageError: for another ending.
    """
    name = Path(path).name.lower()
    found = next((suffix for suffix in FORMATS if name.endswith(suffix)), None)
    if found is None:
        raise UsageError(f"{path} has none of the endings {', '.join(FORMATS)}", hint="name the format by its ending")
    return found


def positions_text(form: str, diagnoses: Sequence[Diagnosis]) -> str:
    """What :func:`write_positions` writes into a file whose name ends in ``form``.

    Raises:
        UsageError: when there is nothing to write.
    """
    if not diagnoses:
        raise UsageError("there are no nodules to write", hint="give at least one diagnosis")
    return FORMATS[form](diagnoses)


def write_positions(path: str | os.PathLike[str], diagnoses: Sequence[Diagnosis]) -> None:
    """Write nodules with their figures, whole or not at all.

    Args:
        path: Ends in ``.mrk.json`` (3D Slicer, LPS, P in the description), ``.csv`` (LPS mm and the main figures) or
            ``.jsonl`` (one line per nodule, as in the prediction document).
        diagnoses: At least one.

    Raises:
        UsageError: for another ending, or nothing to write.
        OutputError: when the file cannot be written.
    """
    text = positions_text(require_positions_format(path), diagnoses)
    write_bytes(path, text.encode())
