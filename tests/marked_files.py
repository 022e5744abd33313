"""One nodule of a small DICOM series, marked in every form that detectors and people write.

SR and SEG are made by highdicom, RTSTRUCT and Chest CAD by pydicom from the tables of the standard: nothing here is of
the SDK.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ChestCADSRStorage, RTStructureSetStorage, generate_uid

import ct_files as make

RADIUS_MM = 5.0
SHAPE_ZYX, SPACING_XYZ = (18, 40, 44), (0.75, 0.8, 2.0)


@dataclass(frozen=True)
class Marked:
    """A series, and what is marked in it.

    Attributes:
        folder: The series.
        slices: Its data sets, the lowest first.
        xyz: The nodule, LPS mm.
        other: A second one.
    """

    folder: Path
    slices: list[Dataset]
    xyz: np.ndarray
    other: np.ndarray

    @property
    def frame(self) -> str:
        return str(self.slices[0].FrameOfReferenceUID)

    def lps(self, columns: Any, rows: Any, number: int) -> np.ndarray:
        """LPS mm of pixel centres of slice ``number``: equation C.7.6.2.1-1 of PS3.3."""
        item = self.slices[number]
        along = np.reshape([float(v) for v in item.ImageOrientationPatient], (2, 3))
        row_mm, column_mm = (float(v) for v in item.PixelSpacing)
        first = np.array([float(v) for v in item.ImagePositionPatient])
        return first + np.multiply.outer(columns, along[0] * column_mm) + np.multiply.outer(rows, along[1] * row_mm)

    def image_point(self, xyz: Sequence[float]) -> tuple[int, float, float]:
        """The nearest slice, and column and row in it, counted from the corner of the first pixel."""
        along = np.reshape([float(v) for v in self.slices[0].ImageOrientationPatient], (2, 3))
        normal = np.cross(*along)
        away = [abs(normal @ (np.asarray(xyz) - [float(v) for v in item.ImagePositionPatient])) for item in self.slices]
        number = int(np.argmin(away))
        row_mm, column_mm = (float(v) for v in self.slices[number].PixelSpacing)
        offset = np.asarray(xyz) - self.lps(0, 0, number)
        return number, along[0] @ offset / column_mm + 0.5, along[1] @ offset / row_mm + 0.5

    def ball(self, xyz: Sequence[float], radius_mm: float = RADIUS_MM) -> np.ndarray:
        """(slices, rows, columns) bool: pixels whose centre lies in a ball."""
        rows, columns = self.slices[0].Rows, self.slices[0].Columns
        planes = [
            np.linalg.norm(
                self.lps(np.arange(columns), 0, k)[None, :]
                + self.lps(0, np.arange(rows), k)[:, None]
                - self.lps(0, 0, k)
                - xyz,
                axis=-1,
            )
            <= radius_mm
            for k in range(len(self.slices))
        ]
        return np.array(planes)

    def outline(self, xyz: Sequence[float], number: int, radius_mm: float = RADIUS_MM, vertices: int = 24) -> Any:
        """(N, 3) where the plane of a slice cuts a ball; None where it does not."""
        along = np.reshape([float(v) for v in self.slices[0].ImageOrientationPatient], (2, 3))
        height = float(np.cross(*along) @ (self.lps(0, 0, number) - xyz))
        if abs(height) >= radius_mm:
            return None
        turn = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
        radius = np.sqrt(radius_mm**2 - height**2)
        middle = np.asarray(xyz) + height * np.cross(*along)
        return middle + radius * (np.outer(np.cos(turn), along[0]) + np.outer(np.sin(turn), along[1]))


def with_patient(slices: list[Dataset], name: str = "Phantom^One") -> list[Dataset]:
    """The slices with what DICOM wants of a patient and a study."""
    for item in slices:
        item.PatientName, item.PatientBirthDate, item.PatientSex = name, "", ""
        item.StudyID, item.StudyDate, item.StudyTime, item.AccessionNumber = "1", "20260101", "120000", ""
        item.ReferringPhysicianName, item.Manufacturer = "", "none"
    return slices


def marked_series(folder: Path, *, tilt_deg: float = 0.0) -> Marked:
    """A series with its marks; turned about the left-right axis where ``tilt_deg`` is given."""
    c, s = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
    slices = make.dicom_slices(make.chest_hu(SHAPE_ZYX), spacing=SPACING_XYZ, column=(0, c, s))
    with_patient(slices)
    saved = make.save_series(folder / "series", slices)
    series = Marked(saved, slices, np.zeros(3), np.zeros(3))
    points = (series.lps(14.3, 17.6, 9), series.lps(31.2, 24.1, 6))
    return Marked(saved, slices, *points)


def write_points(folder: Path, marked: Marked) -> dict[str, Path]:
    """The texts: both nodules, in every form and frame."""
    points = [marked.xyz.tolist(), marked.other.tolist()]
    ras = [[-x, -y, z] for x, y, z in points]
    uid = str(marked.slices[0].SeriesInstanceUID)
    luna = "".join(f"{uid},{x!r},{y!r},{z!r},10.0\n1.2.3,{x!r},{y!r},0,4\n" for x, y, z in points)
    texts = {
        "lps.csv": "id,x,y,z\n" + "".join(f"n{n},{x!r},{y!r},{z!r}\n" for n, (x, y, z) in enumerate(points)),
        "comma.csv": ("x;y;z\n" + "".join(f"{x!r};{y!r};{z!r}\n" for x, y, z in points)).replace(".", ","),
        "list.json": json.dumps([dict(zip("xyz", xyz, strict=True)) for xyz in points]),
        "lines.jsonl": "".join(json.dumps({"id": str(n), "xyz_lps_mm": xyz}) + "\n" for n, xyz in enumerate(points)),
        "lps.mrk.json": markups(points, "LPS"),
        "ras.mrk.json": markups(ras, "RAS"),
        "new.fcsv": fcsv(points, "LPS", "4.11"),
        "old.fcsv": fcsv(ras, "0", "4.6"),
        "luna16.csv": "seriesuid,coordX,coordY,coordZ,diameter_mm\n" + luna,
        "luna25.csv": "PatientID,SeriesInstanceUID,StudyDate,CoordX,CoordY,CoordZ,NoduleID,AnnotationID,label\n"
        + "".join(f"1,{uid},19990102,{x!r},{y!r},{z!r},{n},1_{n}_19990102,0\n" for n, (x, y, z) in enumerate(points)),
        "challenge.json": json.dumps(
            {
                "name": "Points of interest",
                "type": "Multiple points",
                "points": [{"name": f"1_{n}", "point": xyz} for n, xyz in enumerate(points)],
                "version": {"major": 1, "minor": 0},
            }
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: folder / name for name in texts}


def markups(points: Sequence[Sequence[float]], frame: str) -> str:
    controls = [{"label": f"F-{n}", "position": list(xyz)} for n, xyz in enumerate(points, start=1)]
    schema = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    markup = {"type": "Fiducial", "coordinateSystem": frame, "coordinateUnits": "mm", "controlPoints": controls}
    return json.dumps({"@schema": f"{schema}markups-schema-v1.0.3.json#", "markups": [markup]})


def fcsv(points: Sequence[Sequence[float]], frame: str, version: str) -> str:
    rows = [
        f"vtkMRMLMarkupsFiducialNode_{n},{x!r},{y!r},{z!r},0,0,0,1,1,1,0,F-{n},,"
        for n, (x, y, z) in enumerate(points, start=1)
    ]
    head = [
        f"# Markups fiducial file version = {version}",
        f"# CoordinateSystem = {frame}",
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID",
    ]
    return "\n".join([*head, *rows]) + "\n"


def write_rtstruct(path: Path, marked: Marked) -> Path:
    """Both nodules as closed outlines, and a third ROI that is a point at the first one."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    data.Modality, data.PatientName, data.PatientID = "RTSTRUCT", "Phantom^One", "phantom"
    data.StudyInstanceUID, data.SeriesInstanceUID = marked.slices[0].StudyInstanceUID, generate_uid()
    data.StructureSetLabel = "nodules"
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, xyz) in enumerate([("left", marked.xyz), ("right", marked.other)], start=1):
        outlines = (marked.outline(xyz, k) for k in range(len(marked.slices)))
        contours = [("CLOSED_PLANAR", points) for points in outlines if points is not None]
        add_roi(data, number, name, marked.frame, contours)
    add_roi(data, 3, "click", marked.frame, [("POINT", marked.xyz[None])])
    make.save_slice(data, path)
    return path


