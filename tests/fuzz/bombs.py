"""Few bytes that unpack to many: whole streams with right checksums, made without ever having the many."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import zipfile
import zlib
from functools import cache
from random import Random

from fuzz import elements
from fuzz.seed import ZIP_TIME, Files, Seed

CHUNK_BYTES = 8 * 2**20
CHUNKS = 50
"""400 MiB of zeros in all: more than any file of 50 kB needs (`fuzz.worker.MOST_RISE_BYTES`)."""
BOMB_BYTES = CHUNKS * CHUNK_BYTES


def bomb(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    """Zeros without end behind the voxels, or instead of them, in the seed's own compression."""
    name = list(seed.files)[-1]
    data, head = seed.files[name], seed.heads.get(name, 0)
    header, packed = data[:head], data[head:]
    if seed.entry.endswith(".zip"):
        return {seed.entry: _zip(rng, data)}
    if seed.name == "dicom-deflated":
        return {**seed.files, name: _deflated_element(rng, data)}
    if packed.startswith(b"BZh"):
        return {**seed.files, name: header + (packed if rng.random() < 0.5 else b"") + _bzip2() * CHUNKS}
    if packed.startswith(b"\x1f\x8b"):
        return {**seed.files, name: header + (packed if rng.random() < 0.5 else b"") + _gzip() * CHUNKS}
    start = zlib.decompress(packed) if rng.random() < 0.5 else b""
    return {**seed.files, name: header + _zlib(start)}


@cache
def _bzip2() -> bytes:
    return bz2.compress(bytes(CHUNK_BYTES))


@cache
def _gzip() -> bytes:
    return gzip.compress(bytes(CHUNK_BYTES), 9, mtime=0)


@cache
def _block() -> bytes:
    """Raw deflate of a chunk that looks back at nothing, so that it can be repeated."""
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(bytes(CHUNK_BYTES)) + packer.flush(zlib.Z_FULL_FLUSH)


def _raw(start: bytes) -> bytes:
    """Raw deflate of some bytes and all the zeros."""
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH) + _block() * CHUNKS + b"\x03\x00"


def _zlib(start: bytes) -> bytes:
    """Adler-32 of zeros after something: its low half stays, its high half grows by that for each."""
    checksum = zlib.adler32(start)
    low, high = checksum & 0xFFFF, checksum >> 16
    return b"\x78\xda" + _raw(start) + struct.pack(">I", (high + low * BOMB_BYTES) % 65521 << 16 | low)


def _deflated_element(rng: Random, data: bytes) -> bytes:
    """A deflated slice with a private element of zeros before its pixels, or with more pixels than it needs."""
    meta, _ = elements.walked(data, implicit=False)
    start = len(elements.joined(data, meta, []))
    inner = zlib.decompressobj(-15).decompress(data[start:])
    _, rest = elements.walked(bytes(132) + inner, implicit=False)
    before, pixels = b"".join(one.head + one.value for one in rest[:-1]), rest[-1]
    if rng.random() < 0.5:
        return data[:start] + _raw(before + struct.pack("<HH2sHI", 0x0029, 0x1001, b"OB", 0, BOMB_BYTES))
    return data[:start] + _raw(
        before + pixels.head[:-4] + struct.pack("<I", BOMB_BYTES + len(pixels.value)) + pixels.value
    )


@cache
def _zeros_crc(chunks: int) -> int:
    checksum = 0
    for _ in range(chunks):
        checksum = zlib.crc32(bytes(CHUNK_BYTES), checksum)
    return checksum


def _zip(rng: Random, data: bytes) -> bytes:
    """An archive, one of whose members unpacks to as much as it says, or says as much as it should be."""
    chunks, made = rng.choice((CHUNKS // 2, CHUNKS)), io.BytesIO()
    packed = _block() * chunks + b"\x03\x00"
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        big = rng.choice(old.namelist())
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name, ZIP_TIME), packed if name == big else old.read(name))
    with zipfile.ZipFile(made) as archive:
        local, central = archive.getinfo(big).header_offset, archive.start_dir
    changed = bytearray(made.getvalue())
    while changed[central + 42 : central + 46] != struct.pack("<I", local):  # the directory's entry of that member
        central = changed.index(b"PK\x01\x02", central + 46)
    says = rng.choice((3000, chunks * CHUNK_BYTES))
    for at in (local + 8, central + 10):  # the method, and behind the time: checksum, packed size, size
        struct.pack_into("<H", changed, at, zipfile.ZIP_DEFLATED)
        struct.pack_into("<3I", changed, at + 6, _zeros_crc(chunks), len(packed), says)
    return bytes(changed)
