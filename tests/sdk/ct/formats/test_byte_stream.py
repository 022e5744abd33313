"""Compressed voxels, whatever members and blocks they fall into: against Python's own gzip and zlib."""

from __future__ import annotations

import bz2
import gzip
import zlib
from io import BufferedReader, BytesIO
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodule_diag.ct.formats import byte_stream
from nodule_diag.ct.formats.byte_stream import ByteStream, Packing
from nodule_diag.errors import CTError

BLOCK = 64


def content(size: int, seed: int) -> bytes:
    """Noise with a tail of zeros, of which much is still pending when all input has been read."""
    noise = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()
    return noise + bytes(5 * size)


def read(data: bytes, packing: Packing = "gzip") -> tuple[bytes, bool]:
    with mock.patch.object(byte_stream, "_BLOCK_BYTES", BLOCK):
        stream = ByteStream(BufferedReader(BytesIO(data)), packing=packing, path="scan")
        return stream.read(10**6), stream.cut_off


PACK = {"gzip": lambda data: gzip.compress(data, mtime=0), "zlib": zlib.compress, "bzip2": bz2.compress}
UNPACK = {"gzip": gzip.decompress, "bzip2": bz2.decompress}


@settings(max_examples=150)
@given(
    packing=st.sampled_from(["gzip", "bzip2"]),
    sizes=st.lists(st.integers(0, 4 * BLOCK), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    padding=st.integers(0, 3 * BLOCK),
)
def test_members_end_anywhere(packing, sizes, seed, padding):
    data = b"".join(PACK[packing](content(size, seed + i)) for i, size in enumerate(sizes))
    assert read(data + bytes(padding), packing) == (UNPACK[packing](data), False)


@settings(max_examples=60)
@given(size=st.integers(0, 4 * BLOCK), seed=st.integers(0, 2**32 - 1), level=st.sampled_from([0, 1, 6, 9]))
def test_every_level_of_deflate(size, seed, level):
    whole = content(size, seed)
    assert read(gzip.compress(whole, level, mtime=0)) == (whole, False)
    assert read(zlib.compress(whole, level), "zlib") == (whole, False)


@settings(max_examples=60)
@given(size=st.integers(0, 8 * BLOCK), seed=st.integers(0, 2**32 - 1), lost=st.integers(0, 8))
def test_what_lacks_its_checksum_is_cut_off(size, seed, lost):
    whole = content(size, seed)
    for packing, trailer in (("gzip", 8), ("zlib", 4)):
        packed = PACK[packing](whole)
        found, cut_off = read(packed[: len(packed) - min(lost, trailer)], packing)
        assert found == whole
        assert cut_off == (lost > 0)


@settings(max_examples=150)
@given(
    packing=st.sampled_from(["gzip", "zlib", "bzip2"]),
    seed=st.integers(0, 2**32 - 1),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    members=st.integers(1, 3),
)
def test_a_flipped_bit_never_gives_other_bytes(packing, seed, where, bit, members):
    count = members if packing in UNPACK else 1
    data = bytearray(b"".join(PACK[packing](content(BLOCK, seed + i)) for i in range(count)))
    whole, _ = read(bytes(data), packing)
    data[int(where * len(data))] ^= 1 << bit
    try:
        found, cut_off = read(bytes(data), packing)
    except CTError as error:
        assert error.code == "ct-damaged"
    else:  # time, name and system in a gzip header are nobody's voxels
        assert cut_off or found == whole


@pytest.mark.parametrize("packing", ["gzip", "zlib", "bzip2"])
@pytest.mark.parametrize("after", [b"x", b"\0\0\n", b"trailing garbage"])
def test_only_zeros_may_follow(packing, after):
    with pytest.raises(CTError, match="other bytes follow"):
        read(PACK[packing](b"voxels") + after + bytes(200), packing)


def test_skipping_equals_reading():
    data = content(1000, 7)
    for packing in ("gzip", None):
        stream = ByteStream(
            BufferedReader(BytesIO(gzip.compress(data) if packing else data)), packing=packing, path="scan"
        )
        stream.skip(123)
        assert stream.read(200) == data[123:323]
        stream.skip(10**9)
        assert stream.read(1) == b""
