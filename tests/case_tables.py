"""Tables of diagnosed nodules with CTs to go with them, and a model that answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from made_diagnosis import made_diagnosis
from nodule_diag.ct.phantom import chest_phantom
from nodule_diag.ct.volume import CTVolume
from nodule_diag.results.diagnosis import Diagnosis
from nodule_diag_cli.demo import write_ct

HEAD = "case_id,patient,label,method,age,path,x,y,z"


def phantom_table(folder: Path, count: int = 20) -> Path:
    """A table of ``count`` coarse phantoms with two nodules each, in ``folder``; no two CTs are alike."""
    lines = [HEAD]
    for number in range(count):
        phantom = chest_phantom(spacing_zyx_mm=(5.0, 4.5, 4.5 + number / 100.0))
        write_ct(folder / f"ct{number:02}.nii", phantom.ct)
        for nodule, point in enumerate(phantom.nodules[:2]):
            label, where = (number + nodule) % 2, ",".join(map(str, point.center_xyz_mm))
            lines.append(f"n{number:02}-{nodule},p{number:02},{label},biopsy,{50 + number},ct{number:02}.nii,{where}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


class Model:
    """Says of a point what its CT and place make of it, with pictures."""

    def predict(self, ct: CTVolume, points: Sequence[tuple[float, float, float]]) -> list[Diagnosis]:
        told = [float(np.tanh(ct.spacing_xyz_mm[0] + sum(point) / 100.0)) for point in points]
        planes = np.zeros((3, 64, 64), np.uint8)
        return [made_diagnosis(logit=one, expert_score=3.0 + one, ct_planes=planes) for one in told]
