"""Voxels from a plain or compressed file, a few slices at a time and counted to the byte.

Every checksum in compressed data is verified: CRC-32 and length of all gzip members, zlib's Adler-32, and bzip2's of
each block and stream. Bytes after the last voxel are an error too: if a header promises less than the file holds, only
a part of the CT would be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from typing import Any, Literal, Protocol

import numpy as np
from isal import igzip_lib

from nodule_diag.ct.hounsfield import SLAB_BYTES, HounsfieldArray
from nodule_diag.ct.refusals import damaged, truncated, undecodable, unsupported

Packing = Literal["gzip", "zlib", "bzip2"]
"""How data are compressed."""

_GZIP_MAGIC = b"\x1f\x8b"
_MEMBER_MAGIC = {"gzip": _GZIP_MAGIC, "bzip2": b"BZh"}
"""The start of a further member or stream; zlib has only one."""
_BLOCK_BYTES = 2**20


class _Unpacker(Protocol):
    """The common interface of the decompressors of isal and of the standard library."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def is_gzip(file: BufferedReader) -> bool:
    """Whether the next bytes begin a gzip member; no byte is read."""
    return file.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC)


class ByteStream:
    """Reads exact numbers of bytes: a plain file directly into the caller's buffer, a compressed file by blocks.

    Args:
        file: Open at the first byte to read.
        packing: How the bytes from there on are compressed; None when they are not. Several gzip members or bzip2
            streams may follow each other. Zeros, which fill a block of a tape or a disk, may follow the last one.
        path: The file, for messages.

    Attributes:
        cut_off: Whether compressed data were found to end before their checksum.
    """

    def __init__(self, file: BufferedReader, *, packing: Packing | None, path: str) -> None:
        self._path = path
        self._file = file
        self._chunks = self._unpack(packing) if packing else None
        self._rest = b""
        self.cut_off = False

    def _unpack(self, packing: Packing) -> Iterator[bytes]:
        """Decompressed chunks; ends early, without an error, where the file does."""
        unpacker, block = self._unpacker(packing), b""
        while True:
            if unpacker.needs_input and not block and not (block := self._file.read(_BLOCK_BYTES)):
                self.cut_off = True
                return
            try:
                chunk = unpacker.decompress(block, _BLOCK_BYTES)
            except (igzip_lib.IsalError, OSError) as error:  # type: ignore[misc] # the stub takes the class for an instance
                raise undecodable(self._path, error) from error
            if chunk:
                yield chunk
            block = b""
            if unpacker.eof:
                if not (block := self._next_member(packing, unpacker.unused_data)):
                    return
                unpacker = self._unpacker(packing)

    def _unpacker(self, packing: Packing) -> _Unpacker:
        if packing == "bzip2":
            try:
                from bz2 import BZ2Decompressor  # Python may have been built without it
            except ImportError:
                raise unsupported(self._path, "its voxels are packed by bzip2, which this Python cannot undo") from None
            return BZ2Decompressor()
        flag = igzip_lib.DECOMP_GZIP if packing == "gzip" else igzip_lib.DECOMP_ZLIB
        return igzip_lib.IgzipDecompressor(flag=flag)

    def _next_member(self, packing: Packing, block: bytes) -> bytes:
        """The first bytes after a member and zeros; empty at the end of the file."""
        while not (rest := block.lstrip(b"\0")) and (block := self._file.read(_BLOCK_BYTES)):
            pass
        magic = _MEMBER_MAGIC.get(packing)
        if rest and magic and len(rest) < len(magic):
            rest += self._file.read(_BLOCK_BYTES)
        if rest and not (magic and rest.startswith(magic)):
            raise damaged(self._path, "other bytes follow its compressed data")
        return rest

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

    def skip(self, count: int) -> None:
        """Skip ``count`` bytes, or as many as there are."""
        while count > 0 and (skipped := len(self.read(min(count, _BLOCK_BYTES)))):
            count -= skipped


def read_voxels(
    stream: ByteStream, voxels: HounsfieldArray, *, dtype: np.dtype[Any], slope: float = 1.0, intercept: float = 0.0
) -> None:
    """Decode a whole volume, slab by slab, into ``voxels``.

    Args:
        stream: The stream at the first voxel; it must end with the last voxel.
        voxels: Takes the slabs.
        dtype: Stored voxel type, with its byte order.
        slope: HU = slope * stored + intercept.
        intercept: See ``slope``.

    Raises:
        CTError: When the data end early, continue, or are damaged, or as `HounsfieldArray.add`.
    """
    x, y, z = voxels.stored_grid.size_xyz
    slice_bytes = x * y * dtype.itemsize
    slices = min(max(1, SLAB_BYTES // slice_bytes), z)
    buffer = bytearray(slices * slice_bytes)
    scaled = slope != 1.0 or intercept != 0.0
    promise = f"its header promises {z * slice_bytes:,} bytes of voxels"
    for start in range(0, z, slices):
        count = min(slices, z - start)
        view = memoryview(buffer)[: count * slice_bytes]
        found = stream.fill(view)
        if found < len(view):
            raise truncated(voxels.path, f"{promise}, {start * slice_bytes + found:,} could be read")
        slab = np.frombuffer(view, dtype=dtype).reshape(count, y, x)
        voxels.add(start, slab * slope + intercept if scaled else slab)
    # One byte more reaches the end of the compressed stream, where its checksum is verified.
    if stream.read(1):
        raise damaged(voxels.path, f"{promise}, and more follow them")
    if stream.cut_off:
        raise truncated(voxels.path, "its compressed data end before their checksum")