def add_roi(data: Dataset, number: int, name: str, frame: str, contours: Sequence[tuple[str, np.ndarray]]) -> None:
    roi, drawn = Dataset(), Dataset()
    roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
    drawn.ReferencedROINumber, drawn.ContourSequence = number, []
    for kind, points in contours:
        contour = Dataset()
        contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
        contour.ContourData = [f"{value:.6f}" for value in points.ravel()]
        drawn.ContourSequence.append(contour)
    data.StructureSetROISequence.append(roi)
    data.ROIContourSequence.append(drawn)


def write_seg(path: Path, marked: Marked, *, kind: str = "BINARY", syntax: str = "1.2.840.10008.1.2.1") -> Path:
    """Both nodules as segments, by highdicom."""
    hd = pytest.importorskip("highdicom")
    from pydicom.sr.codedict import codes

    masks = [marked.ball(marked.xyz), marked.ball(marked.other)]
    pixels: Any = np.stack(masks, axis=-1)
    pixels = pixels.astype(np.float32) * 0.9 if kind == "FRACTIONAL" else pixels.astype(np.uint8)
    if kind == "LABELMAP":
        pixels = (masks[0] + 2 * masks[1]).astype(np.uint8)
    algorithm = hd.AlgorithmIdentificationSequence("detector", codes.DCM.ArtificialIntelligence, "1.0")
    described = [
        hd.seg.SegmentDescription(
            number,
            name,
            codes.SCT.MorphologicallyAbnormalStructure,
            codes.SCT.Nodule,
            "AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_id=name,
            tracking_uid=generate_uid(),
        )
        for number, name in enumerate(("left", "right"), start=1)
    ]
    made = hd.seg.Segmentation(
        marked.slices,
        pixels,
        kind,
        described,
        generate_uid(),
        2,
        generate_uid(),
        1,
        "none",
        "none",
        "1.0",
        "1",
        transfer_syntax_uid=syntax,
    )
    made.save_as(path)
    return path


