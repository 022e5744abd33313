"""Patches that no network here was trained on: made up, or from places of a CT outside the lungs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nodule_diag.ct import CTVolume, chest_phantom, lps_from_index, read_ct
from nodule_diag.preprocessing import PATCH_SIZE, extract_patches, lung_mask, window_channels

Float = NDArray[np.float32]
SHAPE = (PATCH_SIZE,) * 3
CONSTANTS_HU = (-1000.0, -850.0, 40.0, 1000.0)
"""Air, lung, soft tissue, compact bone."""
MADE_UP = 4
"""Patches of each kind."""
PLACES = 4
"""Positions of each kind in a CT."""
BONE_HU = 250.0
SOFT_HU = (-20.0, 120.0)
BLOCK = 5
"""Edge in voxels of the block whose mean shows what lies at a place."""
BELOW_LUNGS_MM = 15.0
"""Below the lowest slice of lung by this distance, there is belly."""


def _of_hu(hu: NDArray[np.floating]) -> Float:
    return np.asarray(window_channels(hu.astype(np.float32)), dtype=np.float32)


def _smooth(rng: np.random.Generator, sigma: float) -> NDArray[np.float64]:
    """A random field of standard deviation 1."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.normal(size=SHAPE), sigma)
    return np.asarray(field / field.std())


def noise(seed: int) -> Float:
    """[2, 64, 64, 64]: every voxel with a random HU, from air to bone."""
    return _of_hu(np.random.default_rng(seed).uniform(-1200.0, 600.0, SHAPE))


def constant(seed: int) -> Float:
    """One HU everywhere: air, lung, soft tissue or bone."""
    return _of_hu(np.full(SHAPE, CONSTANTS_HU[seed % len(CONSTANTS_HU)]))


def bowel(seed: int) -> Float:
    """Loops with gas, fluid and a wall, in fat."""
    rng = np.random.default_rng(seed)
    field = _smooth(rng, 6.0)
    hu = np.select([field > 0.8, field > 0.2, field > 0.0], [-950.0, 20.0, 45.0], -100.0)
    return _of_hu(hu + rng.normal(0.0, 15.0, SHAPE))


def bone(seed: int) -> Float:
    """A shaft of compact bone round spongy bone, in muscle."""
    rng = np.random.default_rng(seed)
    axis = np.arange(PATCH_SIZE) - (PATCH_SIZE - 1) / 2
    radius = np.sqrt(axis[:, None] ** 2 + axis**2)[None]
    outer = rng.uniform(14.0, 26.0)
    hu = np.where(radius < outer, np.where(radius > outer - 5.0, 900.0, 250.0 + 150.0 * _smooth(rng, 1.5)), 50.0)
    return _of_hu(np.broadcast_to(hu, SHAPE) + rng.normal(0.0, 20.0, SHAPE))


MAKERS: Mapping[str, Callable[[int], Float]] = MappingProxyType(
    {"noise": noise, "one HU everywhere": constant, "bowel-like": bowel, "bone-like": bone}
)


def made_up() -> Iterator[tuple[str, Float]]:
    """Every kind of patch by name, several times, the same in every run."""
    for name, make in MAKERS.items():
        for seed in range(MADE_UP):
            yield name, make(seed)


def phantom() -> Iterator[tuple[str, Float]]:
    """The nodules of the demonstration's phantom."""
    made = chest_phantom()
    centres = [nodule.center_xyz_mm for nodule in made.nodules]
    for patch in extract_patches(made.ct, centres):
        yield "the demonstration's phantom", patch


def places(file: Path, *, seed: int = 0) -> Iterator[tuple[str, Float]]:
    """Bone, belly and the air round the patient, at random positions of a CT; nothing where there is no such file."""
    if not file.is_file():
        return
    ct = read_ct(file)
    for name, points in _positions(ct, seed).items():
        for point in points:
            yield name, extract_patches(ct, [point])[0]


def _positions(ct: CTVolume, seed: int) -> dict[str, NDArray[np.float64]]:
    from scipy.ndimage import uniform_filter

    mean = uniform_filter(ct.hu.astype(np.float32), BLOCK)
    lungs = lung_mask(ct).to_array()
    depth = np.arange(len(mean))[:, None, None]
    lowest = int(np.flatnonzero(lungs.any(axis=(1, 2)))[0])
    below = depth < lowest + round(BELOW_LUNGS_MM / ct.spacing_zyx_mm[0])
    soft = (mean > SOFT_HU[0]) & (mean < SOFT_HU[1])
    kinds = {"bone of a CT": mean > BONE_HU, "belly of a CT": soft & below, "air round the patient": mean < -950.0}
    kinds["air round the patient"] &= ~lungs
    rng = np.random.default_rng(seed)
    found = {}
    for name, there in kinds.items():
        voxels = np.argwhere(there)
        chosen = voxels[rng.permutation(len(voxels))[:PLACES]]
        found[name] = lps_from_index(ct, chosen[:, ::-1].astype(np.float64))
    return found
