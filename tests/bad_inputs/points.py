"""Points that the geometry must refuse, and the CT they are refused for."""

from dataclasses import dataclass
from pathlib import Path

import ct_files as make


@dataclass(frozen=True)
class BadPoint:
    """A point that must be refused for the CT of `point_ct`.

    Attributes:
        name: Short name, for test ids.
        title: For people: what is wrong with it.
        code: The error code it must give.
        xyz: The point.
        says: What the message or the hint must name.
        in_lung: What the lung mask says about any point that it is asked for.
    """

    name: str
    title: str
    code: str
    xyz: tuple[float, float, float]
    says: tuple[str, ...]
    in_lung: bool = False


POINTS = (
    BadPoint("outside", "a point outside the volume", "coordinate-outside", (0.0, 300.0, -120.0),
             ("(0, 300, -120)", "x -20.88 to 0.12, y 10.85 to 36.45, z -131.25 to -101.25")),
    BadPoint("mirrored", "RAS coordinates given as LPS", "coordinate-outside", (10.0, -20.0, -120.0),
             ("(10, -20, -120)", "(-10, 20, -120)", "--space ras"), in_lung=True),
    BadPoint("mirrored_outside_lung", "the same, where the mirrored point is in the volume but not in the lungs",
             "coordinate-outside", (10.0, -20.0, -120.0), ("--space ras or --space voxel",)),
    BadPoint("nan", "a coordinate that is not a number", "coordinate-not-finite", (float("nan"), 20.0, -120.0),
             ("nan", "20", "-120")),
    BadPoint("infinite", "an infinite coordinate", "coordinate-not-finite", (0.0, float("inf"), -120.0), ("inf",)),
)  # fmt: skip


def point_ct(folder: Path) -> Path:
    """The CT the points are refused for: x -20.5 to -0.25, y 11.25 to 36.05, z -130 to -102.5 mm, LPS."""
    return make.write(folder / "scan.nii.gz")
