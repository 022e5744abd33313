"""A prediction in the form that the client accepts: document, report, DICOM objects or Slicer's markups."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from io import BytesIO
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile

from fastapi.responses import Response

from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import UsageError
from nodule_diag.process import document_text
from nodule_diag.results import Prediction, prediction_document, redacted
from nodule_diag.service.problems import ServiceError
from nodule_diag.service.store import ReadCT

JSON, HTML = "application/json", "text/html"
DICOM, MARKUPS, ZIP = "multipart/related", "application/vnd.slicer.mrk+json", "application/zip"


REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
"""A report is a self-contained page that names the one script that it runs; the service allows it nothing more."""


class Answer(NamedTuple):
    """The answer to send.

    Attributes:
        body: Its bytes.
        media_type: The media type, with its parameters.
    """

    body: bytes
    media_type: str

    def response(self) -> Response:
        """The answer as a response for FastAPI."""
        headers = {"Vary": "Accept"}
        if self.media_type.startswith(HTML):
            headers["Content-Security-Policy"] = REPORT_POLICY
        return Response(self.body, media_type=self.media_type, headers=headers)


class Predicted(NamedTuple):
    """The data that an answer is made from.

    Attributes:
        read: The CT.
        read_ms: Time of reading it, where this request read it.
        prediction: The diagnoses.
        diagnoser: The diagnoser that made them.
        redact: Whether names and UIDs are left out.
    """

    read: ReadCT
    read_ms: float
    prediction: Prediction
    diagnoser: Diagnoser
    redact: bool


def _json(made: Predicted) -> Answer:
    document = prediction_document(made.read.ct, made.prediction, read_ms=made.read_ms)
    return Answer(document_text(document).encode("ascii"), JSON)


def _html(made: Predicted) -> Answer:
    from nodule_diag.report import report_html

    return Answer(
        report_html(made.read.ct, made.prediction, diagnoser=made.diagnoser).encode(), "text/html; charset=utf-8"
    )


def _markups(made: Predicted) -> Answer:
    from nodule_diag.exchange import positions_text

    return Answer(positions_text(".mrk.json", made.prediction.diagnoses).encode(), MARKUPS)


def _objects(made: Predicted) -> dict[str, Any]:
    from nodule_diag.dicom_objects import dicom_objects

    if made.redact:
        raise UsageError(
            "redact leaves out whose CT it is, and DICOM objects name the patient",
            hint="leave redact out, or ask for JSON",
            code="usage",
        )
    return dicom_objects(made.read.ct, made.prediction, files=made.read.files)


def _dicom(made: Predicted) -> Answer:
    """RFC 2387, as in DICOM PS3.18 section 8.6: each part is one object."""
    boundary, body = secrets.token_hex(16), BytesIO()
    for name, made_object in _objects(made).items():
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\nContent-Location: {name}\r\n\r\n"
        body.write(head.encode("ascii"))
        made_object.save_as(body, enforce_file_format=True)
        body.write(b"\r\n")
    body.write(f"--{boundary}--\r\n".encode("ascii"))
    return Answer(body.getvalue(), f'{DICOM}; type="application/dicom"; boundary={boundary}')


def _zip(made: Predicted) -> Answer:
    """The DICOM objects as files in an archive, for clients that cannot split the multipart form."""
    body = BytesIO()
    with ZipFile(body, "w", ZIP_DEFLATED) as archive:
        for name, made_object in _objects(made).items():
            encoded = BytesIO()
            made_object.save_as(encoded, enforce_file_format=True)
            archive.writestr(name, encoded.getvalue())
    return Answer(body.getvalue(), ZIP)


FORMS: dict[str, Callable[[Predicted], Answer]] = {
    JSON: _json,
    HTML: _html,
    DICOM: _dicom,
    MARKUPS: _markups,
    ZIP: _zip,
}
_Q = re.compile(r";\s*q\s*=\s*([01](?:\.\d{0,3})?)", re.IGNORECASE)


def chosen_form(accept: str | None, forms: Iterable[str] = FORMS) -> str:
    """The form that a client prefers (RFC 9110, 12.5.1); the document where the client names none.

    Raises:
        ServiceError: ``not-acceptable`` (406).
    """
    offered = forms = list(forms)
    wanted = [
        (float(told[1]) if (told := _Q.search(one)) else 1.0, one.partition(";")[0].strip().lower())
        for one in (accept or "*/*").split(",")
    ]
    unwanted = {kind for quality, kind in wanted if quality == 0}
    offered = [form for form in offered if form not in unwanted]
    for quality, kind in sorted(wanted, key=lambda item: -item[0]):  # stable: the first named of equals wins
        for form in offered if quality > 0 else ():
            if kind in (form, "*/*", f"{form.partition('/')[0]}/*"):
                return form
    raise ServiceError(
        f"none of {accept!r} is offered",
        status=406,
        code="not-acceptable",
        hint=f"Accept one of {', '.join(forms)}",
    )


def answer(made: Predicted, form: str) -> Answer:
    """Write a prediction.

    Raises:
        NoduleDiagError: When it cannot be written: ``not-dicom``, or a missing extra.
    """
    if made.redact:
        ct, prediction = redacted(made.read.ct, made.prediction)
        made = made._replace(read=replace(made.read, ct=ct), prediction=prediction)
    return FORMS[form](made)
