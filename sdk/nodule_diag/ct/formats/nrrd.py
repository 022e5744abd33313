"""NRRD, decoded by SimpleITK after its header has been checked here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nodule_diag.ct.grid import StoredGrid
from nodule_diag.ct.hounsfield import HounsfieldArray
from nodule_diag.ct.limits import check_payload, check_size
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError
from nodule_diag.process import quiet_itk

MAX_HEADER_BYTES = 2**20

_PATIENT_SPACES = (
    "left-posterior-superior",
    "lps",
    "right-anterior-superior",
    "ras",
    "left-anterior-superior",
    "las",
)
"""The spaces ITK turns into LPS. It takes any other as if it were LPS, which would be a guess."""

_PIXEL_BYTES = {
    sitk.sitkInt8: 1,
    sitk.sitkUInt8: 1,
    sitk.sitkInt16: 2,
    sitk.sitkUInt16: 2,
    sitk.sitkInt32: 4,
    sitk.sitkUInt32: 4,
    sitk.sitkInt64: 8,
    sitk.sitkUInt64: 8,
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
    size = _sizes(fields, name)
    check_size(size, path=name)
    if fields.get("space", "").lower() not in _PATIENT_SPACES:
        raise CTError(
            f"{name} does not say how the scan lies in the patient: its space is {fields.get('space', 'not given')!r}",
            code="ct-no-orientation",
            hint="convert the CT from its DICOM series again with a tool that keeps the orientation",
        )
    missing = [field for field in ("space directions", "space origin") if field not in fields]
    if missing:
        raise CTError(
            f"{name} does not say where the scan lies: it has no {' and no '.join(missing)}",
            code="ct-no-orientation",
            hint="convert the CT from its DICOM series again with a tool that keeps the orientation",
        )
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
            raise CTError(
                f"{name} does not hold one number for each voxel",
                code="ct-not-scalar",
                hint="give the CT itself, one number in HU for each voxel",
            )
        size = [int(n) for n in reader.GetSize()]
        grid = StoredGrid.checked(
            size,
            spacing_xyz_mm=reader.GetSpacing(),
            origin_xyz_mm=reader.GetOrigin(),
            direction=np.array(reader.GetDirection()).reshape(len(size), len(size)),
            path=name,
        )
        raw = fields.get("encoding", "").lower() == "raw"
        check_payload(int(np.prod(size)) * pixel_bytes, payload_bytes, compressed=not raw, path=name)
        image = reader.Execute()
    except RuntimeError as error:
        # teem puts what went wrong in the last line of a long trace.
        reason = str(error).strip().rsplit("\n", 1)[-1].removeprefix("[nrrd] ")
        code = "ct-truncated" if "expected" in reason else "ct-damaged"
        raise CTError(
            f"{name} is truncated or damaged: {reason}", code=code, hint="copy or download the file again"
        ) from error
    canonical = grid.canonical()
    voxels = HounsfieldArray(canonical, path=name)
    # A view: valid as long as ``image`` lives, which is until the voxels have been copied.
    stored = sitk.GetArrayViewFromImage(image)
    for start in range(stored.shape[0]):
        voxels.add(start, stored[start : start + 1])
    return CTVolume.from_grid(voxels.finish(), canonical, path=name, warnings=grid.warnings())


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """The ``field: value`` lines up to the empty one, and their length in bytes."""
    fields: dict[str, str] = {}
    done = 0
    with path.open("rb") as file:
        if not file.readline(64).startswith(b"NRRD000"):
            raise CTError(
                f"{path} is not an NRRD file: it does not start with NRRD000",
                code="ct-damaged",
                hint="the file is damaged or has the wrong extension",
            )
        while done < MAX_HEADER_BYTES and (line := file.readline(MAX_HEADER_BYTES)):
            done = file.tell()
            text = line.decode("utf-8", "replace").strip()
            if not text:
                return fields, done
            field, colon, value = text.partition(":")
            if colon and not text.startswith("#") and not value.startswith("="):
                fields[field.strip().lower()] = value.strip()
    raise CTError(
        f"{path} is truncated: its header does not end", code="ct-truncated", hint="copy or download the file again"
    )


def _sizes(fields: dict[str, str], path: str) -> list[int]:
    try:
        return [int(word) for word in fields.get("sizes", "").split()]
    except ValueError:
        raise CTError(
            f"{path} is damaged: its sizes are {fields['sizes']!r}", code="ct-damaged", hint="export the CT again"
        ) from None
