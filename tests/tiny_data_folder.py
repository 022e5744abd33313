"""A data folder of nine small patients, and of lung of two more, in the layout of the shared LIDC-IDRI data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

PATIENTS = 9
DIAGNOSES = {f"P{patient}": ([1 + patient % 3], [2]) for patient in range(PATIENTS) if patient % 3 < 2}
"""In place of TCIA's spreadsheet: three patients benign, three malignant."""


def write_data_folder(root: Path) -> None:
    """Nine patients with a VOI and a cube each, and lung of two more."""
    for folder in ("lidc_vois/image", "lidc_vois/mask", "lidc_cubes", "lung_cubes"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["voi,patient_id,malignancy,eq_diameter_mm,in_paper_cohort,annotation_ids"]
    cubes = []
    for patient in range(PATIENTS):
        score = 1 + patient % 5
        for shape, name in (((8, 40, 40), "voi"), ((51, 51, 51), "cube")):
            grid = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
            mask = (grid**2).sum(axis=0) <= (3.0 + patient / 3) ** 2
            hu = (np.where(mask, 40, -850) + rng.integers(-20, 20, shape)).astype(np.int16)
            if name == "cube":
                np.savez(root / "lidc_cubes" / f"c{patient}.npz", hu=hu, mask=mask.astype(np.uint8))
                continue
            for part, array in (("image", hu), ("mask", mask.astype(np.uint8))):
                image = sitk.GetImageFromArray(array)
                image.SetSpacing((0.7, 0.7, 1.25))
                sitk.WriteImage(image, str(root / "lidc_vois" / part / f"P{patient}_R_1.nii.gz"))
        rows.append(f"P{patient}_R_1,P{patient},{score};{score};3,8.0,1,{patient}")
        cubes.append(
            {
                "file": f"c{patient}",
                "patient": f"P{patient}",
                "malignancy": [score, score, 3],
                "mask_mm3": 200,
                "in_paper_cohort": True,
                "annotation_id": patient,
            }
        )
    (root / "lidc_vois" / "vois.csv").write_text("\n".join(rows) + "\n")
    (root / "lidc_cubes" / "index.json").write_text(json.dumps(cubes))
    places = []
    for number in range(6):
        hu = (rng.integers(-900, -700, (51, 51, 51))).astype(np.int16)
        hu[:, 20:24, 25:28] = 20
        np.savez(root / "lung_cubes" / f"l{number}.npz", hu=hu)
        places.append({"file": f"l{number}", "patient": f"L{number % 2}", "kind": ("blob", "lung")[number // 3]})
    (root / "lung_cubes" / "index.json").write_text(json.dumps(places))
