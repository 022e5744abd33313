"""Test-time symmetry: the network sees a patch under several of the cube's 48 symmetries, and the answers are averaged.

Training draws from the same group (flips, 90-degree rotations and axis permutations, paper 4.2), so every view is
equally familiar to the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends.backend import Backend, Outputs
from nodule_diag.errors import UsageError

Float = NDArray[np.float32]
VIEWS = (1, 8, 48)
"""The allowed numbers of views: the patch alone, its flips, or every symmetry of the cube."""
FLAT_CAM = 1e-8
"""A map whose range is below this is flat and becomes 0, as in the network."""


@dataclass(frozen=True)
class Symmetry:
    """An order of the axes zyx, and which of them are then flipped."""

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: Float) -> Float:
        """A view of ``array`` with its last three axes turned."""
        return self._flipped(_reordered(array, self.order))

    def undo(self, array: Float) -> Float:
        """The inverse of :meth:`apply`."""
        return _reordered(self._flipped(array), np.argsort(self.order))

    def _flipped(self, array: Float) -> Float:
        return array[(..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flips))]


def _reordered(array: Float, order: Iterable[int]) -> Float:
    lead = array.ndim - 3
    return array.transpose(*range(lead), *(lead + axis for axis in order))


SYMMETRIES = tuple(
    Symmetry((i, j, k), (z, y, x)) for i, j, k in permutations(range(3)) for z, y, x in product((False, True), repeat=3)
)
"""All 48, the identity first, then the other flips."""


def require_views(views: int) -> int:
    """``views``, if this number is allowed.

    Raises:
        UsageError: If not.
    """
    if views not in VIEWS:
        raise UsageError(f"symmetries is {views}", hint=f"give {', '.join(map(str, VIEWS[:-1]))} or {VIEWS[-1]}")
    return views


class SymmetricBackend:
    """A backend that runs another backend on several views of every patch.

    S (eq. 4), features, segmentation and expert score are the means over the views, and P is the sigmoid of the mean
    S. A view whose class differs from the class of the mean S shows the other class's CAM_c. Eq. 6 only changes the
    map's sign, so the complement of this map is used. The mean map is min-max normalised again. The spread is the
    standard deviation of the views' own P.
    """

    def __init__(self, backend: Backend, *, views: int) -> None:
        self._backend = backend
        self._symmetries = SYMMETRIES[: require_views(views)]
        self.name = backend.name
        self.device = backend.device
        self.precision = backend.precision
        self.threads = backend.threads
        self.batch = backend.batch

    def infer(self, patches: Float) -> Outputs:
        """Run the network on every view of (N, 2, 64, 64, 64) patches."""
        seen = [self._backend.infer(np.ascontiguousarray(view.apply(patches))) for view in self._symmetries]
        every = {name: [getattr(each, name) for each in seen] for name in vars(seen[0])}
        logit = np.asarray(np.mean(every["logit"], axis=0, dtype=np.float64))
        cams = [
            np.where(((each.logit >= 0.0) == (logit >= 0.0))[:, None, None, None], each.cam, 1.0 - each.cam)
            for each in seen
        ]
        return Outputs(
            malignancy=np.asarray(1.0 / (1.0 + np.exp(-logit)), dtype=np.float32),
            logit=np.asarray(logit, dtype=np.float32),
            expert_score=np.asarray(np.mean(every["expert_score"], axis=0), dtype=np.float32),
            segmentation=self._mean(every["segmentation"]),
            cam=_normalised(self._mean(cams)),
            raw_cam=None if seen[0].raw_cam is None else self._mean(every["raw_cam"]),
            features=None if seen[0].features is None else np.asarray(np.mean(every["features"], axis=0)),
            view_logits=np.stack(every["logit"], axis=1),
            malignancy_spread=np.asarray(np.std(every["malignancy"], axis=0, dtype=np.float64), dtype=np.float32),
        )

    def _mean(self, maps: Sequence[Float]) -> Float:
        """The mean of the views' maps, each turned back."""
        turned = [view.undo(each) for view, each in zip(self._symmetries, maps, strict=True)]
        return np.asarray(np.mean(turned, axis=0, dtype=np.float32))


def _normalised(maps: Float) -> Float:
    """Min-max over each map's cells."""
    low = maps.min(axis=(1, 2, 3), keepdims=True)
    span = maps.max(axis=(1, 2, 3), keepdims=True) - low
    return np.asarray((maps - low) / np.maximum(span, FLAT_CAM), dtype=np.float32)
