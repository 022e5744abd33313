"""Voxels from a plain or compressed file, a few slices at a time and counted to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from typing import Any

import numpy as np
from isal import isal_zlib

from nodule_diag.ct.hounsfield import SLAB_BYTES, HounsfieldArray
from nodule_diag.ct.refusals import truncated, undecodable

GZIP_MAGIC = b"\x1f\x8b"
ANY_DEFLATE = 47
"""zlib's window bits for "gzip or zlib header, whichever is there"."""

_BLOCK_BYTES = 2**20


class ByteStream:
    """Reads exact numbers of bytes: a plain file's straight into the caller's buffer, a compressed one's by blocks.

    Args:
        file: Open at the first byte to read.
        compressed: Whether it holds gzip members or a zlib stream; their checksums are verified at the end.
        path: The file, for messages.

    Attributes:
        cut_off: Whether compressed data were found to end before their checksum.
    """

    def __init__(self, file: BufferedReader, *, compressed: bool, path: str) -> None:
        self._path = path
        self._file = file
        self._chunks = self._inflate(file) if compressed else None
        self._rest = b""
        self.cut_off = False

    def _inflate(self, file: BufferedReader) -> Iterator[bytes]:
        """Decompressed chunks; ends early, without an error, where the file does."""
        unpacker, block = isal_zlib.decompressobj(wbits=ANY_DEFLATE), file.read(_BLOCK_BYTES)
        try:
            while True:
                chunk = unpacker.decompress(block, _BLOCK_BYTES)
                if chunk:
                    yield chunk
                if unpacker.eof:
                    block = unpacker.unused_data
                    if len(block) < len(GZIP_MAGIC):
                        block += file.read(_BLOCK_BYTES)
                    if not block.startswith(GZIP_MAGIC):
                        return
                    unpacker = isal_zlib.decompressobj(wbits=ANY_DEFLATE)
                    continue
                block = unpacker.unconsumed_tail or file.read(_BLOCK_BYTES)
                if not block and not chunk:  # output may be pending when all input is used up
                    self.cut_off = True
                    return
        except isal_zlib.error as error:  # type: ignore[misc] # the stub takes the class for an instance
            raise undecodable(self._path, error) from error

    def fill(self, buffer: memoryview) -> int:
        """Fill the buffer as far as the data goes; returns the number of bytes."""
        if self._chunks is None:
            return self._file.readinto(buffer)
        done = 0
        while done < len(buffer) and (chunk := self._rest or next(self._chunks, b"")):
            part = chunk[: len(buffer) - done]
            buffer[done : done + len(part)] = part
            self._rest = chunk[len(part) :]
            done += len(part)
        return done

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes; fewer at the end."""
        buffer = bytearray(count)
        return bytes(buffer[: self.fill(memoryview(buffer))])


def read_voxels(
    stream: ByteStream, voxels: HounsfieldArray, *, dtype: np.dtype[Any], slope: float = 1.0, intercept: float = 0.0
) -> None:
    """Decode a whole volume, slab by slab, into ``voxels``.

    Args:
        stream: At the first voxel.
        voxels: Takes the slabs.
        dtype: Stored voxel type, with its byte order.
        slope: HU = slope * stored + intercept.
        intercept: See ``slope``.

    Raises:
        CTError: When the data ends early or is damaged, or as `HounsfieldArray.add`.
    """
    x, y, z = voxels.stored_grid.size_xyz
    slice_bytes = x * y * dtype.itemsize
    slices = min(max(1, SLAB_BYTES // slice_bytes), z)
    buffer = bytearray(slices * slice_bytes)
    scaled = slope != 1.0 or intercept != 0.0
    for start in range(0, z, slices):
        count = min(slices, z - start)
        view = memoryview(buffer)[: count * slice_bytes]
        found = stream.fill(view)
        if found < len(view):
            promised, there = z * slice_bytes, start * slice_bytes + found
            why = f"its header promises {promised:,} bytes of voxels, {there:,} could be read"
            raise truncated(voxels.path, why)
        slab = np.frombuffer(view, dtype=dtype).reshape(count, y, x)
        voxels.add(start, slab * slope + intercept if scaled else slab)
    # One block more reaches the end of the compressed stream, where its checksum is verified.
    stream.read(_BLOCK_BYTES)
    if stream.cut_off:
        raise truncated(voxels.path, "its compressed data end before their checksum")
