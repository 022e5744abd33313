"""The folder of ``--out``: the JSON document, and per nodule a CAM and a segmentation that lie on the CT."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nodule_diag.errors import OutputError, UsageError

if TYPE_CHECKING:
    from nodule_diag.ct import CTVolume
    from nodule_diag.results import Diagnosis

MAX_STEM = 80  # characters of an id in a file name; file systems allow 255 bytes for the whole of it
_UNSAFE = re.compile(r"[^\w.-]", re.ASCII)


def file_stem(nodule_id: str) -> str:
    """The part of a file name that stands for an id: letters, digits, ``_ . -``, never a path."""
    return _UNSAFE.sub("_", nodule_id).strip(".")[:MAX_STEM] or "_"


def prepare(folder: Path, nodule_ids: Sequence[str]) -> dict[str, str]:
    """Make the folder and choose the file names, before any work is done.

    Returns:
        The stem of the file names of each id.

    Raises:
        OutputError: the folder cannot be made, or is a file.
        UsageError: two ids would share a file.
    """
    stems = {nodule_id: file_stem(nodule_id) for nodule_id in nodule_ids}
    taken: dict[str, str] = {}
    for nodule_id, stem in stems.items():
        # Some file systems do not tell upper from lower case.
        other = taken.setdefault(stem.casefold(), nodule_id)
        if other != nodule_id:
            raise UsageError(
                f"the nodule ids {other!r} and {nodule_id!r} would both be written as {stem!r}",
                hint="give them ids that differ in letters or digits",
            )
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", hint="name a folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}", hint="name another --out") from error
    return stems


def document_text(document: object) -> str:
    """The one way a document is written: ASCII, which no terminal can spoil, and no NaN, which is no JSON."""
    return json.dumps(document, allow_nan=False, indent=2) + "\n"


def write(
    folder: Path, stems: dict[str, str], *, ct: CTVolume, diagnoses: Sequence[Diagnosis], document: object
) -> list[Path]:
    """Write everything, each file whole or not at all; ``prediction.json`` last, so that it stands for all of them.

    Returns:
        The files.

    Raises:
        OutputError: one cannot be written, as when the disk is full.
    """
    from nodule_diag.process import write_bytes
    from nodule_diag.results import write_cam, write_segmentation

    summary = folder / "prediction.json"
    try:
        summary.unlink(missing_ok=True)  # an earlier run's would stand for maps that are not its own
    except OSError as error:
        raise OutputError(f"{summary} cannot be replaced: {error.strerror}", hint="give another folder") from error
    written: list[Path] = []
    for diagnosis in diagnoses:
        cam, segmentation = (folder / f"{kind}_{stems[diagnosis.id]}.nii.gz" for kind in ("cam", "segmentation"))
        write_cam(cam, ct, diagnosis.cam)
        write_segmentation(segmentation, ct, diagnosis.segmentation)
        written += [cam, segmentation]
    write_bytes(summary, document_text(document).encode())
    return [*written, summary]
