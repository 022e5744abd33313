"""The default preprocessing compared with the literal one, on the answer of the paper-literal peer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from benchmarks.results import Check, Column, Table
from benchmarks.subject import Subject
from nodule_diag.ct import CTVolume, index_from_lps
from nodule_diag.preprocessing import LungMask, extract_patches, lung_mask

LEAST_DICE = 0.98
MOST_PATCH_DIFFERENCE = 1e-3
LEAST_NODULE_INSIDE = 0.99
ON_VOXELS = 0.01
"""Largest distance, in voxels, between an annotation's voxel and one of the CT."""


def agreement(
    ct: CTVolume,
    subject: Subject,
    *,
    literal_lungs: NDArray[np.bool_],
    literal_patch: NDArray[np.float32],
    masked_input: bool,
) -> tuple[Table, tuple[Check, ...]]:
    """Compare masks and patches.

    Args:
        ct: The CT.
        subject: The subject, which says where the nodule is.
        literal_lungs: (z, y, x) bool, steps 1 to 7 on every voxel.
        literal_patch: (2, 64, 64, 64), step 8 on the whole CT.
        masked_input: Whether the literal patch was masked.
    """
    default = lung_mask(ct)
    found = default.to_array()
    same = LungMask.from_array(ct, literal_lungs) if masked_input else None
    patch = extract_patches(ct, [subject.xyz_mm], lung_mask=same)[0]
    dice = 2 * np.count_nonzero(literal_lungs & found) / (np.count_nonzero(literal_lungs) + np.count_nonzero(found))
    difference = float(np.abs(patch - literal_patch).max())
    voxel_ml = float(np.prod(ct.spacing_zyx_mm)) / 1000.0
    rows: list[tuple[str, float]] = [
        ("lung mask, Dice with the literal one", float(dice)),
        ("lung mask, ml", np.count_nonzero(found) * voxel_ml),
        ("literal lung mask, ml", np.count_nonzero(literal_lungs) * voxel_ml),
        ("patch, largest difference from the literal one", difference),
    ]
    checks = [
        Check(name="lung mask, Dice with the literal one", value=float(dice), rule="at least", limit=LEAST_DICE),
        Check(
            name="patch, largest difference from the literal one",
            value=difference,
            rule="at most",
            limit=MOST_PATCH_DIFFERENCE,
        ),
    ]
    if subject.nodule_mask is not None:
        voxels = nodule_voxels(ct, subject.nodule_mask)
        inside = float(found[voxels].mean())
        rows += [
            ("annotated nodule inside the lung mask, share", inside),
            ("annotated nodule inside the literal one, share", float(literal_lungs[voxels].mean())),
        ]
        checks.append(
            Check(
                name="annotated nodule inside the lung mask", value=inside, rule="at least", limit=LEAST_NODULE_INSIDE
            )
        )
    table = Table(
        name="agreement",
        title="Preprocessing beside the paper's to the letter",
        columns=(Column(key="what", label="what"), Column(key="value", label="value")),
        rows=tuple(rows),
    )
    return table, tuple(checks)


def nodule_voxels(ct: CTVolume, path: Path) -> tuple[NDArray[np.intp], ...]:
    """Indices (z, y, x) into the CT of an annotation's voxels; the mask may be stored in any orientation.

    Raises:
        ValueError: If the mask's grid is not the CT's.
    """
    image = sitk.ReadImage(str(path))
    voxels_xyz = np.argwhere(sitk.GetArrayViewFromImage(image))[:, ::-1]
    direction = np.array(image.GetDirection()).reshape(3, 3)
    points_xyz_mm = (voxels_xyz * image.GetSpacing()) @ direction.T + image.GetOrigin()
    index_xyz = index_from_lps(ct, points_xyz_mm)
    nearest = np.rint(index_xyz).astype(int)
    if np.abs(index_xyz - nearest).max() > ON_VOXELS:
        raise ValueError(f"{path} is not on the voxels of the CT")
    return tuple(nearest[:, ::-1].T)
