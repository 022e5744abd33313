"""A synthetic chest CT with nodules of known place and size.

The phantom is for ``nodule-diag demo`` and for tests, where no patient's CT may be kept. The anatomy is a handful of
implicit surfaces in LPS millimetres: coarse, but with everything that is difficult for the lung mask (fat rim,
ribs, mediastinum, trachea, table, vessels of nodule-like density, nodules grown onto the pleura).

The file is a little long, because the anatomy is easier to follow in one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import UsageError

Kind = Literal["solid", "juxta-pleural"]
FloatArray = npt.NDArray[np.float32]
Grid = tuple[FloatArray, FloatArray, FloatArray]  # z, y, x of the voxel centres

# Attenuation in HU, textbook values for an unenhanced chest CT.
AIR_HU, LUNG_HU, FAT_HU, MUSCLE_HU, HEART_HU, LIVER_HU = -1000.0, -860.0, -95.0, 50.0, 40.0, 58.0
MARROW_HU, CORTEX_HU, DISC_HU, VESSEL_HU, NODULE_HU, TABLE_HU = 220.0, 750.0, 85.0, 40.0, 45.0, -350.0

# Size of the volume, and where it lies in the scanner's frame (z of the lowest slice).
FIELD_MM, BOTTOM_Z_MM = 372.0, -310.0
HEIGHT_MM = 262.0
"""Height of the volume, along z."""
EDGE_MM = 1.2  # partial volume: every surface is a ramp of this width
NOISE_HU = 14.0  # standard deviation of the scanner's noise after its in-plane smoothing
LUNG_TEXTURE_HU = 22.0  # and of the parenchyma's texture, which is below the resolution
JUXTA_DEPTH = 0.30  # centre of a juxta-pleural nodule lies this many diameters inside the pleura


@dataclass(frozen=True)
class PhantomNodule:
    """A spherical nodule.

    Attributes:
        center_xyz_mm: centre, LPS, millimetres.
        diameter_mm: diameter at the middle of the soft edge.
        kind: ``solid`` (surrounded by lung) or ``juxta-pleural`` (grown onto the chest wall).
    """

    center_xyz_mm: tuple[float, float, float]
    diameter_mm: float
    kind: Kind = "solid"


@dataclass(frozen=True, eq=False)
class Phantom:
    """A phantom CT and the truth about it.

    Attributes:
        ct: the CT, int16 HU.
        nodules: the nodules where they really lie.
        lungs: (z, y, x) bool, inside the pleura: parenchyma, vessels and nodules, without trachea and bronchi.
    """

    ct: CTVolume
    nodules: tuple[PhantomNodule, ...]
    lungs: npt.NDArray[np.bool_]


DEFAULT_NODULES = (
    PhantomNodule((-72.0, -18.0, -135.0), 12.0),
    PhantomNodule((88.0, 22.0, -190.0), 20.0, "juxta-pleural"),
    PhantomNodule((-84.0, 38.0, -205.0), 8.0),
)


class _Ellipsoid(NamedTuple):
    """Centre and semi-axes in mm; x and y in LPS, z above the lowest slice."""

    center: tuple[float, float, float]
    axes: tuple[float, float, float]

    def depth(self, x: FloatArray, y: FloatArray, z: float) -> FloatArray:
        """Approximate depth below the surface in mm, negative outside."""
        (cx, cy, cz), (ax, ay, az) = self.center, self.axes
        radius = np.sqrt(((x - cx) / ax) ** 2 + ((y - cy) / ay) ** 2 + np.float32(((z - cz) / az) ** 2))
        return np.asarray((1 - radius) * min(self.axes), np.float32)


class _Tube(NamedTuple):
    """A straight piece of vessel or airway, tapering; ends (xyz) in mm."""

    start: npt.NDArray[np.float64]
    stop: npt.NDArray[np.float64]
    radius_start: float
    radius_stop: float


HEART = _Ellipsoid((24.0, -34.0, 92.0), (52.0, 44.0, 52.0))
LIVER = _Ellipsoid((-60.0, -2.0, -25.0), (92.0, 92.0, 95.0))
SPINE_XY, CANAL_XY, AORTA_XY = (0.0, 62.0), (0.0, 84.0), (24.0, 44.0)
CARINA_Z, APEX_Z, RIB_PITCH = 160.0, 246.0, 27.0
HILA = {"right": (-38.0, 8.0, 145.0), "left": (38.0, 10.0, 147.0)}


def _superellipse(
    x: FloatArray, y: FloatArray, *, center: tuple[float, float], axes: tuple[float, float], power: float
) -> FloatArray:
    """Approximate depth in mm below a superellipse, negative outside."""
    radius = (np.abs((x - center[0]) / axes[0]) ** power + np.abs((y - center[1]) / axes[1]) ** power) ** (1 / power)
    return np.asarray((1 - radius) * min(axes), np.float32)


def _taper(z: float) -> float:
    """Cross-section of the thorax at height z, relative to its widest."""
    return float(np.sqrt(max(0.0, 1 - (max(0.0, z - 95.0) / (APEX_Z - 95.0)) ** 2)))


def _lung_depth(x: FloatArray, y: FloatArray, z: float) -> FloatArray:
    """Depth in mm below the pleura of either lung, negative outside."""
    scale = _taper(z)
    if scale < 0.05:
        return np.full(np.broadcast_shapes(x.shape, y.shape), -50.0, np.float32)
    # Left and right mirror each other.
    middle, axes = (70.0 * (0.35 + 0.65 * scale), 6.0), (57.0 * scale, 86.0 * scale)
    depth = _superellipse(np.abs(x), y, center=middle, axes=axes, power=2.4)
    dome = 62.0 - 0.0085 * ((np.abs(x) - 68.0) ** 2 + (y + 10.0) ** 2) + np.where(x < 0, 6.0, 0.0)
    spine = np.hypot(x - SPINE_XY[0], y - SPINE_XY[1]) - 26.0
    aorta = np.hypot(x - AORTA_XY[0], y - AORTA_XY[1]) - 15.0
    carved = np.minimum.reduce([depth, z - dome, spine, aorta, -HEART.depth(x, y, z)])
    return np.asarray(carved, np.float32)


def _lay(hu: FloatArray, depth: npt.NDArray[np.floating], value: float | FloatArray) -> None:
    """Lay a tissue over ``hu`` in place, by how many mm its surface lies above each voxel; its edge is a ramp."""
    hu += np.clip(depth / EDGE_MM + 0.5, 0, 1).astype(np.float32) * (value - hu)


def _smooth(noise: FloatArray) -> FloatArray:
    """Blur (y, x) noise by 1-2-1 in both axes, keeping unit variance; the grain of a reconstruction kernel."""
    for axis in (0, 1):
        noise = (np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)) / np.float32(np.sqrt(6))
    return noise


def _slice(x: FloatArray, y: FloatArray, z: float, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """One axial slice without vessels and nodules: HU and depth below the pleura, both (y, x)."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    hu = np.full(shape, AIR_HU, np.float32)
    bed = 20.0 - np.abs(y - (150.0 - 0.0012 * x**2) - 12.0) * 2.5
    _lay(hu, np.minimum(bed, 170.0 - np.abs(x)), TABLE_HU)

    wide = 0.82 + 0.18 * _taper(z - 60)  # the shoulders are cut off at the edge of the field
    skin = _superellipse(x, y, center=(0, 8), axes=(176 * wide, 126 * wide), power=2.5)
    _lay(hu, skin, FAT_HU)
    _lay(hu, skin - 13, MUSCLE_HU)
    _lay(hu, LIVER.depth(x, y, z), LIVER_HU)

    scale = max(_taper(z), 0.12)
    cage_axes = (131.0 * scale + 6, 98.0 * scale + 2)
    ring = _superellipse(x, y, center=(0, 6), axes=cage_axes, power=2.3)
    phase = (z + 34.0 * (y - 6) / cage_axes[1] * -1 + 300.0) % RIB_PITCH - RIB_PITCH / 2  # ribs fall to the front
    rib = (1 - np.hypot((ring + 1.0) / 4.5, phase / 6.5)) * 4.5
    rib = np.where(y > -0.82 * cage_axes[1], rib, -50)
    _lay(hu, rib, CORTEX_HU)
    _lay(hu, rib - 1.8, MARROW_HU)
    sternum = _superellipse(x, y, center=(0, -96 * scale), axes=(17, 6), power=4)
    if z > 85:
        _lay(hu, sternum, MARROW_HU)

    vertebra = _superellipse(x, y, center=SPINE_XY, axes=(18, 15), power=2.2)
    _lay(hu, vertebra, CORTEX_HU * 0.6 if z % 25 > 6 else DISC_HU)
    _lay(hu, vertebra - 2, MARROW_HU if z % 25 > 6 else DISC_HU)
    arch = 12.0 - np.abs(np.hypot(x - CANAL_XY[0], y - CANAL_XY[1]) - 11.0) * 4
    process = _superellipse(x, y, center=(0, 103), axes=(3.5, 11), power=3)
    _lay(hu, np.maximum(arch, process), CORTEX_HU * 0.6)

    fat = _superellipse(x, y, center=(0, -58 * scale), axes=(20, 16 * scale + 4), power=2)
    _lay(hu, fat, FAT_HU)
    _lay(hu, HEART.depth(x, y, z), HEART_HU)

    lung = _lung_depth(x, y, z)
    gravity = 45.0 * (y + 20.0) / 90.0
    texture = LUNG_TEXTURE_HU * _smooth(rng.standard_normal(shape, np.float32))
    _lay(hu, lung, (LUNG_HU + gravity + texture).astype(np.float32))
    return hu, lung


