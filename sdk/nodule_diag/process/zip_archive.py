"""Zip archives whose bytes may be anything, read in memory: zipfile lets damage out as half a dozen kinds of errors.

Members are inflated by ISA-L, in a third of zlib's time, and by any number of threads: each opens the archive anew.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from isal import isal_zlib

SERVED_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_LOCAL_HEADER = struct.Struct("<4s22x2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_BLOCK_BYTES = 2**20


def open_zip(source: Path | BinaryIO) -> zipfile.ZipFile:
    """Open an archive and read its directory.

    Raises:
        zipfile.BadZipFile: If it is no zip, or its directory is damaged.
        OSError: If it cannot be read.
    """
    try:
        archive = zipfile.ZipFile(source)
    except (ValueError, struct.error, NotImplementedError, RuntimeError) as error:
        raise zipfile.BadZipFile(str(error)) from error
    if not all(0 <= entry.header_offset < archive.start_dir for entry in archive.infolist()):
        archive.close()
        raise zipfile.BadZipFile("its directory points before its beginning or behind its files")
    return archive


def read_member(path: Path, entry: zipfile.ZipInfo, count: int, *, check: bool) -> bytes:
    """The beginning of a member.

    Args:
        path: The archive.
        entry: The member, as the directory has it, compressed in one of `SERVED_COMPRESSION`.
        count: Bytes wanted; fewer are returned where the member is shorter. No more than these are kept in memory.
        check: Whether to go on to the member's end and verify its size and checksum.

    Raises:
        zipfile.BadZipFile: If the member is damaged.
        OSError: If the archive cannot be read.
    """
    wanted = entry.file_size if check else min(count, entry.file_size)
    parts, kept, done, checksum = [], 0, 0, 0
    for chunk in _chunks(path, entry, wanted):
        done += len(chunk)
        if check:
            checksum = isal_zlib.crc32(chunk, checksum)
        if kept < count:
            parts.append(chunk[: count - kept])
            kept += len(parts[-1])
    if done < wanted or (check and checksum != entry.CRC):
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename!r}")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _chunks(path: Path, entry: zipfile.ZipInfo, wanted: int) -> Iterator[bytes]:
    """``wanted`` bytes of a member, in blocks; fewer where its data end."""
    inflater = isal_zlib.decompressobj(wbits=-15) if entry.compress_type == zipfile.ZIP_DEFLATED else None
    left = entry.compress_size
    with path.open("rb", buffering=0) as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if not header.startswith(_LOCAL_MAGIC) or len(header) < _LOCAL_HEADER.size:
            raise zipfile.BadZipFile(f"{entry.filename!r} does not begin where the directory says")
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        file.seek(name_bytes + extra_bytes, 1)
        while wanted > 0:
            block = inflater.unconsumed_tail if inflater else b""
            if not block:
                block = file.read(min(left, _BLOCK_BYTES, wanted if inflater is None else _BLOCK_BYTES))
                left -= len(block)
            try:
                chunk = inflater.decompress(block, min(wanted, _BLOCK_BYTES)) if inflater else block
            except isal_zlib.error as error:  # type: ignore[misc] # the stub takes the class for an instance
                raise zipfile.BadZipFile(f"its compressed data cannot be decoded: {error}") from error
            if not (block or chunk) or (inflater and inflater.eof and not chunk):
                return
            wanted -= len(chunk)
            yield chunk
