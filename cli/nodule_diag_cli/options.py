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
    typer.Option("--xyz", metavar="X Y Z", help="Where a nodule is, in mm (LPS, as in DICOM). Repeat it for more."),
]
NodulesOption = Annotated[
    Path | None,
    typer.Option("--nodules", metavar="FILE", help="Their list: CSV or JSON, or of 3D Slicer, LUNA or a detector."),
]
SpaceOption = Annotated[
    SpaceName,
    typer.Option(help="What x, y, z are, where a list does not say: mm in LPS or RAS, or voxels of the file from 0."),
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", metavar="PATH", help="Another model than the packaged one: a folder or zip.")
]
CasesOption = Annotated[
    Path | None, typer.Option("--cases", metavar="FILE", help="A case base of the same model instead of the bundle's.")
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="EXPRESSION",
        help="Cases that match alone, as in: age > 60 and sex = 'F'.",
        show_default=False,
    ),
]
BackendOption = Annotated[BackendName, typer.Option(help="The program that computes. auto: the fastest proven one.")]
DeviceOption = Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]", help="The processor that computes.")]
PrecisionOption = Annotated[PrecisionName, typer.Option(help="Its number format. auto: fp32 or a proven one.")]
KOption = Annotated[
    int | None, typer.Option("--k", metavar="K", min=1, help="How many similar cases to find; 20 if left out.")
]
SymmetriesOption = Annotated[
    int,
    typer.Option(metavar="1|8|48", help="Average over 8 or 48 flips and turns of each nodule: slower, steadier."),
]
PrevalenceOption = Annotated[
    float | None,
    typer.Option(
        "--prevalence",
        metavar="P",
        help="Share of malignant nodules where you work, such as 0.05. Malignancy is then for it, not for one half.",
    ),
]
NoLungCheckOption = Annotated[
    bool, typer.Option("--no-lung-check", help="Do not look for the lungs: faster, and in_lung stays unknown.")
]
SeriesOption = Annotated[
    str | None, typer.Option(metavar="UID", help="The DICOM series to read, where there are several.")
]
RedactOption = Annotated[
    bool, typer.Option("--redact", help="Leave paths, file names and UIDs out of everything that is said or written.")
]
AcquisitionOption = Annotated[
    int | None, typer.Option(metavar="N", help="The volume to read, where a DICOM series holds several.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
PositionsOutOption = Annotated[
    Path | None,
    typer.Option(
        "--positions-out", metavar="FILE", help="Also write the nodules for 3D Slicer (.mrk.json), as .csv or .jsonl."
    ),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Also write the JSON, and CAM and segmentation as NIfTI.")
]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Also write a page with pictures for people, .html.")
]
IdentityOption = Annotated[
    bool, typer.Option("--identity", help="Say in the report whose CT it is; without it, nothing of the patient.")
]
DicomOutOption = Annotated[
    Path | None,
    typer.Option("--dicom-out", metavar="DIR", help="Also write DICOM objects: report, segmentation, CAM, pictures."),
]
DicomwebOption = Annotated[
    str | None,
    typer.Option("--dicomweb", metavar="URL", help="Take the CT from a PACS; --study and --series say which."),
]
StudyOption = Annotated[str | None, typer.Option(metavar="UID", help="The study, with --dicomweb.")]
StoreOption = Annotated[bool, typer.Option("--store", help="Send the DICOM objects to that PACS.")]
