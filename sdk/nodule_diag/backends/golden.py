"""Golden answers: the fp32 network's answers for a few made-up nodules, written into the bundle by its maker.

On another machine golden answers reveal a runtime that computes wrongly, the reference included. The nodules are not
stored, as a patch has 2 MB. Eight patches are made from their seeds with additions, products, quotients and square
roots only, which IEEE 754 rounds identically everywhere. A SHA-256 in the manifest reveals patches that differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nodule_diag.backends.backend import Outputs
from nodule_diag.bundle import FEATURES, Bundle, Golden
from nodule_diag.errors import BundleError
from nodule_diag.preprocessing import GRID_SIZE, LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU, PATCH_SIZE

GOLDEN_FILE = "golden.f32"
LUNG_HU, NODULE_HU, WALL_HU, NOISE_HU = (-900.0, -780.0), (-120.0, 90.0), 40.0, 60.0
RADIUS_VOXELS = (4.0, 22.0)
"""Nodules of 4 to 22 mm."""
WALL_VOXELS = (14.0, 60.0)
"""Distance from the nodule's centre to the chest wall; beyond 32 there is no wall in the patch."""
_NUMBERS = ("malignancy", "logit", "expert_score")
_MAPS = ("segmentation", "cam")
_MAP_SHAPE = (GRID_SIZE, GRID_SIZE, GRID_SIZE)
_ROW = len(_NUMBERS) + len(_MAPS) * GRID_SIZE**3
"""float32 numbers of a patch's answers in the file, without the features, which some networks give."""


def golden_patches(seeds: Sequence[int]) -> NDArray[np.float32]:
    """(N, 2, 64, 64, 64) float32 in [0, 1]: one nodule per seed, the same to the bit on every machine."""
    return np.stack([_patch(seed) for seed in seeds])


def _patch(seed: int) -> NDArray[np.float32]:
    """A ball in noisy lung, beside a chest wall."""
    radius, nodule, lung, wall, *offset = _uniform(seed, 0, 7)
    side = int(seed) % 3
    axis = np.arange(PATCH_SIZE) - (PATCH_SIZE - 1) / 2
    z, y, x = (axis - 4.0 * (shift - 0.5) for shift in offset)
    distance = np.sqrt(z[:, None, None] * z[:, None, None] + y[None, :, None] * y[None, :, None] + x * x)
    inside = np.clip(_between(RADIUS_VOXELS, radius) - distance + 0.5, 0.0, 1.0)
    noise = NOISE_HU * (_uniform(seed, 1, PATCH_SIZE**3).reshape((PATCH_SIZE,) * 3) - 0.5)
    hu = _between(LUNG_HU, lung) + noise
    beyond = np.moveaxis(np.broadcast_to(axis > _between(WALL_VOXELS, wall), hu.shape), 2, side)
    hu = np.where(beyond, WALL_HU + noise, hu)
    hu = hu + inside * (_between(NODULE_HU, nodule) + noise - hu)
    windows = [np.clip((hu - low) / (high - low), 0.0, 1.0) for low, high in (LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU)]
    return np.stack(windows).astype(np.float32)


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + share * (limits[1] - limits[0])


def _uniform(seed: int, stream: int, count: int) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1) by SplitMix64 (Steele, Lea and Flood, 2014); numpy's may change between versions."""
    z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64((seed << 32) + (stream << 24))) * np.uint64(
        0x9E3779B97F4A7C15
    )
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def golden_of(seeds: Sequence[int], patches: NDArray[np.float32]) -> Golden:
    """The manifest's entry for golden answers."""
    return Golden(file=GOLDEN_FILE, seeds=tuple(seeds), patches_sha256=_digest(patches))


def golden_bytes(answers: Outputs) -> bytes:
    """The file: for each patch P, S, the expert score, segmentation, CAM, features if any, little-endian float32."""
    names = [name for name in (*_NUMBERS, *_MAPS, "features") if getattr(answers, name) is not None]
    columns = [getattr(answers, name).reshape(len(answers.logit), -1) for name in names]
    return np.concatenate(columns, axis=1).astype("<f4").tobytes()


def read_golden(bundle: Bundle) -> tuple[NDArray[np.float32], Outputs] | None:
    """Golden patches, (N, 2, 64, 64, 64) float32, and the answers to them; None where the bundle has none.

    Raises:
        BundleError: ``bundle-golden`` when the file has a wrong size or a number that is not finite, or when this
            version makes different patches from the seeds.
    """
    golden = bundle.manifest.golden
    if golden is None:
        return None
    patches, data = golden_patches(golden.seeds), bundle.read(golden.file)
    if _digest(patches) != golden.patches_sha256:
        raise _refused("this version of nodule-diag, or this CPU, makes other patches of their seeds")
    row = _ROW + (0 if bundle.manifest.model.outputs.features is None else FEATURES)
    if len(data) != 4 * row * len(patches):
        raise _refused(f"{golden.file} has {len(data)} bytes; {4 * row * len(patches)} are {len(patches)} answers")
    rows = np.frombuffer(data, "<f4").astype(np.float32).reshape(len(patches), row)
    if not np.isfinite(rows).all():
        raise _refused(f"{golden.file} holds what is not a finite number")
    numbers = dict(zip(_NUMBERS, rows.T, strict=False))
    maps = dict(zip(_MAPS, np.split(rows[:, len(_NUMBERS) : _ROW], len(_MAPS), axis=1), strict=True))
    return patches, Outputs(
        **numbers,
        **{name: array.reshape(-1, *_MAP_SHAPE) for name, array in maps.items()},
        features=rows[:, _ROW:] if row > _ROW else None,
    )


def _digest(patches: NDArray[np.float32]) -> str:
    return hashlib.sha256(patches.astype("<f4").tobytes()).hexdigest()


def _refused(why: str) -> BundleError:
    return BundleError(
        f"the bundle's golden answers cannot be used: {why}",
        hint="take the bundle from where it was made, or make them again: nodule-diag export golden BUNDLE --out NEW",
        code="bundle-golden",
    )
