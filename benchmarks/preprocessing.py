"""Compare the default preprocessing with the literal one on real CTs.

Example:
    python benchmarks/preprocessing.py ../shared/data/ct/LIDC-IDRI-0314.nii.gz --xyz -56.94 131.27 -520.6 \
        --nodule-mask ../shared/data/ct/LIDC-IDRI-0314_nodule_mask.nii.gz --out preprocessing.json

The literal pipeline takes minutes and several GB. The exit status is 1 when the two do not agree as required.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nodule_diag.geometry import index_from_lps
from nodule_diag.lungs import LungMask, lung_mask
from nodule_diag.patch import extract_patches
from nodule_diag.reference import reference_lung_mask, reference_patch
from nodule_diag.volume import CTVolume, read_ct

LEAST_DICE = 0.98
MOST_PATCH_DIFFERENCE = 1e-3
LEAST_NODULE_INSIDE = 0.99

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both implementations on one nodule of one CT. Times in milliseconds."""

    ct: str
    size_xyz: tuple[int, int, int]
    spacing_xyz_mm: tuple[float, float, float]
    xyz_lps_mm: tuple[float, ...]
    read_ms: float
    reference_mask_ms: float
    reference_patch_ms: float
    default_mask_cold_ms: float
    default_mask_ms: float
    default_patch_ms: float
    default_masked_patch_ms: float
    mask_dice: float
    reference_mask_ml: float
    default_mask_ml: float
    patch_max_abs_difference: float
    patch_max_abs_difference_own_masks: float
    nodule_in_reference_mask: float | None
    nodule_in_default_mask: float | None

    @property
    def agrees(self) -> bool:
        """Whether everything that must hold does."""
        nodule_inside = self.nodule_in_default_mask is None or self.nodule_in_default_mask >= LEAST_NODULE_INSIDE
        return self.mask_dice >= LEAST_DICE and self.patch_max_abs_difference <= MOST_PATCH_DIFFERENCE and nodule_inside


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """The result of a call and its milliseconds."""
    start = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - start) * 1000.0


def warm_ms(call: Callable[[], object], *, repeats: int) -> float:
    """Median milliseconds of a call that has been made before."""
    return statistics.median(timed(call)[1] for _ in range(repeats))


def nodule_voxels(ct: CTVolume, path: Path) -> tuple[NDArray[np.intp], ...]:
    """Indices (z, y, x) into the CT of an annotation's voxels; the mask may be stored in any orientation.

    Raises:
        ValueError: the mask's grid is not the CT's.
    """
    image = sitk.ReadImage(str(path))
    voxels_xyz = np.argwhere(sitk.GetArrayViewFromImage(image))[:, ::-1]
    direction = np.array(image.GetDirection()).reshape(3, 3)
    points_xyz_mm = (voxels_xyz * image.GetSpacing()) @ direction.T + image.GetOrigin()
    index_xyz = index_from_lps(ct, points_xyz_mm)
    nearest = np.rint(index_xyz).astype(int)
    if np.abs(index_xyz - nearest).max() > 0.01:
        raise ValueError(f"{path} is not on the voxels of the CT")
    return tuple(nearest[:, ::-1].T)


def compare(path: Path, center_xyz_mm: tuple[float, ...], *, nodule_mask: Path | None, repeats: int) -> Comparison:
    """Run both implementations.

    Args:
        path: the CT.
        center_xyz_mm: the nodule, LPS mm.
        nodule_mask: annotated voxels of the nodule, NIfTI.
        repeats: warm calls whose median is reported.
    """
    ct, read_ms = timed(lambda: read_ct(path))
    default, cold_ms = timed(lambda: lung_mask(ct))
    found = default.to_array()
    literal, reference_mask_ms = timed(lambda: reference_lung_mask(ct))
    expected, reference_patch_ms = timed(lambda: reference_patch(ct, center_xyz_mm, lung_mask=literal))
    same_mask = extract_patches(ct, [center_xyz_mm], lung_mask=LungMask.from_array(ct, literal))[0]
    own_mask = extract_patches(ct, [center_xyz_mm], lung_mask=default)[0]
    voxels = nodule_voxels(ct, nodule_mask) if nodule_mask else None
    voxel_ml = float(np.prod(ct.spacing_zyx_mm)) / 1000.0
    return Comparison(
        ct=path.name,
        size_xyz=ct.size_xyz,
        spacing_xyz_mm=ct.spacing_xyz_mm,
        xyz_lps_mm=tuple(center_xyz_mm),
        read_ms=read_ms,
        reference_mask_ms=reference_mask_ms,
        reference_patch_ms=reference_patch_ms,
        default_mask_cold_ms=cold_ms,
        default_mask_ms=warm_ms(lambda: lung_mask(ct), repeats=repeats),
        default_patch_ms=warm_ms(lambda: extract_patches(ct, [center_xyz_mm]), repeats=repeats),
        default_masked_patch_ms=warm_ms(
            lambda: extract_patches(ct, [center_xyz_mm], lung_mask=default), repeats=repeats
        ),
        mask_dice=float(2 * np.count_nonzero(literal & found) / (np.count_nonzero(literal) + np.count_nonzero(found))),
        reference_mask_ml=np.count_nonzero(literal) * voxel_ml,
        default_mask_ml=np.count_nonzero(found) * voxel_ml,
        patch_max_abs_difference=float(np.abs(same_mask - expected).max()),
        patch_max_abs_difference_own_masks=float(np.abs(own_mask - expected).max()),
        nodule_in_reference_mask=float(literal[voxels].mean()) if voxels else None,
        nodule_in_default_mask=float(found[voxels].mean()) if voxels else None,
    )


def main() -> int:
    """Parse the command line, compare, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path, help="CT in any format the SDK reads")
    parser.add_argument("--xyz", type=float, nargs=3, required=True, help="the nodule, LPS mm")
    parser.add_argument("--nodule-mask", type=Path, help="annotated voxels of the nodule (NIfTI on the CT's grid)")
    parser.add_argument("--repeats", type=int, default=9, help="warm calls whose median is reported")
    parser.add_argument("--out", type=Path, help="write the JSON here as well")
    arguments = parser.parse_args()

    comparison = compare(
        arguments.ct, tuple(arguments.xyz), nodule_mask=arguments.nodule_mask, repeats=arguments.repeats
    )
    environment = {
        "cpu_count": os.cpu_count(),
        "machine": platform.machine(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "SimpleITK": sitk.Version_VersionString(),
    }
    report = {"agrees": comparison.agrees, **asdict(comparison), "environment": environment}
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    return 0 if comparison.agrees else 1


if __name__ == "__main__":
    sys.exit(main())
