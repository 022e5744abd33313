"""The structured report: one measurement group per nodule (TID 1500 and 1410, PS3.16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from highdicom.sr import (
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageRegion3D,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.sr.codedict import codes as standard
from pydicom.sr.coding import Code

from nodule_diag.dicom_objects import codes
from nodule_diag.dicom_objects.maker import MANUFACTURER, Maker
from nodule_diag.dicom_objects.segmentation import covered
from nodule_diag.dicom_objects.source import Source
from nodule_diag.results import Diagnosis

NO_SEGMENT = "the nodule covers no pixel's centre: it has no segment"


def structured_report(source: Source, diagnoses: Sequence[Diagnosis], *, by: Maker) -> Comprehensive3DSR:
    """Position, figures, algorithm and nearest cases of every nodule."""
    device = ObserverContext(
        observer_type=standard.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=by.uid("device", lasting=True),
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name=by.prediction.bundle.label,
        ),
    )
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=device),
        procedure_reported=codes.CT_CHEST,
        imaging_measurements=[_group(source, diagnosis, by) for diagnosis in diagnoses],
    )
    made = Comprehensive3DSR(
        evidence=source.headers,
        content=report[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        **by.instance(3),
    )
    made.SeriesDescription = "Lung nodules: measurements"
    return made


def _group(source: Source, diagnosis: Diagnosis, by: Maker) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(by.tracking_uid(diagnosis), by.tracking_id(diagnosis)),
        referenced_region=ImageRegion3D("POINT", np.array([diagnosis.xyz_lps_mm]), source.frame_of_reference_uid),
        finding_type=codes.NODULE,
        finding_category=codes.ABNORMALITY,
        finding_sites=[FindingSite(codes.LUNG)],
        algorithm_id=by.algorithm_in_report(),
        measurements=[Measurement(name, value, unit) for name, value, unit in _figures(diagnosis)],
    )
    group[0].ContentSequence.append(
        TextContentItem(CodedConcept(*codes.COMMENT), _comment(source, diagnosis), RelationshipTypeValues.CONTAINS)
    )
    return group


def _figures(diagnosis: Diagnosis) -> Iterator[tuple[Code, float, Code]]:
    yield codes.PROBABILITY_OF_CANCER, 100 * diagnosis.malignancy, codes.PERCENT
    yield codes.EXPERT_SCORE, diagnosis.expert_score, codes.SCORE
    yield codes.DIAMETER, diagnosis.segmentation.diameter_mm, codes.MILLIMETRE
    yield codes.VOLUME, diagnosis.segmentation.volume_mm3, codes.CUBIC_MILLIMETRE
    yield codes.CAM_NODULE, diagnosis.faithfulness.cam_nodule, codes.NO_UNIT
    yield codes.CAM_BACKGROUND, diagnosis.faithfulness.cam_background, codes.NO_UNIT
    yield codes.MALIGNANT_SHARE, diagnosis.diagnosis["machine+expert"], codes.NO_UNIT
    balanced = diagnosis.diagnosis_balanced["machine+expert"]
    if balanced is not None:
        yield codes.BALANCED_SHARE, balanced, codes.NO_UNIT
    yield codes.BASE_RATE, diagnosis.base_rate, codes.NO_UNIT
    if diagnosis.presence is not None:
        yield codes.PRESENCE, 100 * diagnosis.presence, codes.PERCENT
    if diagnosis.feature_distance is not None:
        yield codes.FEATURE_DISTANCE, diagnosis.feature_distance, codes.NO_UNIT


def _comment(source: Source, diagnosis: Diagnosis) -> str:
    """The nearest cases by identifier, and the warnings."""
    cases = "; ".join(
        f"{case.case_id} ({'malignant' if case.label else 'benign'}, distance {case.distance:.3f})"
        for case in diagnosis.similar["machine+expert"]
    )
    warnings = [*diagnosis.warnings]
    if diagnosis.segmentation.nodule.any() and not covered(diagnosis, source.frames):
        warnings.append(NO_SEGMENT)
    return f"Most similar cases: {cases}.{''.join(f' Warning: {text}.' for text in warnings)}"
