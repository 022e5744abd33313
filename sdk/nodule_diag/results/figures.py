"""What a reader is shown of a nodule, most important first, each figure with what it means in a few words.

The terminal and the notebook show the same. They read the prediction document, so a stored one can be shown, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

DISCLAIMER = "For research. Not a medical device; not for diagnosis or treatment."


class Figure(NamedTuple):
    """One line of a nodule's table.

    Attributes:
        label: What it is, with its unit; indented where it belongs to the line above.
        value: As it is shown.
        meaning: What it says, the same for every nodule of a prediction.
    """

    label: str
    value: str
    meaning: str


def figures(nodule: Mapping[str, Any], *, prevalence: float | None) -> list[Figure]:
    """The lines of a nodule's table; every nodule of a prediction has the same labels.

    Args:
        nodule: One of the prediction document's ``nodules``.
        prevalence: The document's ``prevalence``.
    """
    balanced, plain = nodule["diagnosis_balanced"], nodule["diagnosis"]
    k, cases, rate = nodule["retrieval"]["k"], nodule["retrieval"]["cases"], nodule["base_rate"]
    faith, segmentation = nodule["faithfulness"], nodule["segmentation"]
    before = "half" if prevalence is None else f"{100 * prevalence:.3g} %"
    in_lung = {True: "yes", False: "NO", None: "-"}[nodule["in_lung"]]
    x, y, z = (f"{value:.2f}" for value in nodule["xyz_lps_mm"])
    rows = [
        Figure("Malignancy, 0..1", _share(nodule["malignancy"]), f"if {before} were malignant"),
        Figure("  spread", _spread(nodule["malignancy_spread"]), "over views, if half were"),
        Figure("Expert score", f"{nodule['expert_score']:.1f}", "1 unlikely, 5 suspicious"),
        Figure("Similar cases", _share(balanced["machine+expert"]), "malignant, 0.50 is neutral"),
        Figure("  by P alone", _share(balanced["machine"]), "of cases with similar P"),
        Figure("  by score alone", _share(balanced["expert"]), "of cases scored alike"),
        Figure("  as they come", _share(plain["machine+expert"]), f"of {min(k, cases)}, {rate:.2f} is neutral"),
        Figure("Diameter, mm", f"{segmentation['diameter_mm']:.1f}", "ball of equal volume"),
        Figure("Volume, mm3", f"{segmentation['volume_mm3']:.0f}", "of the segmented nodule"),
        Figure("Evidence on nodule", f"{faith['margin']:+.2f}", "CAM there minus elsewhere"),
        Figure("  CAM on nodule", _share(faith["cam_nodule"]), "its mean, 0 to 1"),
        Figure("  CAM elsewhere", _share(faith["cam_background"]), "its mean, 0 to 1"),
        Figure("Presence", _share(nodule["presence"]), "chance that it is one"),
        Figure("Warnings", str(len(nodule["warnings"])) if nodule["warnings"] else "none", "each stands below"),
        Figure("In lung", in_lung, "not checked" if nodule["in_lung"] is None else "by the lung mask"),
        Figure("Position x, mm", x, "LPS, to patient's left"),
        Figure("Position y, mm", y, "LPS, to the back"),
        Figure("Position z, mm", z, "LPS, to the head"),
    ]
    # A bundle that cannot tell, or a single view, has no such figure for any nodule.
    absent = {"  spread": nodule["malignancy_spread"], "Presence": nodule["presence"]}
    return [row for row in rows if row.label not in absent or absent[row.label] is not None]


def _spread(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
