"""``nodule-diag demo``: a chest that this program makes itself, through the same path as a patient's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodule_diag.process import document_text
from nodule_diag_cli import out as out_folder
from nodule_diag_cli import render, terminal
from nodule_diag_cli.evidence import Evidence
from nodule_diag_cli.options import BundleOption, JsonOption, OutOption, ReportOption
from nodule_diag_cli.points import Points
from nodule_diag_cli.predict import Request

if TYPE_CHECKING:
    from rich.table import Table

    from nodule_diag.ct import CTVolume, Phantom
    from nodule_diag.results import Diagnosis

FILE_NAME = "phantom.nii"


def demo(
    bundle: BundleOption = None, as_json: JsonOption = False, out: OutOption = None, report: ReportOption = None
) -> None:
    """Diagnose a phantom chest CT that has nodules of known position and size. Works offline, without data."""
    from nodule_diag.ct import DEFAULT_NODULES, chest_phantom

    ids = [str(number) for number in range(1, len(DEFAULT_NODULES) + 1)]
    with ExitStack() as stack:
        folder = stack.enter_context(out_folder.opened(out, ids)) if out else None
        with terminal.progress("making the phantom"):
            phantom = chest_phantom()
        ct: CTVolume | str = phantom.ct
        if folder is not None:
            write_ct(folder.work / FILE_NAME, phantom.ct)
            folder.move(FILE_NAME)
            ct = str(folder.folder / FILE_NAME)
        points = Points([nodule.center_xyz_mm for nodule in phantom.nodules])
        result = Request(ct=ct, points=points, bundle=bundle).run()
        document = result.document | {"phantom": _truth(phantom, ids)}
        if folder is not None:
            folder.write(ct=result.ct, diagnoses=result.diagnoses, document=document)
    told = Evidence(report).write(result)
    if as_json:
        terminal.write(document_text(document))
        return
    to = terminal.console()
    render.prediction(document, to=to)
    to.print()
    to.print("Known and found", style="bold")
    to.print(_comparison(phantom, result.diagnoses))
    to.print()
    to.print("The phantom's spheres are not real nodules: only their position and size can be checked.")
    for line in told:
        to.print(line)


def write_ct(path: Path, ct: CTVolume) -> Path:
    """Write a CT as NIfTI, whole or not at all."""
    import SimpleITK as sitk

    from nodule_diag.process import writing

    image = sitk.GetImageFromArray(ct.hu)
    image.SetSpacing(ct.spacing_xyz_mm)
    image.SetOrigin(ct.origin_xyz_mm)
    image.SetDirection(ct.direction.ravel().tolist())
    with writing(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary))
        except RuntimeError as error:  # ITK's word for a full disk, too
            raise OSError(str(error).strip().splitlines()[-1]) from error
    return path


def _volume_mm3(diameter_mm: float) -> float:
    return math.pi / 6 * diameter_mm**3


def _truth(phantom: Phantom, ids: list[str]) -> dict[str, Any]:
    """The ``phantom`` part of the document."""
    return {
        "nodules": [
            {
                "id": name,
                "center_xyz_lps_mm": list(nodule.center_xyz_mm),
                "diameter_mm": nodule.diameter_mm,
                "volume_mm3": _volume_mm3(nodule.diameter_mm),
                "kind": nodule.kind,
            }
            for name, nodule in zip(ids, phantom.nodules, strict=True)
        ]
    }


def _comparison(phantom: Phantom, diagnoses: Sequence[Diagnosis]) -> Table:
    """Known against found."""
    numbers = ("known mm", "found mm", "known mm3", "found mm3")
    made = render.table("nodule", "kind", *numbers, "in lung", right=numbers)
    for nodule, found in zip(phantom.nodules, diagnoses, strict=True):
        made.add_row(
            found.id,
            nodule.kind,
            f"{nodule.diameter_mm:.1f}",
            f"{found.segmentation.diameter_mm:.1f}",
            f"{_volume_mm3(nodule.diameter_mm):.0f}",
            f"{found.segmentation.volume_mm3:.0f}",
            "yes" if found.in_lung else "NO",
        )
    return made
