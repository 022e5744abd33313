"""The page: what it says of a prediction, put into its template."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from nodule_diag.cases import CaseIndex
from nodule_diag.ct import CTVolume
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import MissingExtraError
from nodule_diag.process import write_bytes
from nodule_diag.report import words
from nodule_diag.report.cube import SIZE, STEP_MM, Cube
from nodule_diag.results import DISCLAIMER, Diagnosis, Prediction, SimilarCase, figures

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True)
class Card:
    """One similar case.

    Attributes:
        case: The case.
        picture: The ``data:`` address of its picture; empty where the case base has none.
    """

    case: SimilarCase
    picture: str


def write_report(
    path: str | os.PathLike[str],
    ct: CTVolume,
    prediction: Prediction,
    *,
    diagnoser: Diagnoser,
    identity: Mapping[str, str] | None = None,
) -> None:
    """Write the page of a prediction, whole or not at all.

    Args:
        path: The file, ``.html``.
        ct: The CT.
        prediction: What :meth:`Diagnoser.predict_timed` gave.
        diagnoser: What made it: its case base and its bundle's intended use are shown.
        identity: Lines on whose CT it is, such as ``{"Patient": "..."}``. Nothing of the patient, no path and no UID
            is written without it.

    Raises:
        MissingExtraError: Without the extra ``report``.
        OutputError: When the file cannot be written.
    """
    write_bytes(path, report_html(ct, prediction, diagnoser=diagnoser, identity=identity).encode())


def report_html(
    ct: CTVolume, prediction: Prediction, *, diagnoser: Diagnoser, identity: Mapping[str, str] | None = None
) -> str:
    """The page that :func:`write_report` writes; same arguments and errors."""
    template = _template()
    script = _text("viewer.js")
    manifest = diagnoser.bundle.manifest
    # The page runs this script and no other: a text that came through unescaped would still do nothing.
    script_hash = b64encode(sha256(script.encode()).digest()).decode("ascii")
    return template.render(
        script=script,
        script_hash=script_hash,
        style=_text("page.css"),
        nodules=[_nodule(ct, diagnosis, prediction.prevalence, diagnoser.cases) for diagnosis in prediction.diagnoses],
        identity=identity or {},
        ct=ct,
        prediction=prediction,
        manifest=manifest,
        base_rate=diagnoser.cases.base_rate,
        disclaimer=DISCLAIMER,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cube_mm=SIZE * STEP_MM,
    )


def viewer_data(ct: CTVolume, diagnosis: Diagnosis) -> dict[str, Any]:
    """What the page's viewer (``viewer.js``) draws of a nodule: plain JSON, with bytes in base64.

    Args:
        ct: The CT.
        diagnosis: Of one nodule in it.

    Returns:
        The fields of :meth:`Cube.for_viewer`, and ``heat`` and ``heatOpacity``: the colours of the CAM.
    """
    return _viewer(Cube.of(ct, diagnosis))


def _viewer(cube: Cube) -> dict[str, Any]:
    from nodule_diag.report.pictures import HEAT, HEAT_OPACITY

    return cube.for_viewer() | {"heat": HEAT, "heatOpacity": HEAT_OPACITY}


def _nodule(ct: CTVolume, diagnosis: Diagnosis, prevalence: float | None, index: CaseIndex) -> dict[str, Any]:
    """What the template needs of one nodule."""
    from nodule_diag.report.landscape import HEIGHT, WIDTH, landscape
    from nodule_diag.report.pictures import HEAT, overviews, planes

    cube = Cube.of(ct, diagnosis)
    return {
        "diagnosis": diagnosis,
        "planes": planes(cube),
        "overviews": overviews(ct, diagnosis.xyz_lps_mm),
        "landscape": landscape(diagnosis, index),
        "landscape_size": (WIDTH, HEIGHT),
        "retrievals": words.retrievals(diagnosis),
        "prior": words.prior(prevalence),
        "score": words.score(diagnosis.expert_score),
        "faithfulness": words.faithfulness(diagnosis),
        "evidence_warning": words.evidence_warning(diagnosis),
        "warnings": [text for text in diagnosis.warnings if text not in ct.warnings],
        "figures": figures(diagnosis.to_dict(), prevalence=prevalence),
        "cards": list(_cards(diagnosis.similar["machine+expert"], index)),
        "viewer": _viewer(cube),
        "size": SIZE,
        "step_mm": STEP_MM,
        "heat": HEAT,
    }


def _cards(similar: Sequence[SimilarCase], index: CaseIndex) -> Iterator[Card]:
    for case in similar:
        pictures = index.cases.pictures(case.case_id)
        picture = next(iter(pictures.values()), b"")
        yield Card(case, "data:image/png;base64," + b64encode(picture).decode("ascii") if picture else "")


def _text(name: str) -> str:
    return (files("nodule_diag.report") / name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    try:
        import contourpy  # noqa: F401  needed below; the sooner it is missed, the better
        import jinja2
    except ImportError as error:
        raise MissingExtraError(error.name or "jinja2", "report") from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text("page.html.jinja"))
