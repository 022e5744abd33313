"""The readable formats, one line each; `read_ct`, its errors and the command line's help use this list."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nodule_diag.ct.formats.ct_file import CTFile
    from nodule_diag.ct.volume import CTVolume


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: Its usual name.
        suffixes: The suffixes of its files, in lower case.
        module: The module with ``read(file)``. Imported when first used.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str

    def read(self, file: CTFile) -> CTVolume:
        """Read a file.

        Raises:
            CTError: When it is damaged, or is not a CT that can be used for a diagnosis.
        """
        volume: CTVolume = import_module(self.module).read(file)
        return volume


FORMATS = (
    Format("NIfTI", (".nii", ".nii.gz"), "nodule_diag.ct.formats.nifti"),
    Format("MetaImage", (".mha", ".mhd"), "nodule_diag.ct.formats.metaimage"),
    Format("NRRD", (".nrrd", ".nhdr"), "nodule_diag.ct.formats.nrrd"),
)
ARCHIVE_SUFFIX = ".zip"
DICOM_FILE_SUFFIXES = (".dcm", ".dicom", ".ima")
"""Suffixes of single slices, which are not a CT."""
PAIR_SUFFIXES = (".hdr", ".img")
"""Suffixes of Analyze and of NIfTI in two files, which are not read: one name alone does not show which format it is,
Analyze does not store the orientation, and a user who sends one file forgets the other."""

_DICOM = f"a DICOM folder, or a {ARCHIVE_SUFFIX} of one"
FORMAT_NAMES = ", ".join([*(form.name for form in FORMATS), _DICOM])
"""The formats of a CT, for the help of a command."""
SUFFIXES = ", ".join([*(suffix for form in FORMATS for suffix in form.suffixes), _DICOM])
"""The suffixes of a CT's name, for an error."""


def format_of(name: str) -> Format | None:
    """The format of a file by its name; None when there is none."""
    return next((form for form in FORMATS if name.lower().endswith(form.suffixes)), None)