def _grid(spacing_zyx_mm: tuple[float, float, float]) -> Grid:
    """Voxel-centre coordinates: z above the lowest slice, y and x centred on the field."""
    sizes = [round(extent / step) for extent, step in zip((HEIGHT_MM, FIELD_MM, FIELD_MM), spacing_zyx_mm, strict=True)]
    z, y, x = (np.arange(size, dtype=np.float32) * step for size, step in zip(sizes, spacing_zyx_mm, strict=True))
    return z, y - y.mean(), x - x.mean()


def _segments(hilum: tuple[float, float, float], side: int, rng: np.random.Generator) -> Iterator[_Tube]:
    """The tubes of one lung's vascular tree, from the hilum outwards."""
    fan = [(0.9, -0.5, 0.2), (0.6, -0.3, 0.9), (0.7, 0.6, 0.6), (0.9, 0.3, -0.2), (0.6, 0.3, -0.8), (0.7, -0.4, -0.5)]
    stack = [(np.array(hilum), np.array([side * u, v, w]), 4.2, 26.0) for u, v, w in fan]
    while stack:
        start, heading, radius, length = stack.pop()
        heading = heading / np.linalg.norm(heading)
        stop = start + heading * length
        yield _Tube(start, stop, radius, radius * 0.8)
        if radius > 0.8:
            for share in (0.80, 0.68):
                turned = heading + 0.55 * rng.standard_normal(3)
                stack.append((stop, turned, radius * share, length * 0.87))


