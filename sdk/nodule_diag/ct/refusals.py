"""The refusals that several readers share, worded once; docs/bad-input.md lists them all."""

from __future__ import annotations

from nodule_diag.errors import CTError

MAX_QUOTED = 80
"""Characters of a header's text in a message."""


def quoted(text: str) -> str:
    """A header's text for a message: without control characters, and not longer than a line."""
    return repr(text) if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]!r}..."


def damaged(path: str, why: str) -> CTError:
    """A header or voxels that must be damaged."""
    return CTError(f"{path} is damaged: {why}", code="ct-damaged", hint="export the CT again")


def undecodable(path: str, error: Exception) -> CTError:
    """Compressed data whose bits or checksum are wrong."""
    return CTError(
        f"{path} is damaged: its compressed data cannot be decoded ({error})",
        code="ct-damaged",
        hint="copy or download the file again",
    )


def truncated(path: str, why: str) -> CTError:
    """A file that ends early."""
    return CTError(f"{path} is truncated: {why}", code="ct-truncated", hint="copy or download the file again")


def other_format(path: str, name: str, why: str) -> CTError:
    """A file whose content does not match the format of its name."""
    hint = "the file is damaged or has the wrong extension"
    return CTError(f"{path} is not {name} file: {why}", code="ct-damaged", hint=hint)


def not_placed(path: str, why: str) -> CTError:
    """A scan without its place in the patient."""
    return CTError(
        f"{path} does not say how the scan lies in the patient: {why}",
        code="ct-no-orientation",
        hint="convert the CT from its DICOM series again with a tool that keeps the orientation",
    )


def not_scalar(path: str, holds: str) -> CTError:
    """Colours, vectors or complex numbers."""
    hint = "give the CT itself, one number in HU for each voxel"
    return CTError(f"{path} holds {holds}", code="ct-not-scalar", hint=hint)


def unsupported(path: str, why: str) -> CTError:
    """A way of storing voxels that the format allows but this package does not read."""
    hint = "store the CT as a binary .mha, .nrrd or .nii.gz file"
    return CTError(f"{path} cannot be read: {why}", code="ct-unsupported-format", hint=hint)
