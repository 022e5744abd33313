"""Whose CT it is, for a page that is meant to say so."""

from __future__ import annotations

from collections.abc import Sequence

from nodule_diag.ct import CTVolume, DicomFile, slice_headers

LINES = {
    "Patient": "PatientName",
    "Patient number": "PatientID",
    "Born": "PatientBirthDate",
    "Sex": "PatientSex",
    "Study of": "StudyDate",
    "Accession number": "AccessionNumber",
}
"""The labels that are shown, and the CT's attribute for each."""


def identity_of(ct: CTVolume, *, files: Sequence[DicomFile] | None = None) -> dict[str, str]:
    """Read who the patient is from the CT's first slice, because a volume keeps no data of the patient.

    Args:
        ct: A CT; one that is not DICOM gives only its path.
        files: The CT's files, where they were fetched and are not in a folder.

    Returns:
        Lines for :func:`write_report`; attributes that are not in the header are left out.

    Raises:
        CTError: When the CT's files are gone.
    """
    known = {"CT": ct.path}
    if ct.dicom is None:
        return known
    (header,) = slice_headers(ct, ct.dicom.slices[:1], files=files)
    for label, keyword in LINES.items():
        text = str(header.get(keyword, "")).replace("^", " ").strip()
        if keyword.endswith("Date") and len(text) == len("20261126"):
            text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
        if text:
            known[label] = text
    return known
