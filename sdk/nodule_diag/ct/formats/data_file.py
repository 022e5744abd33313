"""The file that a header names as the place of its voxels: one, in the header's own folder."""

from __future__ import annotations

from pathlib import Path

from nodule_diag.ct.refusals import quoted
from nodule_diag.errors import CTError


def data_file(header: Path, name: str) -> Path:
    """Where the voxels of a detached header lie.

    A header is text that anyone can write, so its words may not lead out of its folder. What lies in the folder was put
    there by someone who could have put the voxels there: a link is followed, wherever it points.

    Args:
        header: The header's own path.
        name: The file as the header names it.

    Raises:
        CTError: ``ct-detached-data`` or ``ct-missing-data-file``.
    """
    named = Path(name)
    # MetaImage and NRRD also know lists of files and patterns such as ct%03d.raw, one file a slice: nothing in them
    # tells whether a slice is missing, or another CT's, so they are refused as a folder of pictures would be.
    several = name.split(maxsplit=1)[:1] == ["LIST"] or "%" in name
    if several or not name or "\0" in name or named.is_absolute() or named.drive or ".." in named.parts:
        raise CTError(
            f"{header} takes its voxels from {quoted(name)}, which is not one file in its own folder",
            code="ct-detached-data",
            hint="store the CT as one .mha, .nrrd or .nii.gz file",
        )
    data = header.parent / named
    if not data.is_file():
        raise CTError(
            f"{header} takes its voxels from {quoted(name)}, which does not exist",
            code="ct-missing-data-file",
            hint=f"keep the {header.suffix} and its data file together",
        )
    return data
