"""What the reader of a diagnosis must know about this nodule, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from nodule_diag.results.segmentation import Segmentation

OFF_CENTRE_MM = 5.0
"""A nodule that begins further from the given position than this may not be the intended one: 3 mm for the smallest
nodule of the paper's range, plus 2 mm for a cell of the segmentation's grid."""

CUBE_OUTSIDE = 0.1
"""A larger share of the cube outside the CT gives a warning: a slab of 3 mm, the smallest nodule's diameter."""

OUTSIDE_LUNG = "the position is outside the lung mask"
NOTHING_SEGMENTED = "no nodule was segmented at the position: volume and diameter are 0"
NO_NODULE = "what lies at the position looks like lung without a nodule: 99 % of nodules have a higher presence"
UNLIKE_TRAINING = "the network sees here what is unlike the nodules that it was trained on: 99 % of nodules are nearer"
TOO_SPREAD = "P depends on how the patch is turned: nodules with such a spread were judged wrongly twice as often"
TOUCHES_EDGE = "the segmented nodule reaches the edge of the 32 mm cube: volume and diameter are lower bounds"


def nodule_warnings(
    in_lung: bool | None,
    segmentation: Segmentation,
    *,
    outside: float = 0.0,
    absent: bool = False,
    unlike: bool = False,
    spread: bool = False,
) -> Iterator[str]:
    """The warnings of one nodule. No warning names a patient, so all of them can be logged.

    Args:
        in_lung: Whether the position lies in the lungs; None where that was not checked.
        segmentation: SegNet's map.
        outside: Share of the cube that lies outside the CT.
        absent: Whether presence is below the bundle's threshold.
        unlike: Whether the network's features are further from those of its training than 99 % of nodules.
        spread: Whether P varies more over the symmetries than the bundle allows.
    """
    if outside > CUBE_OUTSIDE:
        yield f"the cube round the position lies {100 * outside:.0f} % outside the CT: the network saw air there"
    if in_lung is False:
        yield OUTSIDE_LUNG
    if absent:
        yield NO_NODULE
    if unlike:
        yield UNLIKE_TRAINING
    if spread:
        yield TOO_SPREAD
    offset_mm = segmentation.offset_mm
    if offset_mm is None:
        yield NOTHING_SEGMENTED
        return
    if offset_mm > OFF_CENTRE_MM:
        yield f"the nearest segmented nodule begins {offset_mm:.1f} mm from the position: it may be another structure"
    if segmentation.touches_edge:
        yield TOUCHES_EDGE
