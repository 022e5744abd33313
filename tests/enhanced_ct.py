"""Enhanced CT made of classic slices, one file or several: by the standard, with no code of a library."""

from __future__ import annotations

from itertools import pairwise

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

import ct_files as make


def group(**values) -> Sequence:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return Sequence([item])


def enhanced(slices, *, shared=("PixelMeasuresSequence", "PlaneOrientationSequence"), **contents) -> Dataset:
    """An Enhanced CT of classic slices, by the standard's functional groups (PS3.3, A.38); no code of a library.

    Args:
        slices: Classic.
        shared: Which groups all frames share.
        contents: For FrameContentSequence: a value for each frame.
    """
    first = slices[0]
    item = Dataset()
    for element in first:
        if element.keyword not in _PER_SLICE:
            item.add(element)
    item.SOPClassUID, item.SOPInstanceUID = uid.EnhancedCTImageStorage, f"{first.SeriesInstanceUID}.1000"
    item.NumberOfFrames = len(slices)
    groups = []
    for number, one in enumerate(slices):
        own = Dataset()
        frame = {name: values[number] for name, values in contents.items()}
        own.FrameContentSequence = group(DimensionIndexValues=[number + 1], **frame)
        own.PlanePositionSequence = group(ImagePositionPatient=one.ImagePositionPatient)
        own.PlaneOrientationSequence = group(ImageOrientationPatient=one.ImageOrientationPatient)
        own.PixelMeasuresSequence = group(PixelSpacing=one.PixelSpacing, SliceThickness=one.SliceThickness)
        own.PixelValueTransformationSequence = group(
            RescaleSlope=one.RescaleSlope, RescaleIntercept=one.RescaleIntercept, RescaleType="HU"
        )
        own.CTImageFrameTypeSequence = group(FrameType=one.get("ImageType", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]))
        own.CTReconstructionSequence = group(ConvolutionKernel=one.get("ConvolutionKernel", "B31f"))
        groups.append(own)
    common = Dataset()
    for name in shared:
        setattr(common, name, groups[0][name].value)
        for own in groups:
            delattr(own, name)
    item.SharedFunctionalGroupsSequence = Sequence([common])
    item.PerFrameFunctionalGroupsSequence = Sequence(groups)
    item.PixelData = b"".join(one.PixelData for one in slices)
    return item


_PER_SLICE = {
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope"),
    *("RescaleIntercept", "InstanceNumber", "PixelData", "ConvolutionKernel", "AcquisitionNumber", "ImageType"),
}


def two_acquisitions(first, second) -> Dataset:
    """An Enhanced CT whose frames are of two scans by turns."""
    frames = [one for both in zip(first, second, strict=True) for one in both]
    return enhanced(frames, FrameAcquisitionNumber=[1, 2] * len(first))


def concatenation(slices, *cuts: int) -> list[Dataset]:
    """An Enhanced CT in several files (PS3.3 C.7.6.16.2.2.4), cut before these slices."""
    parts = []
    edges = [0, *cuts, len(slices)]
    for number, (start, end) in enumerate(pairwise(edges), start=1):
        item = enhanced(slices[start:end])
        item.SOPInstanceUID += f".{number - 1}"
        item.ConcatenationUID, item.InConcatenationNumber = f"{make.UID_ROOT}.50", number
        item.InConcatenationTotalNumber = len(edges) - 1
        parts.append(item)
    return parts
