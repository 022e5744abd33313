"""Compressed voxels, whatever members and blocks they fall into: against Python's own gzip and zlib."""

from __future__ import annotations

import gzip
import zlib
from io import BufferedReader, BytesIO
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nodule_diag.ct.formats import byte_stream
from nodule_diag.ct.formats.byte_stream import ByteStream

BLOCK = 64


def content(size: int, seed: int) -> bytes:
    """Noise with a tail of zeros, of which much is still pending when all input has been read."""
    noise = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()
    return noise + bytes(5 * size)


def read(data: bytes) -> tuple[bytes, bool]:
    with mock.patch.object(byte_stream, "_BLOCK_BYTES", BLOCK):
        stream = ByteStream(BufferedReader(BytesIO(data)), compressed=True, path="scan.nii.gz")
        return stream.read(10**6), stream.cut_off


@settings(max_examples=150)
@given(
    sizes=st.lists(st.integers(0, 4 * BLOCK), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    level=st.sampled_from([0, 6]),
    padding=st.integers(0, 3),
)
def test_members_end_anywhere(sizes, seed, level, padding):
    parts = [content(size, seed + i) for i, size in enumerate(sizes)]
    data = b"".join(gzip.compress(part, level, mtime=0) for part in parts) + bytes(padding)
    assert read(data) == (gzip.decompress(data), False)


@settings(max_examples=60)
@given(size=st.integers(0, 8 * BLOCK), seed=st.integers(0, 2**32 - 1), lost=st.integers(0, 8))
def test_what_lacks_its_checksum_is_cut_off(size, seed, lost):
    whole = content(size, seed)
    for data, trailer in ((gzip.compress(whole, mtime=0), 8), (zlib.compress(whole), 4)):
        found, cut_off = read(data[: len(data) - min(lost, trailer)])
        assert found == whole
        assert cut_off == (lost > 0)
