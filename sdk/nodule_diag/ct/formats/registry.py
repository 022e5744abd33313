"""What can be read: one line a format, which `read_ct`, its errors and the command line's help are made from."""

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
        name: What people call it.
        suffixes: Of its files, in lower case.
        module: Has a ``read(file)``. Imported when first used.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str

    def read(self, file: CTFile) -> CTVolume:
        """Read a file.

        Raises:
            CTError: When it is damaged, or no CT that can be diagnosed from.
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
"""Of single slices, which are no CT."""
PAIR_SUFFIXES = (".hdr", ".img")
"""Of Analyze and of NIfTI in two files, which are not read: either name alone says neither which of the two it is nor,
for Analyze, how the scan lies, and whoever sends one file leaves out the other."""

_DICOM = f"a DICOM folder, or a {ARCHIVE_SUFFIX} of one"
FORMAT_NAMES = ", ".join([*(form.name for form in FORMATS), _DICOM])
"""For the help of a command: what a CT may be."""
SUFFIXES = ", ".join([*(suffix for form in FORMATS for suffix in form.suffixes), _DICOM])
"""For an error: what the name of a CT may end with."""


def format_of(name: str) -> Format | None:
    """The format of a file by its name; None when there is none."""
    return next((form for form in FORMATS if name.lower().endswith(form.suffixes)), None)
