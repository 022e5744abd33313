"""Whether an answer about a damaged file may stand: what the format itself could have known, by code of its own.

Nothing here is the SDK's: checksums, lengths and repeated fields are looked at with the standard library. An answer that
differs from the seed's although one of them is broken is wrong. Where only voxels were damaged that nothing protects, the answer
must be exactly those voxels. docs/reliability.md says the rule of each format in words.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import sqlite3
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from math import isfinite, prod
from typing import Any, NamedTuple

import numpy as np

from fuzz.oracle_dicom import dicom_contradiction
from fuzz.readers import Answer
from fuzz.seed import Files, Seed

RIGHT, WARNED, UNKNOWABLE, WRONG = "right", "warned", "unknowable", "wrong"
PADDING_FLOOR_HU = -1024
RANGES = {"malignancy": (0.0, 1.0), "expert_score": (1.0, 5.0), "cam": (0.0, 1.0), "segmentation": (0.0, 1.0)}
SLACK = 1e-4


class Verdict(NamedTuple):
    """What an answer is worth, and why."""

    kind: str
    why: str = ""


class Volume(NamedTuple):
    """A plain file as an independent reader sees it."""

    header: bytes
    voxels: bytes
    broken: str = ""


def judge(seed: Seed, files: Files, good: Answer, found: Answer) -> Verdict:
    """Judge an answer that a reader gave about a mutant.

    Args:
        seed: What the mutant was made from.
        files: The mutant.
        good: The answer about the seed.
        found: The answer about the mutant.
    """
    return _RULES[seed.rule](seed, files, good, found)


def _plain(parse: Callable[[Files, str], Volume]) -> Callable[..., Verdict]:
    def rule(seed: Seed, files: Files, good: Answer, found: Answer) -> Verdict:
        if found.value == good.value:
            return Verdict(RIGHT)
        volume, was = parse(files, seed.entry), parse(seed.files, seed.entry)
        if volume.broken:
            return Verdict(WRONG, volume.broken)
        if volume.header == was.header and found.hu is not None and good.hu is not None:
            return _exact(volume.voxels, seed, good.hu, found.hu)
        return Verdict(WARNED if set(found.warnings) - set(good.warnings) else UNKNOWABLE)

    return rule


def _exact(voxels: bytes, seed: Seed, good: np.ndarray, found: np.ndarray) -> Verdict:
    """Only unprotected voxels were damaged: the answer must be just those."""
    kind = ">f4" if "float" in seed.name else "<i2"
    expected = np.maximum(np.frombuffer(voxels, kind).reshape(good.shape).astype(np.float64), PADDING_FLOOR_HU)
    if found.shape == good.shape and np.array_equal(expected.astype(found.dtype), found):
        return Verdict(UNKNOWABLE, "voxels that nothing protects")
    return Verdict(WRONG, "the header is whole, and other voxels were read than stand in the file")


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


def _nifti(files: Files, entry: str) -> Volume:
    data = files[entry]
    if data.startswith(b"\x1f\x8b") or entry.endswith(".gz"):
        data, fault = _unpacked(data, "gzip")
        if fault:
            return Volume(b"", b"", fault)
    order = "<" if data[:4] in (b"\x5c\1\0\0", b"\x1c\2\0\0") else ">"
    try:
        if struct.unpack_from(f"{order}i", data)[0] == 348:
            dims = struct.unpack_from(f"{order}8h", data, 40)
            kind, bits = struct.unpack_from(f"{order}2h", data, 70)
            (offset,) = struct.unpack_from(f"{order}f", data, 108)
        else:
            kind, bits = struct.unpack_from(f"{order}2h", data, 12)
            dims = struct.unpack_from(f"{order}8q", data, 16)
            (offset,) = struct.unpack_from(f"{order}q", data, 168)
    except struct.error as error:
        return Volume(b"", b"", f"no header: {error}")
    if not (1 <= dims[0] <= 7 and kind in NIFTI_BYTES and isfinite(offset) and float(offset).is_integer()):
        return Volume(b"", b"", "a header of impossible numbers")
    if bits != 8 * NIFTI_BYTES[kind]:
        return Volume(b"", b"", f"datatype {kind} does not have the {bits} bits of bitpix")
    size, offset = prod(dims[1 : dims[0] + 1]) * NIFTI_BYTES[kind], int(offset)
    fault = "" if offset + size == len(data) else f"{offset + size} bytes promised, {len(data)} there"
    return Volume(data[:offset], data[offset:], fault)


META_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}


def _lines(data: bytes, sign: str) -> tuple[dict[str, str], str]:
    pairs = [line.decode("utf-8", "replace").partition(sign) for line in data.split(b"\n")]
    keys = Counter(key.strip().lower() for key, found, _ in pairs if found)
    twice = [key for key, count in keys.items() if count > 1]
    fields = {key.strip(): value.strip() for key, found, value in pairs if found}
    return fields, f"{twice[0]} stands twice" if twice else ""


def _metaimage(files: Files, entry: str) -> Volume:
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
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4),
    **dict.fromkeys(("longlong", "long long", "int64", "int64_t", "uint64", "uint64_t", "double"), 8),
}


def _nrrd(files: Files, entry: str) -> Volume:
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


def _dicom(seed: Seed, files: Files, good: Answer, found: Answer) -> Verdict:
    why, excused = dicom_contradiction(seed.files, files, good, found)
    return _with_warnings(why, good, found, excused=excused)


def _with_warnings(why: str, good: Answer, found: Answer, *, excused: bool) -> Verdict:
    said = bool(set(found.warnings) - set(good.warnings))
    if why and not (said and excused):
        return Verdict(WRONG, why)
    if found.value == good.value:
        return Verdict(RIGHT)
    return Verdict(WARNED if said else UNKNOWABLE)


def unzipped(data: bytes) -> tuple[Files, str]:
    """The files of a zip, and what its checksums and counts say against it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            files = {one.filename: archive.read(one) for one in entries if not one.is_dir()}  # checks each CRC
            end = data.rfind(b"PK\x05\x06")
            counts = struct.unpack_from("<2H", data, end + 8)
    except Exception as error:  # noqa: BLE001 - zipfile lets out half a dozen kinds, and each means damage
        return {}, f"zip: {error!r}"
    return files, "" if counts == (len(entries),) * 2 else f"the zip says {counts} files and lists {len(entries)}"