def write_sr(path: Path, marked: Marked, *, by: str, segmentation: Dataset | None = None) -> Path:
    """Both nodules as measurement groups of TID 1500, by highdicom.

    Args:
        path: Where to.
        marked: The series.
        by: ``point``, ``polygon``, ``ellipsoid`` (SCOORD3D), ``pixel``, ``circle``, ``outlines`` (SCOORD) or
            ``segment``, ``segment frame``.
        segmentation: For those two.
    """
    hd = pytest.importorskip("highdicom")
    from pydicom.sr.codedict import codes

    sr = hd.sr
    groups = []
    for number, (name, xyz) in enumerate([("left", marked.xyz), ("right", marked.other)], start=1):
        common = {
            "tracking_identifier": sr.TrackingIdentifier(uid=generate_uid(), identifier=name),
            "finding_type": codes.SCT.Nodule,
            "finding_sites": [sr.FindingSite(codes.SCT.Lung)],
        }
        middle, column, row = marked.image_point(xyz)
        image = sr.SourceImageForRegion(marked.slices[middle].SOPClassUID, marked.slices[middle].SOPInstanceUID)
        source = sr.SourceImageForSegmentation(marked.slices[middle].SOPClassUID, marked.slices[middle].SOPInstanceUID)
        if by in ("point", "polygon", "ellipsoid"):
            arms = np.concatenate([[axis, -axis] for axis in np.eye(3) * RADIUS_MM])
            outline = marked.outline(xyz, middle)
            data = {"point": xyz[None], "polygon": np.vstack([outline, outline[:1]]), "ellipsoid": xyz + arms}[by]
            if by == "ellipsoid":
                series = sr.SourceSeriesForSegmentation(marked.slices[0].SeriesInstanceUID)
                surface = sr.VolumeSurface("ELLIPSOID", data, marked.frame, source_series=series)
                groups.append(
                    sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_volume_surface=surface, **common)
                )
                continue
            region = sr.ImageRegion3D(by.upper(), data, marked.frame)
            groups.append(sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **common))
        elif by in ("pixel", "circle"):
            points = np.array([[column, row], [column + 4, row]])
            region = sr.ImageRegion(*(("POINT", points[:1]) if by == "pixel" else ("CIRCLE", points)), image)
            groups.append(sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **common))
        elif by == "outlines":
            regions = []
            for k, item in enumerate(marked.slices):
                if (outline := marked.outline(xyz, k)) is not None:
                    flat = np.array([marked.image_point(vertex)[1:] for vertex in [*outline, outline[0]]])
                    flat[-1] = flat[0]
                    regions.append(
                        sr.ImageRegion("POLYLINE", flat, sr.SourceImageForRegion(item.SOPClassUID, item.SOPInstanceUID))
                    )
            groups.append(sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_regions=regions, **common))
        elif by == "segment":
            segment = sr.ReferencedSegment(
                segmentation.SOPClassUID, segmentation.SOPInstanceUID, number, source_images=[source]
            )
            groups.append(sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common))
        else:
            frames = segmentation.PerFrameFunctionalGroupsSequence
            nearest = np.argmin(
                [
                    np.inf
                    if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number
                    else np.linalg.norm(
                        np.subtract(frame.PlanePositionSequence[0].ImagePositionPatient, marked.lps(0, 0, middle))
                    )
                    for frame in frames
                ]
            )
            segment = sr.ReferencedSegmentationFrame(
                segmentation.SOPClassUID, segmentation.SOPInstanceUID, int(nearest) + 1, number, source
            )
            groups.append(sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common))
    observer = sr.ObserverContext(codes.DCM.Device, sr.DeviceObserverIdentifyingAttributes(uid=generate_uid()))
    report = sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=observer),
        codes.LN.CTUnspecifiedBodyRegion,
        groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    evidence = [*marked.slices, *([segmentation] if segmentation is not None else [])]
    made = sr.Comprehensive3DSR(
        evidence, report, generate_uid(), 3, generate_uid(), 1, manufacturer="none", is_complete=True
    )
    made.save_as(path)
    return path


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def content(relation: str, kind: str, name: Dataset | None, *children: Dataset, **values: Any) -> Dataset:
    """A content item."""
    made = Dataset()
    if relation:
        made.RelationshipType = relation
    made.ValueType = kind
    if name is not None:
        made.ConceptNameCodeSequence = [name]
    for keyword, value in values.items():
        setattr(made, keyword, value)
    if children:
        made.ContentSequence = list(children)
    return made


