"""NIfTI, MetaImage and NRRD as an independent reader sees them: header, voxels, and what is wrong between the two."""

from __future__ import annotations

import bz2
import gzip
import struct
import zlib
from collections import Counter
from math import isfinite, prod
from typing import NamedTuple

from fuzz.seed import Files


class Volume(NamedTuple):
    """A plain file as an independent reader sees it."""

    header: bytes
    voxels: bytes
    broken: str = ""


def _unpacked(data: bytes, kind: str) -> tuple[bytes, str]:
    """Uncompressed bytes, and what is wrong with the compressed ones."""
    try:
        if kind == "gzip":
            return gzip.decompress(data), ""
        if kind == "bzip2":
            return bz2.decompress(data), ""
        unpacker = zlib.decompressobj()
        done = unpacker.decompress(data)
        fault = "" if unpacker.eof and not unpacker.unused_data else "the zlib stream ends elsewhere than the file"
        return done, fault
    except (OSError, EOFError, ValueError, zlib.error) as error:
        return b"", f"{kind}: {error}"


NIFTI_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}


def nifti(files: Files, entry: str) -> Volume:
    data = files[entry]
    if data.startswith(b"\x1f\x8b") or entry.endswith(".gz"):
        data, fault = _unpacked(data, "gzip")
        if fault:
            return Volume(b"", b"", fault)
    order = "<" if data[:4] in (b"\x5c\1\0\0", b"\x1c\2\0\0") else ">"
    try:
        if struct.unpack_from(f"{order}i", data)[0] == 348:
            dims = struct.unpack_from(f"{order}8h", data, 40)
            (kind,) = struct.unpack_from(f"{order}h", data, 70)
            (offset,) = struct.unpack_from(f"{order}f", data, 108)
        else:
            (kind,) = struct.unpack_from(f"{order}h", data, 12)
            dims = struct.unpack_from(f"{order}8q", data, 16)
            (offset,) = struct.unpack_from(f"{order}q", data, 168)
    except struct.error as error:
        return Volume(b"", b"", f"no header: {error}")
    if not (1 <= dims[0] <= 7 and kind in NIFTI_BYTES and isfinite(offset) and float(offset).is_integer()):
        return Volume(b"", b"", "a header of impossible numbers")
    size, offset = prod(dims[1 : dims[0] + 1]) * NIFTI_BYTES[kind], int(offset)
    fault = "" if offset + size == len(data) else f"{offset + size} bytes promised, {len(data)} there"
    return Volume(data[:offset], data[offset:], fault)


META_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}


def _lines(data: bytes, sign: str) -> tuple[dict[str, str], str]:
    lines = [
        line.decode("utf-8", "replace") for line in data.split(b"\n") if not line.startswith(b"#")
    ]  # NRRD's comments
    pairs = [line.partition(sign) for line in lines]
    # The names of MetaImage's fields are as they are written.
    keys = Counter(key.strip() if sign == "=" else key.strip().lower() for key, found, _ in pairs if found)
    twice = [key for key, count in keys.items() if count > 1]
    fields = {key.strip(): value.strip() for key, found, value in pairs if found}
    return fields, f"{twice[0]} stands twice" if twice else ""


def metaimage(files: Files, entry: str) -> Volume:
    data = files[entry]
    end = data.find(b"\n", data.find(b"ElementDataFile")) + 1
    header = data[:end] if end else data
    fields, fault = _lines(header, "=")
    place = fields.get("ElementDataFile", "")
    voxels = data[len(header) :] if place.upper() == "LOCAL" else files.get(place, b"")
    try:
        shape = [int(word) for word in fields.get("DimSize", "").split()]
        promised = prod(shape) * META_BYTES[fields["ElementType"].removeprefix("MET_").removeprefix("U")]
        said = int(fields.get("CompressedDataSize", len(voxels)))
        if int(fields.get("NDims", "3")) != len(shape):
            fault = fault or "NDims is not how many sizes there are"
    except (ValueError, KeyError) as error:
        return Volume(header, b"", f"a field that is not what it must be: {error!r}")
    if fields.get("CompressedData", "")[:1] in ("T", "t", "1"):
        if said != len(voxels):
            fault = fault or "CompressedDataSize is not the size of the compressed data"
        voxels, broken = _unpacked(voxels, "zlib")
        fault = fault or broken
    if not fault and int(fields.get("HeaderSize", "0")) == 0 and len(voxels) != promised:
        fault = f"{promised} bytes promised, {len(voxels)} there"
    return Volume(header, voxels, fault)


NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t", "ushort", "unsigned short"), 2),
    **dict.fromkeys(("uint16", "uint16_t", "unsigned short int", "signed short int"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "int64", "int64_t", "uint64", "uint64_t", "double"), 8),
}


def nrrd(files: Files, entry: str) -> Volume:
    data = files[entry]
    end = min((at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := data.find(mark)) >= 0), default=len(data))
    header = data[:end]
    fields, fault = _lines(header, ":")
    fields = {key.lower(): value for key, value in fields.items()}
    place = fields.get("data file", fields.get("datafile"))
    voxels = data[end:] if place is None else files.get(place, b"")
    try:
        shape = [int(word) for word in fields.get("sizes", "").split()]
        promised = prod(shape) * NRRD_BYTES[fields["type"].lower()]
        if int(fields.get("dimension", "")) != len(shape):
            fault = fault or "dimension is not how many sizes there are"
        skips = any(int(fields.get(key, "0")) for key in ("line skip", "lineskip", "byte skip", "byteskip"))
    except (ValueError, KeyError) as error:
        return Volume(header, b"", f"a field that is not what it must be: {error!r}")
    kinds = {"gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
    if skips:
        return Volume(header, voxels, fault)
    if kind := kinds.get(fields.get("encoding", "").lower()):
        voxels, broken = _unpacked(voxels, kind)
        fault = fault or broken
    if not fault and len(voxels) != promised:
        fault = f"{promised} bytes promised, {len(voxels)} there"
    return Volume(header, voxels, fault)
