"""Positions in DICOM objects: reports (SR), segmentations (SEG) and structure sets (RTSTRUCT), read by pydicom."""
