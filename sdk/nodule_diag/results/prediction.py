"""The diagnoses of one call, and the prediction document that other programs read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from reprlib import repr as shortened

from nodule_diag.ct import CTVolume
from nodule_diag.results.diagnosis import Diagnosis
from nodule_diag.results.identity import BundleIdentity, CaseBaseIdentity, Runtime
from nodule_diag.results.redaction import REDACTED, Redaction
from nodule_diag.results.rows import prediction_html

PREDICTION_SCHEMA = "nodule-diag/prediction/1"


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The diagnoses of one call, what made them, and the time that each stage took.

    Attributes:
        diagnoses: One per point, in the caller's order.
        bundle: The bundle.
        cases: The case base.
        runtime: What computed the diagnoses.
        timing_ms: Wall milliseconds of ``lung_mask``, ``patch``, ``inference``, ``retrieval`` and ``total``.
        prevalence: The share of malignant nodules that every ``malignancy`` assumes; None for one half.
    """

    diagnoses: tuple[Diagnosis, ...]
    bundle: BundleIdentity
    cases: CaseBaseIdentity
    runtime: Runtime
    timing_ms: Mapping[str, float]
    prevalence: float | None = None

    def __repr__(self) -> str:
        return (
            f"Prediction({len(self.diagnoses)} diagnoses by {shortened(self.bundle.label)}"
            f" on {self.runtime.device} in {self.timing_ms['total']:.0f} ms)"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: every nodule."""
        nodules = (diagnosis._repr_html_() for diagnosis in self.diagnoses)
        return prediction_html(nodules, bundle=self.bundle.label, runtime=self.runtime.label)


def redacted(ct: CTVolume, prediction: Prediction) -> tuple[CTVolume, Prediction]:
    """A CT and its prediction without what may identify the patient, for every form in which they are written.

    The path becomes "[redacted]" and the DICOM source None. Warnings and the filter of the cases name no file, no UID
    and nothing in quotes.
    """
    said = Redaction(ct.path, *(aside.file for aside in (ct.dicom.set_aside if ct.dicom else ()))).text

    def redact(warnings: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(said(warning) for warning in warnings)

    where = prediction.cases.where
    return (
        replace(ct, path=REDACTED, dicom=None, warnings=redact(ct.warnings)),
        replace(
            prediction,
            diagnoses=tuple(replace(one, warnings=redact(one.warnings)) for one in prediction.diagnoses),
            cases=replace(prediction.cases, where=None if where is None else said(where)),
        ),
    )


def prediction_document(
    ct: CTVolume, prediction: Prediction, *, read_ms: float = 0.0, redact: bool = False
) -> dict[str, object]:
    """Write a prediction as the document that other programs read.

    Args:
        ct: The CT. The document describes the grid of its file, which is also the grid of ``voxel_xyz``,
            except where a DICOM series was interpolated.
        prediction: The result of :meth:`Diagnoser.predict_timed`.
        read_ms: How long reading the CT took; included in ``total``.
        redact: Leave out the path, file names and UIDs, as :func:`redacted` does: ``path`` is "[redacted]",
            ``series_uid`` is null, and warnings name no file.

    Returns:
        A dict of JSON types.
    """
    if redact:
        ct, prediction = redacted(ct, prediction)
    timing_ms = {"read": read_ms, **prediction.timing_ms, "total": read_ms + prediction.timing_ms["total"]}
    return {
        "schema": PREDICTION_SCHEMA,
        "ct": {
            "path": ct.path,
            "size_xyz": list(ct.stored_size_xyz),
            "spacing_xyz_mm": list(ct.stored_spacing_xyz_mm),
            "orientation": ct.stored_orientation,
            "series_uid": ct.series_uid,
            "warnings": list(ct.warnings),
        },
        "bundle": asdict(prediction.bundle),
        "cases": asdict(prediction.cases),
        "runtime": prediction.runtime.to_dict(),
        "prevalence": prediction.prevalence,
        "nodules": [diagnosis.to_dict() for diagnosis in prediction.diagnoses],
        "timing_ms": {stage: round(value, 3) for stage, value in timing_ms.items()},
    }