def _box(grid: Grid, low: Sequence[float], high: Sequence[float]) -> tuple[slice, ...]:
    """The part of the (z, y, x) grid between two points xyz."""
    limits = zip(grid, reversed(low), reversed(high), strict=True)
    return tuple(slice(*np.searchsorted(axis, [a - 2 * EDGE_MM, b + 2 * EDGE_MM])) for axis, a, b in limits)


def _lay_tube(hu: FloatArray, grid: Grid, tube: _Tube, value: float, within: FloatArray | None) -> None:
    """Lay a tube into the volume in place, only where ``within`` (depth below the pleura) is positive if given."""
    wide = max(tube.radius_start, tube.radius_stop)
    low, high = np.minimum(tube.start, tube.stop) - wide, np.maximum(tube.start, tube.stop) + wide
    part = _box(grid, low.tolist(), high.tolist())
    z, y, x = np.ix_(*(axis[cut] for axis, cut in zip(grid, part, strict=True)))
    run = tube.stop - tube.start
    along = [p - s for p, s in zip((x, y, z), tube.start, strict=True)]
    t = np.clip(sum(p * d for p, d in zip(along, run, strict=True)) / np.dot(run, run), 0, 1)
    gap = np.sqrt(sum((p - t * d) ** 2 for p, d in zip(along, run, strict=True)))
    depth = tube.radius_start + t * (tube.radius_stop - tube.radius_start) - gap
    if within is not None:
        depth = np.minimum(depth, within[part])
    _lay(hu[part], depth, value)