def write_chest_cad(path: Path, marked: Marked) -> Path:
    """TID 4100: the first nodule by its Center, on an image given by reference to the library; the second one as a
    feature of two findings; a third finding that is not for presentation."""
    images = []
    for item in marked.slices:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = item.SOPClassUID, item.SOPInstanceUID
        images.append(content("CONTAINS", "IMAGE", None, ReferencedSOPSequence=[reference]))
    library = content("CONTAINS", "CONTAINER", coded("111028", "DCM", "Image Library"), *images)
    library.ContinuityOfContent = "SEPARATE"

    def graphic(kind: str, numbers: Sequence[float], number: int, name: tuple[str, str] = ("111010", "Center")) -> Any:
        selected = Dataset()
        selected.RelationshipType, selected.ReferencedContentItemIdentifier = "SELECTED FROM", [1, 1, number + 1]
        code = coded(name[0], "DCM", name[1])
        return content("HAS PROPERTIES", "SCOORD", code, selected, GraphicType=kind, GraphicData=list(numbers))

    def finding(*children: Dataset, intent: tuple[str, str] = ("111150", "Presentation Required")) -> Dataset:
        shown = content(
            "HAS CONCEPT MOD",
            "CODE",
            coded("111056", "DCM", "Rendering Intent"),
            ConceptCodeSequence=[coded(intent[0], "DCM", intent[1])],
        )
        return content(
            "INFERRED FROM",
            "CODE",
            coded("111059", "DCM", "Single Image Finding"),
            shown,
            *children,
            ConceptCodeSequence=[coded("27925004", "SCT", "Nodule")],
        )

    middle, column, row = marked.image_point(marked.xyz)
    outline = ("111041", "Outline")
    around = np.array(
        [marked.image_point(vertex)[1:] for vertex in marked.outline(marked.other, marked.image_point(marked.other)[0])]
    )
    where = marked.image_point(marked.other)[0]
    first = finding(
        graphic("POINT", (column, row), middle),
        graphic("CIRCLE", (column + 3, row, column + 9, row), middle, outline),
    )
    second = content(
        "INFERRED FROM",
        "CODE",
        coded("111015", "DCM", "Composite Feature"),
        *(finding(graphic("POLYLINE", np.vstack([around, around[:1]]).ravel(), where, outline)) for _ in range(2)),
        ConceptCodeSequence=[coded("27925004", "SCT", "Nodule")],
    )
    hidden = finding(graphic("POINT", (1, 1), 0), intent=("111152", "Not for Presentation"))
    summary = content(
        "CONTAINS",
        "CODE",
        coded("111017", "DCM", "CAD Processing and Findings Summary"),
        first,
        second,
        hidden,
        ConceptCodeSequence=[coded("111242", "DCM", "All algorithms succeeded; with findings")],
    )
    root = content("", "CONTAINER", coded("112000", "DCM", "Chest CAD Report"), library, summary)
    root.ContinuityOfContent = "SEPARATE"
    root.SOPClassUID, root.SOPInstanceUID, root.Modality = ChestCADSRStorage, generate_uid(), "SR"
    root.StudyInstanceUID, root.SeriesInstanceUID = marked.slices[0].StudyInstanceUID, generate_uid()
    root.CompletionFlag, root.VerificationFlag = "COMPLETE", "UNVERIFIED"
    make.save_slice(root, path)
    return path
