"""RLE Lossless (DICOM PS3.5, annex G), decoded here: GDCM crashes on a damaged segment count, and fills gaps."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import numpy.typing as npt

_HEADER = struct.Struct("<16L")
_PADDING = (b"", b"\0", b"\0\0", b"\0\0\0")
"""A segment has an even length, and some writers round up to four."""


def decode(frame: bytes, pixels: int, bytes_a_pixel: int) -> npt.NDArray[np.uint8]:
    """Decode a frame with one number per pixel.

    Args:
        frame: All its fragments.
        pixels: Number of pixels in the frame.
        bytes_a_pixel: Bytes per pixel; a segment holds one byte of all pixels, the most significant first.

    Returns:
        (pixels, bytes_a_pixel), the least significant byte first.

    Raises:
        ValueError: If its segments are too short or too long; says why.
    """
    if len(frame) < _HEADER.size:
        raise ValueError("its table of run length segments is cut off")
    count, *offsets = _HEADER.unpack_from(frame)
    if count != bytes_a_pixel:
        raise ValueError(f"it has {count} run length segments, where {bytes_a_pixel} are due")
    edges = [*offsets[:count], len(frame)]
    if edges[0] < _HEADER.size or edges != sorted(edges):
        raise ValueError("its run length segments do not follow each other")
    planes = [_segment(frame[start:end], pixels) for start, end in pairwise(edges)]
    return np.stack([np.frombuffer(plane, np.uint8) for plane in reversed(planes)], axis=-1)


def _segment(data: bytes, count: int) -> bytearray:
    """Runs of equal and of different bytes, ``count`` in all."""
    plain = bytearray()
    at = 0
    while len(plain) < count and at < len(data):
        run = data[at]
        if run < 128:
            plain += data[at + 1 : at + 2 + run]
            at += 2 + run
        elif run > 128:
            plain += data[at + 1 : at + 2] * (257 - run)
            at += 2
        else:
            at += 1
    if len(plain) != count or at > len(data) or data[at:] not in _PADDING:
        raise ValueError("a run length segment holds less or more than its part of the pixels")
    return plain
