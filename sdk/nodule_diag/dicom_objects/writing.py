"""Makes and writes all DICOM objects of a prediction."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from nodule_diag.ct import CTVolume, DicomFile
from nodule_diag.errors import MissingExtraError, OutputError
from nodule_diag.process import import_pydicom, sweep_dead, write_bytes
from nodule_diag.results import Prediction

if TYPE_CHECKING:
    from pydicom import Dataset


OURS = re.compile(r"(?:measurements|segmentation|cam_\d+|pictures_\d+)\.dcm")
"""Names of the files."""


def dicom_objects(
    ct: CTVolume, prediction: Prediction, *, files: Sequence[DicomFile] | None = None
) -> dict[str, Dataset]:
    """Make the DICOM objects of a prediction.

    Args:
        ct: The CT, read from DICOM files that are still in their place.
        prediction: The result of :meth:`Diagnoser.predict_timed` for this CT.
        files: The CT's files, where they were fetched and are not in a folder.

    Returns:
        By file name: ``measurements.dcm`` (Comprehensive 3D SR, TID 1500), ``segmentation.dcm`` (one segment per
        nodule, on the CT's frames; left out where nothing was segmented), and per nodule ``cam_1.dcm`` (parametric map)
        and ``pictures_1.dcm`` (secondary capture).

    Raises:
        UsageError: ``not-dicom`` for a CT that is not DICOM.
        MissingExtraError: Without the extra ``dicom``.
        CTError: When the CT's files are gone.
    """
    import_pydicom()
    try:
        import highdicom  # noqa: F401  needed below; fail early where it is missing
    except ImportError as error:
        raise MissingExtraError("highdicom", "dicom") from error
    from nodule_diag.dicom_objects.maker import Maker
    from nodule_diag.dicom_objects.maps import parametric_map, secondary_capture
    from nodule_diag.dicom_objects.report import structured_report
    from nodule_diag.dicom_objects.segmentation import segmentation
    from nodule_diag.dicom_objects.source import source_of

    diagnoses = prediction.diagnoses
    source = source_of(ct, diagnoses, files=files)
    maker = Maker(prediction, source.headers[0].SeriesInstanceUID)
    objects: dict[str, Dataset] = {"measurements.dcm": structured_report(source, diagnoses, by=maker)}
    if (segments := segmentation(source, diagnoses, by=maker)) is not None:
        objects["segmentation.dcm"] = segments
    for number, diagnosis in enumerate(diagnoses, start=1):
        objects[f"cam_{number}.dcm"] = parametric_map(source, diagnosis, number=number, by=maker)
        objects[f"pictures_{number}.dcm"] = secondary_capture(source, diagnosis, number=number, by=maker)
    return objects


def write_dicom_objects(folder: str | os.PathLike[str], ct: CTVolume, prediction: Prediction) -> list[Path]:
    """Write the objects of a prediction, each whole or not at all.

    Args:
        folder: The folder to write to; made where it is missing.
        ct: As :func:`dicom_objects`.
        prediction: Likewise.

    Returns:
        The files.

    Raises:
        OutputError: When an object cannot be written.
        UsageError: As :func:`dicom_objects`, which also raises the other errors.
    """
    return save_dicom_objects(folder, dicom_objects(ct, prediction))


def save_dicom_objects(folder: str | os.PathLike[str], objects: Mapping[str, Dataset]) -> list[Path]:
    """Write finished objects, each whole or not at all. The measurements come last: with them, all objects are there.

    Args:
        folder: The folder to write to; made where it is missing.
        objects: The result of :func:`dicom_objects`.

    Returns:
        The files.

    Raises:
        OutputError: When an object cannot be written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}", hint="name another folder") from error
    if old := sorted(path.name for path in Path(folder).iterdir() if OURS.fullmatch(path.name)):
        raise OutputError(
            f"{folder} holds objects of another run, such as {old[0]}: those of two patients must not lie together",
            hint="name an empty folder",
        )
    files = {}
    for name, made in objects.items():
        buffer = BytesIO()
        made.save_as(buffer, enforce_file_format=True)
        files[Path(folder, name)] = buffer.getvalue()
    sweep_dead(Path(folder))
    with ExitStack() as undo:
        for path, data in reversed(files.items()):
            undo.callback(path.unlink, missing_ok=True)
            write_bytes(path, data)
        undo.pop_all()
    return list(files)
