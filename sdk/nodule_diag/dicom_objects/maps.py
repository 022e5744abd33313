"""Parametric map (PS3.3 A.75) and secondary capture (A.8) of a nodule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence, VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom import Sequence as DicomSequence
from pydicom.dataelem import DataElement

from nodule_diag.dicom_objects import codes
from nodule_diag.dicom_objects.maker import CREATOR, Maker, long_string
from nodule_diag.dicom_objects.source import Source
from nodule_diag.results import Diagnosis, nodule_picture

if TYPE_CHECKING:
    from nodule_diag.results import Cam


def parametric_map(source: Source, diagnosis: Diagnosis, *, number: int, by: Maker) -> ParametricMap:
    """The CAM on its own 16 x 16 x 16 grid of 2 mm, frames ascending."""
    cam = diagnosis.cam
    orientation = [*cam.direction[:, 0].tolist(), *cam.direction[:, 1].tolist()]
    made = ParametricMap(
        source.headers,
        cam.values,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label="CAM",
                lut_explanation="Class activation map",
                unit=codes.NO_UNIT,
                value_range=(0.0, 1.0),
                slope=1.0,
                intercept=0.0,
                quantity_definition=codes.CLASS_ACTIVATION,
            )
        ],
        voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="CAM",
        content_description="Class activation map of a lung nodule",
        content_creator_name=CREATOR,
        derived_pixel_contrast="NONE",
        pixel_measures=PixelMeasuresSequence(
            pixel_spacing=(cam.spacing_mm, cam.spacing_mm),
            slice_thickness=cam.spacing_mm,
            spacing_between_slices=cam.spacing_mm,
        ),
        plane_orientation=PlaneOrientationSequence("PATIENT", orientation),
        plane_positions=[PlanePositionSequence("PATIENT", position) for position in _frame_positions(cam)],
        **by.instance(1, number),
        **by.equipment(),
    )
    made.BodyPartExamined = "CHEST"
    made.SeriesDescription = long_string(f"Class activation map: {by.tracking_id(diagnosis)}")
    made.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = _lung()
    _sort_frames(made, along=cam.direction[:, 2])
    source.number_references(made)
    return made


def _frame_positions(cam: Cam) -> list[list[float]]:
    """LPS mm of the first cell of each frame, ascending along the CT's z axis."""
    first = (1 - np.asarray(cam.values.shape[::-1])) / 2 * cam.spacing_mm
    corner = np.asarray(cam.center_xyz_mm) + cam.direction @ first
    steps = np.arange(len(cam.values))[:, None] * cam.spacing_mm * cam.direction[:, 2]
    return [position.tolist() for position in corner + steps]


def _lung() -> DicomSequence:
    anatomy = Dataset()
    anatomy.FrameLaterality = "U"
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = codes.LUNG[:3]
    anatomy.AnatomicRegionSequence = [region]
    return DicomSequence([anatomy])


def _sort_frames(made: ParametricMap, *, along: NDArray[np.float64]) -> None:
    """Put the frames into ascending order: highdicom may store them descending, and readers take them as ascending."""
    groups = list(made.PerFrameFunctionalGroupsSequence)
    heights = [np.dot(group.PlanePositionSequence[0].ImagePositionPatient, along) for group in groups]
    order = np.argsort(heights)
    pixels = np.frombuffer(made.FloatPixelData, "<f4").reshape(len(groups), -1)[order]
    made["FloatPixelData"] = DataElement("FloatPixelData", "OF", np.ascontiguousarray(pixels).tobytes())
    for place, frame in enumerate(order.tolist(), start=1):
        groups[frame].FrameContentSequence[0].DimensionIndexValues = [place]
    made.PerFrameFunctionalGroupsSequence = [groups[frame] for frame in order.tolist()]


def secondary_capture(source: Source, diagnosis: Diagnosis, *, number: int, by: Maker) -> SCImage:
    """The three pictures of a nodule, for viewers that show no other object."""
    picture = nodule_picture(diagnosis.ct_planes, cam=diagnosis.cam, segmentation=diagnosis.segmentation)
    made = SCImage.from_ref_dataset(
        source.headers[0],
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **by.instance(2, number),
    )
    made.SeriesDescription = "Lung nodules: pictures"
    made.PatientOrientation = []  # three planes in one picture
    made.Laterality = ""
    made.ImageComments = by.tracking_id(diagnosis)
    return made
