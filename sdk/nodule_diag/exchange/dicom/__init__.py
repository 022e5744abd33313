"""Positions in DICOM objects: reports (SR), segmentations (SEG) and structure sets (RTSTRUCT), read by pydicom."""

from nodule_diag.process import import_pydicom

import_pydicom()  # before any file of this folder imports it
