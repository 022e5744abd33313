"""Reads untrusted zip archives in memory; zipfile itself reports damage with half a dozen kinds of errors.

Members are inflated by ISA-L, in a third of zlib's time, and by any number of threads: each opens the archive itself.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from isal import isal_zlib

SERVED_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

MAX_DIRECTORY_BYTES = 32 * 2**20
"""Size of an archive's directory: 100,000 names of 300 letters. zipfile needs ten times as much memory for it."""

_END, _END_64, _LOCATOR_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_END_MAGIC, _END_64_MAGIC, _LOCATOR_64_MAGIC = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_MAX_COMMENT_BYTES = 2**16
_ENTRY, _ENTRY_MAGIC = struct.Struct("<4s24x3H12x"), b"PK\x01\x02"
_LOCAL_HEADER, _LOCAL_MAGIC = struct.Struct("<4s2x2H16x2H"), b"PK\x03\x04"
_ENCRYPTED, _UTF_8 = 0x1, 0x800
_BLOCK_BYTES = 2**20


def open_zip(source: Path | BinaryIO) -> zipfile.ZipFile:
    """Open an archive and read its directory.

    Raises:
        zipfile.BadZipFile: If it is not a zip, or its directory is damaged: the count of files must be right, and the
            files must not overlap.
        OSError: If it cannot be read.
    """
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        _check_directory(file)
    try:
        archive = zipfile.ZipFile(source)
    except (ValueError, LookupError, struct.error, NotImplementedError, RuntimeError) as error:
        raise zipfile.BadZipFile(str(error)) from error
    if not all(entry.filename for entry in archive.infolist()):
        archive.close()
        raise zipfile.BadZipFile("it holds a file without a name")
    starts = sorted((entry.header_offset, entry.compress_size) for entry in archive.infolist())
    ends = [start + _LOCAL_HEADER.size + size for start, size in starts]
    if starts and not (starts[0][0] >= 0 and ends[-1] <= archive.start_dir):
        archive.close()
        raise zipfile.BadZipFile("its directory points before its beginning or behind its files")
    if any(end > start for end, (start, _) in zip(ends, starts[1:], strict=False)):
        archive.close()
        raise zipfile.BadZipFile("its files lie over each other")
    return archive


def _check_directory(file: BinaryIO) -> None:
    """Count the directory's entries: zipfile ignores the stored count, and accepts any number of entries."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - _MAX_COMMENT_BYTES - _END_64.size - _LOCATOR_64.size))
    tail = file.read()
    end = tail.rfind(_END_MAGIC)
    if tail[-_END.size :].startswith(_END_MAGIC) and tail.endswith(b"\0\0"):
        end = len(tail) - _END.size  # without a comment, which may hold anything
    if end < 0 or end + _END.size > len(tail):
        raise zipfile.BadZipFile("File is not a zip file")
    *_, count, length, _, comment_bytes = _END.unpack_from(tail, end)
    if end + _END.size + comment_bytes > len(tail):
        raise zipfile.BadZipFile("it ends within its comment")
    before = end - _LOCATOR_64.size - _END_64.size
    if (
        before >= 0
        and tail[before:].startswith(_END_64_MAGIC)
        and tail[end - _LOCATOR_64.size :].startswith(_LOCATOR_64_MAGIC)
    ):
        *_, count, length, _ = _END_64.unpack_from(tail, before)
        end = before
    start = size - len(tail) + end - length
    if start < 0 or length > MAX_DIRECTORY_BYTES:
        raise zipfile.BadZipFile(f"its directory takes {length:,} bytes")
    file.seek(start)
    directory = file.read(length)
    at = found = 0
    while at + _ENTRY.size <= length and found <= count:
        magic, *lengths = _ENTRY.unpack_from(directory, at)
        if magic != _ENTRY_MAGIC:
            break
        at += _ENTRY.size + sum(lengths)
        found += 1
    if (at, found) != (length, count):
        raise zipfile.BadZipFile(f"its directory counts {count:,} files and does not hold as many")


def read_member(source: Path | bytes, entry: zipfile.ZipInfo, count: int, *, check: bool) -> bytes:
    """The beginning of a member.

    Args:
        source: The archive, or its bytes.
        entry: The member's entry in the directory, compressed in one of `SERVED_COMPRESSION`.
        count: Bytes wanted; fewer are returned where the member is shorter. No more bytes are kept in memory.
        check: Whether to read to the member's end and verify its size and checksum.

    Raises:
        zipfile.BadZipFile: If the member is damaged.
        OSError: If the archive cannot be read.
    """
    # One byte beyond the end: there must be none.
    wanted = entry.file_size + 1 if check else min(count, entry.file_size)
    parts, kept, done, checksum = [], 0, 0, 0
    for chunk in _chunks(source, entry, wanted):
        done += len(chunk)
        if check:
            checksum = isal_zlib.crc32(chunk, checksum)
        if kept < count:
            parts.append(chunk[: count - kept])
            kept += len(parts[-1])
    if done != min(wanted, entry.file_size) or (check and checksum != entry.CRC):
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename!r}")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _chunks(source: Path | bytes, entry: zipfile.ZipInfo, wanted: int) -> Iterator[bytes]:
    """``wanted`` bytes of a member, in blocks; fewer where its data end."""
    inflater = isal_zlib.decompressobj(wbits=-15) if entry.compress_type == zipfile.ZIP_DEFLATED else None
    left = entry.compress_size
    with BytesIO(source) if isinstance(source, bytes) else source.open("rb", buffering=0) as file:
        _seek_data(file, entry)
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


def _seek_data(file: BinaryIO, entry: zipfile.ZipInfo) -> None:
    """Seek to the start of a member's data, after a second header that must match the directory."""
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if not header.startswith(_LOCAL_MAGIC) or len(header) < _LOCAL_HEADER.size:
        raise zipfile.BadZipFile(f"{entry.filename!r} does not begin where the directory says")
    _, flags, method, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    name = file.read(name_bytes).decode("utf-8" if entry.flag_bits & _UTF_8 else "cp437", "replace")
    if (name, method, flags & _ENCRYPTED) != (entry.orig_filename, entry.compress_type, entry.flag_bits & _ENCRYPTED):
        raise zipfile.BadZipFile(f"{entry.filename!r} is another file than the directory says")
    file.seek(extra_bytes, 1)
