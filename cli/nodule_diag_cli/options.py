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
    typer.Option("--xyz", metavar="X Y Z", help="A nodule's place; repeat for more. LPS mm unless --space says other."),
]
NodulesOption = Annotated[
    Path | None,
    typer.Option("--nodules", metavar="FILE", help="Nodules from a CSV (x,y,z and optionally id) or JSON."),
]
SpaceOption = Annotated[
    SpaceName, typer.Option(help="Frame of the points: LPS or RAS mm, or voxels x y z of the file from 0.")
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", metavar="PATH", help="A bundle folder or zip instead of the packaged one.")
]
CasesOption = Annotated[
    Path | None, typer.Option("--cases", metavar="FILE", help="A case base of the same model instead of the bundle's.")
]
BackendOption = Annotated[BackendName, typer.Option(help="What runs the model.")]
DeviceOption = Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]", help="Where it runs.")]
PrecisionOption = Annotated[PrecisionName, typer.Option(help="In which number format.")]
KOption = Annotated[
    int | None, typer.Option("--k", metavar="K", min=1, help="How many similar cases; the bundle's 20 if left out.")
]
SymmetriesOption = Annotated[
    int, typer.Option(metavar="1|8|48", help="Average over the flips (8) or all symmetries (48) of each patch.")
]
SeriesOption = Annotated[str | None, typer.Option(metavar="UID", help="Which DICOM series, where there are several.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Also write JSON, CAM and segmentation (NIfTI) here.")
]
