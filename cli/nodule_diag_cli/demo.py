"""``nodule-diag demo``: a chest that this program makes itself, through the same path as a patient's."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodule_diag_cli import out as out_folder
from nodule_diag_cli import render
from nodule_diag_cli.options import BundleOption, JsonOption, OutOption
from nodule_diag_cli.points import Points
from nodule_diag_cli.predict import Request

if TYPE_CHECKING:
    from rich.table import Table

    from nodule_diag.ct import CTVolume, Phantom
    from nodule_diag.results import Diagnosis

FILE_NAME = "phantom.nii"


def demo(bundle: BundleOption = None, as_json: JsonOption = False, out: OutOption = None) -> None:
    """Make a phantom chest CT with nodules of known place and size, and diagnose it. Works offline, without data."""
    from nodule_diag.ct import DEFAULT_NODULES, chest_phantom

    ids = [str(number) for number in range(1, len(DEFAULT_NODULES) + 1)]
    stems = out_folder.prepare(out, ids) if out is not None else None
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nodule-diag-demo-")))
        with render.progress("making a chest"):
            phantom = chest_phantom()
            path = write_ct(folder / FILE_NAME, phantom.ct)
        points = Points([nodule.center_xyz_mm for nodule in phantom.nodules])
        result = Request(ct=str(path), points=points, bundle=bundle).run()
        document = result.document | {"phantom": _truth(phantom, ids)}
        if out is not None and stems is not None:
            out_folder.write(out, stems, ct=result.ct, diagnoses=result.diagnoses, document=document)
    if as_json:
        sys.stdout.write(out_folder.document_text(document))
        return
    to = render.console()
    render.prediction(document, to=to)
    to.print("\nKnown and found", style="bold")
    to.print(_comparison(phantom, result.diagnoses))
    to.print("\nA phantom's spheres are no patient's nodules: only place and size can be right or wrong here.")


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
