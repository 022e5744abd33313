"""The columns of a batch's table of results. A manifest must not have these columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nodule_diag.results import Space

SPACE: Space = "machine+expert"
"""The feature space whose share of malignant cases is shown."""
BETWEEN = " | "
"""Separates the warnings in one cell; a warning may hold a semicolon."""

_OF_NODULE: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "x_lps_mm": lambda nodule: nodule["xyz_lps_mm"][0],
    "y_lps_mm": lambda nodule: nodule["xyz_lps_mm"][1],
    "z_lps_mm": lambda nodule: nodule["xyz_lps_mm"][2],
    "malignancy": lambda nodule: nodule["malignancy"],
    "logit": lambda nodule: nodule["logit"],
    "malignancy_spread": lambda nodule: nodule["malignancy_spread"],
    "expert_score": lambda nodule: nodule["expert_score"],
    "presence": lambda nodule: nodule["presence"],
    "feature_distance": lambda nodule: nodule["feature_distance"],
    "calibrated": lambda nodule: nodule["calibrated"],
    "diagnosis": lambda nodule: nodule["diagnosis"][SPACE],
    "diagnosis_balanced": lambda nodule: nodule["diagnosis_balanced"][SPACE],
    "base_rate": lambda nodule: nodule["base_rate"],
    "in_lung": lambda nodule: nodule["in_lung"],
    "diameter_mm": lambda nodule: nodule["segmentation"]["diameter_mm"],
    "volume_mm3": lambda nodule: nodule["segmentation"]["volume_mm3"],
    "faithfulness": lambda nodule: nodule["faithfulness"]["margin"],
    "warnings": lambda nodule: BETWEEN.join(nodule["warnings"]),
}
_OF_FAULT = ("error_code", "error")
RESULT_COLUMNS = ("result", *_OF_NODULE, *_OF_FAULT)
"""The file of the CT, the nodule's figures, and why there are none."""


def result_cells(document: Mapping[str, Any], result: str, nodule_id: str) -> tuple[str, ...]:
    """A nodule's cells below :data:`RESULT_COLUMNS`.

    Args:
        document: The document of its CT.
        result: The document's file.
        nodule_id: The nodule's id.
    """
    nodule = next((one for one in document["nodules"] if one["id"] == nodule_id), None)
    if nodule is not None:
        return (result, *(_cell(value(nodule)) for value in _OF_NODULE.values()), "", "")
    fault = next(one for one in document["failed"] if nodule_id in one["ids"])
    return (result, *[""] * len(_OF_NODULE), fault["code"], fault["message"])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