def _zip(seed: Seed, files: Files, good: Answer, found: Answer) -> Verdict:
    inner, fault = unzipped(files[seed.entry])
    if fault:
        return Verdict(RIGHT) if found.value == good.value else Verdict(WRONG, fault)
    was, _ = unzipped(seed.files[seed.entry])
    why, excused = dicom_contradiction(was, inner, good, found)
    return _with_warnings(why, good, found, excused=excused)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _bundle(seed: Seed, files: Files, good: Answer, found: Answer) -> Verdict:
    if found.value == good.value:
        return Verdict(RIGHT)
    if seed.entry.endswith(".zip"):
        inner, fault = unzipped(files[seed.entry])
        if fault:
            return Verdict(WRONG, fault)
    else:
        inner = {name.removeprefix("bundle/"): data for name, data in files.items()}
    try:
        said = json.loads(inner.pop("manifest.json"), object_pairs_hook=_once)["files"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Verdict(WRONG, f"manifest.json: {error!r}")
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in inner.items()}
    return Verdict(UNKNOWABLE) if hashes == said else Verdict(WRONG, "a sha256 of the manifest is not its file's")


def _model(seed: Seed, files: Files, good: Answer, found: Answer) -> Verdict:
    """Whoever makes the hashes right may exchange the network; what it answers must be what such networks answer."""
    for name, (low, high) in RANGES.items():
        least, most = found.figures[name]
        if not low - SLACK <= least <= most <= high + SLACK:
            return Verdict(WRONG, f"{name} runs from {least:g} to {most:g}")
    return Verdict(RIGHT if found.value == good.value else UNKNOWABLE)


def _cases(seed: Seed, files: Files, good: Answer, found: Answer) -> Verdict:
    if found.value == good.value:
        return Verdict(RIGHT)
    data = files[seed.entry]
    page = int.from_bytes(data[16:18], "big")
    promised = int.from_bytes(data[28:32], "big") * (65536 if page == 1 else page)
    if promised != len(data):
        return Verdict(WRONG, f"{promised} bytes promised, {len(data)} there")
    base = sqlite3.connect(":memory:")
    try:
        base.deserialize(data)
        faults = [*base.execute("PRAGMA integrity_check"), *base.execute("PRAGMA foreign_key_check")]
    except sqlite3.Error as error:
        faults = [("ok",), (str(error),)]
    finally:
        base.close()
    return Verdict(UNKNOWABLE) if faults == [("ok",)] else Verdict(WRONG, f"SQLite: {faults[-1]}")


def _points(seed: Seed, files: Files, good: Answer, found: Answer) -> Verdict:
    if not found.value or not all(map(isfinite, [number for _, *xyz in found.value for number in xyz])):
        return Verdict(WRONG, "no point, or one that is nowhere")
    if found.value == good.value:
        return Verdict(RIGHT)
    if seed.entry.endswith("json"):
        try:
            json.loads(files[seed.entry].decode("utf-8-sig"), object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            return Verdict(WRONG, f"JSON: {error}")
    return Verdict(UNKNOWABLE)


_RULES: dict[str, Callable[[Seed, Files, Answer, Answer], Verdict]] = {
    "nifti": _plain(_nifti),
    "metaimage": _plain(_metaimage),
    "nrrd": _plain(_nrrd),
    "dicom": _dicom,
    "zip": _zip,
    "bundle": _bundle,
    "model": _model,
    "cases": _cases,
    "points": _points,
}
