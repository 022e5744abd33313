"""Options that several commands share, and their fixed choices."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class SpaceName(StrEnum):
    """The frames that a point can be given in."""

    LPS = "lps"
    RAS = "ras"
    VOXEL = "voxel"


class BackendName(StrEnum):
    """What can run the model."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    WINOGRAD = "winograd"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class PrecisionName(StrEnum):
    """Number formats of the model."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


XyzOption = Annotated[
    list[str] | None,
    typer.Option("--xyz", metavar="X Y Z", help="Position of a nodule in mm (LPS, as in DICOM). Can be repeated."),
]
NodulesOption = Annotated[
    Path | None,
    typer.Option("--nodules", metavar="FILE", help="Nodule list: CSV, JSON, or from 3D Slicer, LUNA or a detector."),
]
SpaceOption = Annotated[
    SpaceName,
    typer.Option(help="Frame of x, y, z if a list states none: mm in LPS or RAS, or the file's voxels from 0."),
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", metavar="PATH", help="Bundle (folder or zip) instead of the packaged one.")
]
CasesOption = Annotated[
    Path | None, typer.Option("--cases", metavar="FILE", help="Case base of the same model, instead of the bundle's.")
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="EXPRESSION",
        help="Only cases that match, such as: age > 60 and sex = 'F'.",
        show_default=False,
    ),
]
BackendOption = Annotated[BackendName, typer.Option(help="Runtime that computes. auto: the fastest proven one.")]
DeviceOption = Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]", help="Device that computes.")]
PrecisionOption = Annotated[PrecisionName, typer.Option(help="Number format. auto: fp32, or another proven one.")]
KOption = Annotated[
    int | None, typer.Option("--k", metavar="K", min=1, help="Number of similar cases to find; 20 if omitted.")
]
SymmetriesOption = Annotated[
    int,
    typer.Option(metavar="1|8|48", help="Average over 8 or 48 flips and rotations of each nodule: slower, steadier."),
]
PrevalenceOption = Annotated[
    float | None,
    typer.Option(
        "--prevalence",
        metavar="P",
        help="Share of malignant nodules at your site, such as 0.05. Malignancy is then for this share, not for 0.5.",
    ),
]
NoLungCheckOption = Annotated[
    bool, typer.Option("--no-lung-check", help="Do not look for the lungs: faster, but in_lung is unknown.")
]
SeriesOption = Annotated[str | None, typer.Option(metavar="UID", help="DICOM series to read, if there are several.")]
RedactOption = Annotated[
    bool, typer.Option("--redact", help="Leave paths, file names and UIDs out of everything printed or written.")
]
AcquisitionOption = Annotated[
    int | None, typer.Option(metavar="N", help="Volume to read, if a DICOM series holds several.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
PositionsOutOption = Annotated[
    Path | None,
    typer.Option(
        "--positions-out", metavar="FILE", help="Also write the nodules: .mrk.json (3D Slicer), .csv or .jsonl."
    ),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder for the JSON, and for CAM and segmentation (NIfTI).")
]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Also write an .html report with pictures.")
]
IdentityOption = Annotated[
    bool, typer.Option("--identity", help="Show the patient's identity in the report; left out by default.")
]
DicomOutOption = Annotated[
    Path | None,
    typer.Option("--dicom-out", metavar="DIR", help="Also write DICOM objects: report, segmentation, CAM, pictures."),
]
DicomwebOption = Annotated[
    str | None,
    typer.Option("--dicomweb", metavar="URL", help="Fetch the CT from this PACS; needs --study and --series."),
]
StudyOption = Annotated[str | None, typer.Option(metavar="UID", help="Study of the CT, with --dicomweb.")]
StoreOption = Annotated[bool, typer.Option("--store", help="Send the DICOM objects to the PACS of --dicomweb.")]
