"""DICOM series: which files, which series, how its slices stack into a volume."""
