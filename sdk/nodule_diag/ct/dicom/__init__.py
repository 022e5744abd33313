"""DICOM series: which files, which series, how its slices stack into a volume."""

from nodule_diag.process import import_pydicom

import_pydicom()  # before any file of this folder imports it
