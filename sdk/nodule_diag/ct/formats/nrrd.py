"""NRRD, decoded by SimpleITK after its header has been checked here."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodule_diag.ct.limits import check_payload, check_size
from nodule_diag.ct.refusals import damaged, not_placed, not_scalar, other_format, truncated
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError
from nodule_diag.process import quiet_itk

MAX_HEADER_BYTES = 2**20

_PATIENT_SPACES = (
    *("left-posterior-superior", "lps"),
    *("right-anterior-superior", "ras"),
    *("left-anterior-superior", "las"),
)
"""The spaces ITK turns into LPS. It takes any other as if it were LPS, which would be a guess."""

_PIXEL_BYTES = {
    **{getattr(sitk, f"sitk{sign}Int{bits}"): bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64)},
    sitk.sitkFloat32: 4,
    sitk.sitkFloat64: 8,
}


def read(path: Path) -> CTVolume:
    """Read an NRRD file.

    Args:
        path: The file, with its data in it.

    Raises:
        CTError: When it is damaged, or no CT that can be diagnosed from.
    """
    name = str(path)
    fields, header_bytes = _read_header(path)
    if "data file" in fields or "datafile" in fields:
        raise CTError(
            f"{name} takes its voxels from another file",
            code="ct-detached-data",
            hint="store the CT as one .nrrd or .nii.gz file",
        )
    try:
        size = [int(word) for word in fields.get("sizes", "").split()]
    except ValueError:
        raise damaged(name, f"its sizes are {fields['sizes']!r}") from None
    check_size(size, path=name)
    if fields.get("space", "").lower() not in _PATIENT_SPACES:
        raise not_placed(name, f"its space is {fields.get('space', 'not given')!r}")
    missing = [field for field in ("space directions", "space origin") if field not in fields]
    if missing:
        raise not_placed(name, f"it has no {' and no '.join(missing)}")
    with quiet_itk():
        return _read_voxels(path, fields, path.stat().st_size - header_bytes)


def _read_voxels(path: Path, fields: dict[str, str], payload_bytes: int) -> CTVolume:
    """Let ITK decode, after the sizes have been found plausible."""
    name = str(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
        pixel_bytes = _PIXEL_BYTES.get(reader.GetPixelIDValue())
        if pixel_bytes is None or reader.GetNumberOfComponents() != 1:
            raise not_scalar(name, "more or other than one number for each voxel")
        check_size(reader.GetSize(), path=name)
        raw = fields.get("encoding", "").lower() == "raw"
        check_payload(prod(reader.GetSize()) * pixel_bytes, payload_bytes, compressed=not raw, path=name)
        image = reader.Execute()
    except RuntimeError as error:
        # teem puts what went wrong in the last line of a long trace.
        reason = str(error).strip().rsplit("\n", 1)[-1].removeprefix("[nrrd] ")
        code = "ct-truncated" if "expected" in reason else "ct-damaged"
        raise CTError(
            f"{name} is truncated or damaged: {reason}", code=code, hint="copy or download the file again"
        ) from error
    return CTVolume.from_array(
        sitk.GetArrayViewFromImage(image),  # valid as long as ``image`` lives
        spacing_zyx_mm=image.GetSpacing()[::-1],
        origin_xyz_mm=image.GetOrigin(),
        direction=np.reshape(image.GetDirection(), (3, 3)),
        path=name,
    )


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """The ``field: value`` lines up to the empty one, and their length in bytes."""
    fields: dict[str, str] = {}
    done = 0
    with path.open("rb") as file:
        if not file.readline(64).startswith(b"NRRD000"):
            raise other_format(str(path), "an NRRD", "it does not start with NRRD000")
        while done < MAX_HEADER_BYTES and (line := file.readline(MAX_HEADER_BYTES)):
            done = file.tell()
            text = line.decode("utf-8", "replace").strip()
            if not text:
                return fields, done
            field, colon, value = text.partition(":")
            if colon and not text.startswith("#") and not value.startswith("="):
                fields[field.strip().lower()] = value.strip()
    raise truncated(str(path), "its header does not end")
