"""The headers of a volume's original slices: objects that refer to these slices must repeat their values."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from nodule_diag.ct.dicom.files import DicomFile, files_in, members_of
from nodule_diag.ct.dicom.frames import FRAME_SEPARATOR
from nodule_diag.ct.dicom_source import SliceIdentity
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import CTError

if TYPE_CHECKING:
    from pydicom import Dataset


def dicom_files(path: str | os.PathLike[str]) -> list[DicomFile]:
    """The files of a DICOM folder, or of a ``.zip`` of one.

    Raises:
        CTError: As `read_ct`.
    """
    where = Path(path)
    return files_in(where) if where.is_dir() else members_of(where)


def slice_headers(
    ct: CTVolume, slices: Iterable[SliceIdentity], *, files: Sequence[DicomFile] | None = None
) -> list[Dataset]:
    """Read the headers of some slices again, because a volume keeps no data of the patient.

    Args:
        ct: A volume that was read from DICOM, whose folder or archive is still there.
        slices: Some of ``ct.dicom.slices``.
        files: The slices' files, for a volume that was not read from a disk.

    Returns:
        One pydicom dataset per file, without pixels, in the order of ``slices``. The slices of a multi-frame file share
        one dataset.

    Raises:
        CTError: ``ct-missing-path`` or ``ct-damaged``: the files are gone, or have been replaced.
    """
    import pydicom

    found = {file.name: file for file in (dicom_files(ct.path) if files is None else files)}
    headers: dict[str, Dataset] = {}
    for identity in slices:
        name = (
            identity.file
            if identity.frame is None
            else identity.file.removesuffix(f"{FRAME_SEPARATOR}{identity.frame}")
        )
        if name in headers:
            continue
        file = found.get(name)
        if file is None:
            raise CTError(f"{ct.path} no longer holds {name}", code="ct-missing-path", hint="leave the CT in its place")
        header = pydicom.dcmread(BytesIO(file.part(0, file.size)), stop_before_pixels=True, force=True)
        if header.get("SOPInstanceUID", "") != identity.sop_uid:
            raise CTError(
                f"{name} of {ct.path} is another file than the one that was read",
                code="ct-damaged",
                hint="read the CT again",
            )
        headers[name] = header
    return list(headers.values())
