"""Pictures as PNG files, written without a library."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""ISO 15948's codes for grey, for red, green and blue, and for these with opacity, by bytes per pixel."""


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file (ISO 15948): one header, one compressed image, one end.

    Args:
        pixels: (height, width) grey, (height, width, 3) colour or (height, width, 4) colour and opacity.
    """
    image = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width, depth = image.shape
    above = np.concatenate([np.zeros_like(image[:1]), image[:-1]])
    differences = (image - above).reshape(height, -1)
    rows = np.concatenate([np.full((height, 1), 2, np.uint8), differences], axis=1)  # 2: each row minus the one above
    chunks = [
        (b"IHDR", struct.pack(">2I5B", width, height, 8, COLOUR_TYPES[depth], 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
