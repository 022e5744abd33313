"""Writes the page of a prediction: fills its template."""

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
from nodule_diag.report.cube import HEAT, SIZE, STEP_MM, Cube
from nodule_diag.results import DISCLAIMER, UNCALIBRATED, Diagnosis, Prediction, SimilarCase, figures

if TYPE_CHECKING:
    import jinja2


VIEWER = ("evidence.js", "gestures.js", "viewer.js")
"""The scripts of the viewer, in order; the service's page imports them too."""


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
        prediction: The result of :meth:`Diagnoser.predict_timed`.
        diagnoser: The diagnoser that made it. Its case base and its bundle's intended use are shown.
        identity: Lines on whose CT it is, such as ``{"Patient": "..."}``. Without these lines no patient data, no path
            and no UID is written.

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
    script = _script()
    manifest = diagnoser.bundle.manifest
    # The page runs this script and no other: even a text that was not escaped could do nothing.
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
        compared_with=words.compared_with(prediction.cases),
        disclaimer=DISCLAIMER,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cube_mm=SIZE * STEP_MM,
    )


def viewer_data(ct: CTVolume, diagnosis: Diagnosis) -> dict[str, Any]:
    """What a page with its own viewer needs for a nodule, in addition to the prediction document.

    Args:
        ct: The CT.
        diagnosis: The diagnosis of one nodule in the CT.

    Returns:
        Plain numbers and texts: what ``evidence.js`` and ``viewer.js`` draw, with bytes in base64, and ``words``: the
        report's sentences ``prior``, ``score``, ``faithfulness`` and ``evidence_warning`` (None without a cause).
    """
    return Cube.of(ct, diagnosis).for_viewer() | {"words": _sentences(diagnosis)}


def _sentences(diagnosis: Diagnosis) -> dict[str, str | None]:
    return {
        "prior": words.prior(
            diagnosis.prevalence,
            uncalibrated=UNCALIBRATED.probability(diagnosis.logit) if diagnosis.calibrated else None,
        ),
        "score": words.score(diagnosis.expert_score),
        "faithfulness": words.faithfulness(diagnosis),
        "evidence_warning": words.evidence_warning(diagnosis),
    }


def _nodule(ct: CTVolume, diagnosis: Diagnosis, prevalence: float | None, index: CaseIndex) -> dict[str, Any]:
    """What the template needs of one nodule."""
    from nodule_diag.report.landscape import HEIGHT, WIDTH, landscape
    from nodule_diag.report.pictures import overviews, planes

    cube = Cube.of(ct, diagnosis)
    return {
        "diagnosis": diagnosis,
        "planes": planes(cube),
        "overviews": overviews(ct, diagnosis.xyz_lps_mm),
        "landscape": landscape(diagnosis, index),
        "landscape_size": (WIDTH, HEIGHT),
        "retrievals": words.retrievals(diagnosis),
        **_sentences(diagnosis),
        "warnings": [text for text in diagnosis.warnings if text not in ct.warnings],
        "figures": figures(diagnosis.to_dict(), prevalence=prevalence),
        "cards": list(_cards(diagnosis.similar["machine+expert"], index)),
        "viewer": cube.for_viewer(),
        "size": SIZE,
        "step_mm": STEP_MM,
        "heat": HEAT,
    }


def _cards(similar: Sequence[SimilarCase], index: CaseIndex) -> Iterator[Card]:
    for case in similar:
        pictures = index.cases.pictures(case.case_id)
        picture = next(iter(pictures.values()), b"")
        yield Card(case, "data:image/png;base64," + b64encode(picture).decode("ascii") if picture else "")


def _script() -> str:
    """The scripts as one text, without import lines, because the page has no other files to import."""
    lines = (line for name in (*VIEWER, "start.js") for line in _text(name).splitlines(keepends=True))
    return "".join(line for line in lines if not line.startswith("import "))


def _text(name: str) -> str:
    return (files("nodule_diag.report") / name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    try:
        import contourpy  # noqa: F401  needed below; fail early where it is missing
        import jinja2
    except ImportError as error:
        raise MissingExtraError(error.name or "jinja2", "report") from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text("page.html.jinja"))
