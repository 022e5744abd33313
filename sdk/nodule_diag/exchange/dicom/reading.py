"""Recognises the DICOM object in a file, and reads its positions."""

from __future__ import annotations

from pathlib import Path

from pydicom import uid

from nodule_diag.exchange.dicom import rtstruct, seg, sr
from nodule_diag.exchange.dicom.objects import UNPARSED, damaged, parsed, text
from nodule_diag.exchange.position import PositionFile
from nodule_diag.exchange.refusals import refused
from nodule_diag.process import quiet_pydicom

REPORTS = (
    *(uid.EnhancedSRStorage, uid.ComprehensiveSRStorage, uid.Comprehensive3DSRStorage),
    *(uid.ExtensibleSRStorage, uid.ChestCADSRStorage),
)
SEGMENTATIONS = (uid.SegmentationStorage, "1.2.840.10008.5.1.4.1.1.66.7")  # binary or fractional, and label maps


def read_dicom(path: Path, data: bytes) -> PositionFile:
    """Read an SR, a SEG or an RTSTRUCT.

    Raises:
        UsageError: for another kind of object, a damaged one, or one without a position.
    """
    found = parsed(path, data)
    try:
        with quiet_pydicom():
            kind = uid.UID(text(found, "SOPClassUID"))
            if kind in REPORTS:
                form, (marks, warnings) = "a DICOM SR", sr.marks_of(found, path)
            elif kind in SEGMENTATIONS:
                form, (marks, warnings) = "a DICOM SEG", seg.marks_of(found)
            elif kind == uid.RTStructureSetStorage:
                form, (marks, warnings) = "a DICOM RTSTRUCT", rtstruct.marks_of(found)
            else:
                what = kind.name if kind.name != kind else f"an object of class {kind or '(none)'}"
                raise refused(path, [f"a DICOM {what}, not an SR, a SEG or an RTSTRUCT"])
    except UNPARSED as error:
        raise damaged(path, error) from error
    if not marks:
        raise refused(path, ["; ".join(["no position in it", *warnings])])
    return PositionFile(path, form, "lps", tuple(marks), warnings=tuple(warnings))
