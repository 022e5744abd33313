"""Slope, intercept and bits may differ between slices if the HU agree: this module compares the HU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from nodule_diag.ct.dicom.headers import SliceHeader
from nodule_diag.ct.dicom.rules import Series

Plane = npt.NDArray[Any]

TISSUE_HU = -300
"""Soft tissue and bone lie above, lung and air below."""

AGREEING_HU = 30
"""Largest median difference of the tissue of two neighbours whose slope or intercept differs. In two chest CTs this
difference was at most 15 HU between slices of up to 10 mm distance; a slope of 1.03 changes the tissue by 30 HU."""

ENOUGH_PIXELS = 16
"""With fewer pixels of tissue there is no comparison: the slice lies beyond the body."""

SAMPLES = 128
"""Approximate number of compared pixels along each side of a slice."""


def in_one_unit(series: Series, planes: Iterator[Plane]) -> Iterator[Plane]:
    """Pass slices on, comparing neighbours with different slope, intercept or bits.

    Args:
        series: The series, in the order of the slices.
        planes: (rows, columns) HU of each.

    Raises:
        CTError: ``ct-inconsistent-slices``, naming the slice with the less common slope, intercept and bits.
    """
    scales = [_scale(header) for header in series.slices]
    common = Counter(scales)
    if len(common) == 1:
        yield from planes
        return
    before: Plane | None = None
    for number, plane in enumerate(planes):
        step = max(1, min(plane.shape) // SAMPLES)
        sample = plane[::step, ::step].astype(np.float64)
        if before is not None and scales[number] != scales[number - 1]:
            tissue = (sample > TISSUE_HU) | (before > TISSUE_HU)
            apart = float(np.median((sample - before)[tissue])) if tissue.sum() >= ENOUGH_PIXELS else 0.0
            if abs(apart) > AGREEING_HU:
                odd, other = sorted((number, number - 1), key=lambda i: common[scales[i]])
                why = (
                    f"has {scales[odd]} against {scales[other]} in its neighbour {series.slices[other].file.name},"
                    f" whose tissue is {abs(apart):.0f} HU away: they do not belong together"
                )
                hint = "the header is damaged; export the series again"
                raise series.refused(series.slices[odd], why, code="ct-inconsistent-slices", hint=hint)
        before = sample
        yield plane


def _scale(header: SliceHeader) -> str:
    """The conversion of a slice's stored values to HU, in words."""
    bits = f"bits {header.high_bit - header.bits_stored + 1} to {header.high_bit}"
    return (
        f"slope {header.slope:g}, intercept {header.intercept:g} and {'signed ' if header.representation else ''}{bits}"
    )
