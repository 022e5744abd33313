"""Reads the shared LIDC-IDRI nodules: what is known of each nodule, without its voxels.

It combines three tables: ``vois.csv`` (874 nodule VOIs with reader scores), ``index.json`` (99 cubes with their real
surroundings) and TCIA's diagnoses of 157 patients. Patients are identified by their LIDC number throughout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nodule_diag_training.data.nodule import UNKNOWN_METHOD, Certainty, Nodule, SureLabel, TrainingDataError

COLLECTION = "LIDC-IDRI"
DIAGNOSIS_METHODS = {
    0: UNKNOWN_METHOD,
    1: "two years of stability on imaging",
    2: "biopsy",
    3: "surgical resection",
    4: "progression or response",
}
BENIGN_DIAGNOSIS = 1
MALIGNANT_DIAGNOSES = (2, 3)
DIAGNOSES = (0, BENIGN_DIAGNOSIS, *MALIGNANT_DIAGNOSES)
"""Codes of diagnoses; 0 is unknown."""

DIAGNOSIS_FILE = Path("tables") / "tcia-diagnosis-data-2012-04-20.xls"
NODULES_IN_DIAGNOSIS_TABLE = 5

SET_DATA = "set NODULE_DIAG_DATA (or --data) to the folder of the LIDC data"


def _numbers(cell: object) -> tuple[int, ...]:
    return tuple(int(part) for part in str(cell).split(";"))


def read_diagnoses(root: Path) -> dict[str, tuple[list[int], list[int]]]:
    """Nodule-level diagnoses of each patient: (diagnoses, methods), without unknown and blank ones.

    Args:
        root: The shared data folder.

    Raises:
        TrainingDataError: If the table is missing or has other columns.
    """
    import pandas as pd

    path = root / DIAGNOSIS_FILE
    if not path.is_file():
        raise TrainingDataError(f"{path} does not exist", hint=SET_DATA)
    table = pd.read_excel(path, engine="calamine")
    expected = 4 + 2 * NODULES_IN_DIAGNOSIS_TABLE
    if table.shape[1] != expected:
        raise TrainingDataError(f"{path} has {table.shape[1]} columns, {expected} were expected")
    diagnoses: dict[str, tuple[list[int], list[int]]] = {}
    for row in table.itertuples(index=False):
        pairs = []
        for nodule in range(NODULES_IN_DIAGNOSIS_TABLE):
            diagnosis, method = (_integer(cell) for cell in row[4 + 2 * nodule : 6 + 2 * nodule])
            if diagnosis not in DIAGNOSES or method not in DIAGNOSIS_METHODS:
                raise TrainingDataError(
                    f"{path} has diagnosis {diagnosis} by method {method} for {row[0]}; known are diagnoses 0 to"
                    f" {max(DIAGNOSES)} and methods 0 to {max(DIAGNOSIS_METHODS)}",
                    hint="use TCIA's table as it is",
                )
            if diagnosis:
                pairs.append((diagnosis, method))
        diagnoses[str(row[0]).strip()] = ([d for d, _ in pairs], [m for _, m in pairs])
    return diagnoses


def _integer(cell: object) -> int:
    """A diagnosis or method code; blanks and unknowns are 0."""
    text = str(cell).strip()
    try:
        return int(float(text)) if text and text.lower() != "nan" else 0
    except ValueError as error:
        raise TrainingDataError(f"{text!r} is not a code of a diagnosis", hint="use TCIA's table as it is") from error


def sure_label(diagnoses: Sequence[int], methods: Sequence[int], *, nodules: int) -> SureLabel | None:
    """The label that a patient's diagnoses give to each of the patient's ``nodules`` VOIs; None if diagnoses disagree.

    The label is taken as the nodule's own where the patient has no more VOIs than diagnoses. The patient may still have
    a nodule without a VOI, so this is not certain.
    """
    sides = {int(diagnosis in MALIGNANT_DIAGNOSES) for diagnosis in diagnoses}
    if len(sides) != 1:
        return None
    words = sorted({DIAGNOSIS_METHODS[method] for method in methods})
    certainty: Certainty = "nodule" if nodules <= len(diagnoses) else "patient"
    return SureLabel(malignant=sides.pop(), method=" / ".join(words), certainty=certainty)


def load_nodules(root: Path) -> list[Nodule]:
    """Every VOI and cube of the shared data, with reader scores, diagnosis and twin.

    Raises:
        TrainingDataError: If a table is missing.
    """
    import pandas as pd

    table_path, index_path = root / "lidc_vois" / "vois.csv", root / "lidc_cubes" / "index.json"
    for path in (table_path, index_path):
        if not path.is_file():
            raise TrainingDataError(f"{path} does not exist", hint=SET_DATA)
    table = pd.read_csv(table_path)
    diagnoses = read_diagnoses(root)
    per_patient = table.patient_id.value_counts().to_dict()
    by_annotation: dict[int, str] = {}
    vois: dict[str, Nodule] = {}
    for row in table.itertuples(index=False):
        found, methods = diagnoses.get(row.patient_id, ([], []))
        vois[row.voi] = Nodule(
            case_id=row.voi,
            patient_id=row.patient_id,
            image=root / "lidc_vois" / "image" / f"{row.voi}.nii.gz",
            mask=root / "lidc_vois" / "mask" / f"{row.voi}.nii.gz",
            reader_scores=_numbers(row.malignancy),
            diameter_mm=float(row.eq_diameter_mm),
            in_paper_cohort=bool(row.in_paper_cohort),
            sure=sure_label(found, methods, nodules=per_patient[row.patient_id]),
        )
        by_annotation.update(dict.fromkeys(_numbers(row.annotation_ids), row.voi))
    cubes = []
    for entry in json.loads(index_path.read_text()):
        voi = by_annotation.get(entry["annotation_id"])
        cube = Nodule(
            case_id=f"cube/{entry['file']}",
            patient_id=entry["patient"],
            image=root / "lidc_cubes" / f"{entry['file']}.npz",
            mask=None,
            reader_scores=tuple(entry["malignancy"]),
            diameter_mm=float((6.0 * entry["mask_mm3"] / np.pi) ** (1 / 3)),
            in_paper_cohort=bool(entry["in_paper_cohort"]),
            sure=None if voi is None else vois[voi].sure,
            twin=voi,
        )
        if voi is not None:
            vois[voi] = replace(vois[voi], twin=cube.case_id)
        cubes.append(cube)
    return [*vois.values(), *cubes]
