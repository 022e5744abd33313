"""A nodule as HTML for notebooks: its table and its picture. Everything that comes from outside is escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from nodule_diag.results.figures import DISCLAIMER, figures
from nodule_diag.results.picture import PLANES

_LABEL, _VALUE = ' style="text-align:left"', ' style="text-align:right"'
_MEANING = ' style="text-align:left;padding-left:1em;opacity:0.7"'


def nodule_html(nodule: Mapping[str, Any], *, png: bytes, prevalence: float | None) -> str:
    """One nodule.

    Args:
        nodule: One of the prediction document's ``nodules``.
        png: Its picture, of :func:`nodule_diag.results.picture.nodule_png`.
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
    """The nodules of one prediction, each as :func:`nodule_html` made it, below what computed them."""
    return f"<div><p>{escape(bundle)}, {escape(runtime)}</p>{''.join(nodules)}<p>{DISCLAIMER}</p></div>"