def _placed(nodule: PhantomNodule) -> PhantomNodule:
    """Check a nodule; slide a juxta-pleural one along x onto the costal pleura."""
    x, y, z = nodule.center_xyz_mm

    def depth(at: float) -> float:
        return float(_lung_depth(np.array([at], np.float32), np.array([y], np.float32), z - BOTTOM_Z_MM)[0])

    if not 2 <= nodule.diameter_mm <= 40:
        raise UsageError(f"a phantom nodule of {nodule.diameter_mm} mm is out of range", hint="use 2 to 40 mm")
    if depth(x) <= 0:
        raise UsageError(
            f"the phantom nodule at {nodule.center_xyz_mm} is not in a lung", hint="give a center inside a lung"
        )
    if nodule.kind == "solid":
        return nodule
    outward = 0.1 if x > 0 else -0.1
    while depth(x) > JUXTA_DEPTH * nodule.diameter_mm or depth(x + outward) > depth(x):
        x += outward
    return PhantomNodule((round(x, 2), y, z), nodule.diameter_mm, nodule.kind)


def chest_phantom(
    *,
    seed: int = 0,
    spacing_zyx_mm: tuple[float, float, float] = (1.25, 1.1, 1.1),
    nodules: Sequence[PhantomNodule] = DEFAULT_NODULES,
) -> Phantom:
    """Make a chest CT with nodules of known place and size.

    The same arguments give the same volume, bit for bit. At the default spacing it holds 210 x 338 x 338 voxels
    and takes some seconds and about 400 MB.

    Args:
        seed: seed of the noise and of the vessels' branching.
        spacing_zyx_mm: voxel spacing.
        nodules: what to put in; juxta-pleural ones are slid along x onto the chest wall, see ``Phantom.nodules``.

    Returns:
        The CT (canonical LPS axes, HU) with its nodules and the lungs' ground truth.

    Raises:
        UsageError: when a nodule lies outside the lungs or has an absurd size.
    """
    placed = tuple(_placed(nodule) for nodule in nodules)
    rng = np.random.default_rng(seed)
    grid = z, y, x = _grid(spacing_zyx_mm)
    hu = np.empty((len(z), len(y), len(x)), np.float32)
    within = np.empty_like(hu)
    for k, height in enumerate(z.tolist()):
        hu[k], within[k] = _slice(x[None, :], y[:, None], height, rng)

    spheres = [(np.array(n.center_xyz_mm) - (0, 0, BOTTOM_Z_MM), n.diameter_mm / 2) for n in placed]
    for name, hilum in HILA.items():
        for tube in _segments(hilum, 1 if name == "left" else -1, rng):
            middle, half = (tube.start + tube.stop) / 2, float(np.linalg.norm(tube.stop - tube.start)) / 2
            if all(np.linalg.norm(middle - c) > radius + half + tube.radius_start for c, radius in spheres):
                _lay_tube(hu, grid, tube, VESSEL_HU, within)
    carina = np.array([0.0, 18.0, CARINA_Z])
    airways = [(carina, np.array([0.0, 10.0, HEIGHT_MM + 20]), 8.5, 8.5)]
    airways += [(carina, np.array(hilum), 7.0, 4.5) for hilum in HILA.values()]
    for wall, tissue in ((1.5, MUSCLE_HU), (0.0, AIR_HU)):  # every wall before any lumen: the carina stays open
        for start, stop, first, last in airways:
            _lay_tube(hu, grid, _Tube(start, stop, first + wall, last + wall), tissue, None)
    for center, radius in spheres:
        part = _box(grid, (center - radius).tolist(), (center + radius).tolist())
        axes = np.ix_(*(axis[cut] - c for axis, cut, c in zip(grid, part, center[::-1], strict=True)))
        gap = np.sqrt(sum(axis**2 for axis in axes))
        _lay(hu[part], radius - gap, NODULE_HU)
    for plane in hu:
        plane += NOISE_HU * _smooth(rng.standard_normal(plane.shape, np.float32))

    origin = (float(x[0]), float(y[0]), BOTTOM_Z_MM)
    stored = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    ct = CTVolume.from_array(stored, spacing_zyx_mm=spacing_zyx_mm, origin_xyz_mm=origin, path="<phantom>")
    return Phantom(ct=ct, nodules=placed, lungs=within > 0)
