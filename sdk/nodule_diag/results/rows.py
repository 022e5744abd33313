"""The figures of a nodule that a reader sees, most important first, each with its meaning in a few words.

The terminal and the notebook show the same figures. Both read the prediction document, so a stored document can be
shown, too. The notebook's HTML escapes everything that comes from outside.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, NamedTuple

from nodule_diag.results.calibration import UNCALIBRATED
from nodule_diag.results.picture import PLANES

DISCLAIMER = "For research. Not a medical device; not for diagnosis or treatment."
_LABEL, _VALUE = ' style="text-align:left"', ' style="text-align:right"'
_MEANING = ' style="text-align:left;padding-left:1em;opacity:0.7"'


class Figure(NamedTuple):
    """One line of a nodule's table.

    Attributes:
        label: The figure's name, with its unit; indented where it belongs to the line above.
        value: The value as it is shown.
        meaning: What the figure means; the same for every nodule of a prediction.
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
    found, rate = len(nodule["similar"]["machine+expert"]), nodule["base_rate"]
    faith, segmentation = nodule["faithfulness"], nodule["segmentation"]
    calibrated = "calibrated, " if nodule.get("calibrated") else ""
    before = "half" if prevalence is None else f"{100 * prevalence:.3g} %"
    in_lung = {True: "yes", False: "NO", None: "-"}[nodule["in_lung"]]
    x, y, z = (f"{value:.2f}" for value in nodule["xyz_lps_mm"])
    rows = [
        Figure("Malignancy, 0..1", _share(nodule["malignancy"]), f"{calibrated}if {before} were malignant"),
        Figure("  uncalibrated", _share(UNCALIBRATED.probability(nodule["logit"])), "what the cases below have"),
        Figure("  spread", _share(nodule["malignancy_spread"], digits=3), "over views, if half were"),
        Figure("Expert score", f"{nodule['expert_score']:.1f}", "1 unlikely, 5 suspicious"),
        Figure("Similar cases", _share(balanced["machine+expert"]), "malignant, 0.50 is neutral"),
        Figure("  by P alone", _share(balanced["machine"]), "of cases with similar P"),
        Figure("  by score alone", _share(balanced["expert"]), "of cases scored alike"),
        Figure("  as they come", _share(plain["machine+expert"]), f"of {found}, {rate:.2f} is neutral"),
        Figure("Diameter, mm", f"{segmentation['diameter_mm']:.1f}", "ball of equal volume"),
        Figure("Volume, mm3", f"{segmentation['volume_mm3']:.0f}", "of the segmented nodule"),
        Figure("Evidence on nodule", f"{faith['margin']:+.2f}", "CAM there minus elsewhere"),
        Figure("  CAM on nodule", _share(faith["cam_nodule"]), "its mean, 0 to 1"),
        Figure("  CAM elsewhere", _share(faith["cam_background"]), "its mean, 0 to 1"),
        Figure("Presence", _share(nodule["presence"]), "chance that it is one"),
        Figure("Unlike training", _share(nodule.get("feature_distance")), "99 % of nodules: below 1"),
        Figure("Warnings", str(len(nodule["warnings"])) if nodule["warnings"] else "none", "each stands below"),
        Figure("In lung", in_lung, "not checked" if nodule["in_lung"] is None else "by the lung mask"),
        Figure("Position x, mm", x, "LPS, to patient's left"),
        Figure("Position y, mm", y, "LPS, to the back"),
        Figure("Position z, mm", z, "LPS, to the head"),
    ]
    # Without the bundle's numbers for it, or with a single view, a figure is missing for every nodule.
    there = {
        "  uncalibrated": bool(nodule.get("calibrated")),
        "  spread": nodule["malignancy_spread"] is not None,
        "Presence": nodule["presence"] is not None,
        "Unlike training": nodule.get("feature_distance") is not None,
    }
    return [row for row in rows if there.get(row.label, True)]


def _share(value: float | None, *, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def nodule_html(nodule: Mapping[str, Any], *, png: bytes, prevalence: float | None) -> str:
    """One nodule as HTML.

    Args:
        nodule: One of the prediction document's ``nodules``.
        png: Its picture, made by :func:`nodule_diag.results.picture.nodule_png`.
        prevalence: The document's ``prevalence``.
    """
    rows = "".join(
        f"<tr><td{_LABEL}>{escape(label).replace('  ', '&emsp;')}</td><td{_VALUE}>{escape(value)}</td>"
        f"<td{_MEANING}>{escape(meaning)}</td></tr>"
        for label, value, meaning in figures(nodule, prevalence=prevalence)
    )
    warnings = "".join(f"<li>{escape(str(text))}</li>" for text in nodule["warnings"])
    planes = f"{', '.join(PLANES)}: CT with the nodule's outline, and under the CAM"
    return (
        f"<div><b>Nodule {escape(str(nodule['id']))}</b><table><tbody>{rows}</tbody></table>"
        + (f"<ul>{warnings}</ul>" if warnings else "")
        + f'<figure><img alt="{planes}" src="data:image/png;base64,{b64encode(png).decode("ascii")}">'
        f"<figcaption>{planes}</figcaption></figure></div>"
    )


def prediction_html(nodules: Iterable[str], *, bundle: str, runtime: str) -> str:
    """The nodules of one prediction, each made by :func:`nodule_html`, below a line that says what computed them."""
    return f"<div><p>{escape(bundle)}, {escape(runtime)}</p>{''.join(nodules)}<p>{DISCLAIMER}</p></div>"
