"""What the page's pictures are made of: grey and coloured pixels as PNG, and the nodule's outline as a path."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray

from nodule_diag.ct import CTVolume, index_from_lps
from nodule_diag.preprocessing import LUNG_WINDOW_HU
from nodule_diag.report.cube import HEAT, HEAT_OPACITY, Cube, as_bytes
from nodule_diag.results import PLANES, png_bytes, three_planes

LETTERS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
"""What lies to the left, right, top and bottom: right, left, anterior, posterior, superior, inferior."""
OVERVIEW_PIXELS = 320
"""Longest edge of the picture of the whole chest."""


@dataclass(frozen=True)
class Plane:
    """One plane through the position.

    Attributes:
        name: Axial, coronal or sagittal.
        letters: What lies to the left, right, top and bottom.
        ct: The CT in the lung window, a ``data:`` address of a PNG.
        heat: The CAM in colour, transparent where it is 0, likewise.
        outline: The nodule's outline as an SVG path, in voxels of the picture; empty without a nodule.
    """

    name: str
    letters: str
    ct: str
    heat: str
    outline: str


def planes(cube: Cube) -> list[Plane]:
    """The three planes of a nodule."""
    ct = three_planes(as_bytes(cube.hu, LUNG_WINDOW_HU))
    heat = coloured(np.asarray(three_planes(cube.cam), dtype=np.float32))
    nodule = three_planes(cube.nodule)
    return [
        Plane(name, LETTERS[name], png_address(grey), png_address(colour), outline(inside))
        for name, grey, colour, inside in zip(PLANES, ct, heat, nodule, strict=True)
    ]


@dataclass(frozen=True)
class Overview:
    """Where in the chest the nodule lies.

    Attributes:
        name: Axial or coronal.
        letters: What lies to the left, right, top and bottom.
        ct: The whole slice in the lung window, a ``data:`` address of a PNG.
        width_mm, height_mm: Of the slice.
        x_mm, y_mm: Where the position lies, from its left and top edge.
    """

    name: str
    letters: str
    ct: str
    width_mm: float
    height_mm: float
    x_mm: float
    y_mm: float


def overviews(ct: CTVolume, xyz_lps_mm: tuple[float, float, float]) -> list[Overview]:
    """The whole axial and coronal slice through a position."""
    x, y, z = index_from_lps(ct, np.asarray([xyz_lps_mm]))[0]
    step_z, step_y, step_x = ct.spacing_zyx_mm
    depth, rows, _ = ct.hu.shape
    section, line = (min(max(round(at), 0), size - 1) for at, size in ((z, depth), (y, rows)))
    views = (
        ("axial", ct.hu[section], (step_y, step_x), (y + 0.5) * step_y),
        ("coronal", ct.hu[::-1, line], (step_z, step_x), (depth - 0.5 - z) * step_z),
    )
    made = []
    for name, plane, (step_down, step_right), y_mm in views:
        height, width = plane.shape
        down, right = (max(1, -(-size // OVERVIEW_PIXELS)) for size in plane.shape)
        picture = png_address(as_bytes(plane[::down, ::right].astype(np.float32), LUNG_WINDOW_HU))
        size_mm = width * step_right, height * step_down
        made.append(Overview(name, LETTERS[name], picture, *size_mm, (x + 0.5) * step_right, y_mm))
    return made


def coloured(weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(..., 4) red, green, blue and opacity of values in 0..1."""
    stops = [at for at, _ in HEAT]
    rgb = [np.interp(weights, stops, [colour[channel] for _, colour in HEAT]) for channel in range(3)]
    return np.rint(np.stack([*rgb, weights * (255.0 * HEAT_OPACITY)], axis=-1)).astype(np.uint8)


def outline(inside: NDArray[np.float32]) -> str:
    """The line where a picture passes 0.5, as an SVG path whose unit is the picture's pixel."""
    lines = contour_generator(z=np.pad(inside, 1)).lines(0.5)
    return " ".join(
        "M" + "L".join(f"{x - 0.5:.2f} {y - 0.5:.2f}" for x, y in np.asarray(line).tolist()) for line in lines
    )


def png_address(pixels: NDArray[np.uint8]) -> str:
    """A picture as the ``data:`` address of a PNG."""
    return "data:image/png;base64," + b64encode(png_bytes(pixels)).decode("ascii")
