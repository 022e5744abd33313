"""Ways to damage a seed: its bytes, its fields, or what lies inside its compression, packed with a right checksum."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Literal

from pydicom.encaps import encapsulate, generate_frames

from fuzz import damage, elements, ways_json
from fuzz.bombs import bomb
from fuzz.seed import Files, Seed, zipped
from fuzz.ways_pacs import answer
from fuzz.ways_sqlite import pages, sql
from nodule_diag.bundle import MANIFEST_NAME

Way = Callable[[Random, Seed, list[bytes]], Files]

NIFTI_FIELDS = (
    *((offset, "h") for offset in (40, 42, 44, 46, 48, 70, 72, 252, 254)),
    *(
        (offset, "f")
        for offset in (76, 80, 84, 88, 108, 112, 116, 256, 260, 264, 268, 280, 284, 292, 296, 304, 316, 324)
    ),
    *((0, "i"), (123, "b"), (344, "i")),
)
"""Offset and type of what a reader of NIfTI-1 obeys (nifti1.h)."""
NIFTI2_FIELDS = (
    *((0, "i"), (4, "i"), (12, "h"), (14, "h"), (16, "q"), (24, "q"), (32, "q"), (40, "q"), (48, "q"), (104, "d")),
    *((112, "d"), (120, "d"), (128, "d"), (168, "q"), (176, "d"), (184, "d"), (344, "i"), (348, "i"), (352, "d")),
    *((376, "d"), (400, "d"), (424, "d"), (448, "d"), (480, "d"), (500, "i")),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 352.5, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"), 3.4e38)
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def mutant(seed: Seed, number: int, *, run: int, others: list[bytes]) -> tuple[str, Files]:
    """The mutant of a number: the same files for the same seed, number and run, on every machine.

    Returns:
        The way that made it, and its files.
    """
    rng = Random(f"{run}/{seed.name}/{number}")
    way = rng.choice(seed.ways)
    for _ in range(5):
        files = WAYS[way](rng, seed, others)
        if files != seed.files:
            break
    return way, files


def _chosen(rng: Random, files: Files) -> str:
    return rng.choice(sorted(files))


def _bytes(rng: Random, seed: Seed, others: list[bytes]) -> Files:
    name = _chosen(rng, seed.files)
    new = damage.damaged(rng, seed.files[name], head=seed.heads.get(name, 0), others=others)
    return {**seed.files, name: new}


def _text(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    name = rng.choice(list(seed.heads)) if len(seed.heads) > 1 else next(iter(seed.heads))
    data, head = seed.files[name], seed.heads[name]
    return {**seed.files, name: damage.damaged_text(rng, data[:head]) + data[head:]}


def _within_gzip(change: Callable[[Random, bytes, Seed], bytes]) -> Way:
    def way(rng: Random, seed: Seed, _: list[bytes]) -> Files:
        inner = gzip.decompress(seed.files[seed.entry])
        return {seed.entry: gzip.compress(change(rng, inner, seed), 1, mtime=0)}

    return way


def _inner_bytes(rng: Random, data: bytes, _: Seed) -> bytes:
    return damage.damaged(rng, data, head=544)


def _nifti_fields(rng: Random, data: bytes, _: Seed) -> bytes:
    """One or two fields of the header become boundaries or neighbours of what they were."""
    new = bytearray(data)
    order: Literal["little", "big"] = "little" if int.from_bytes(data[:4], "little") in (348, 540) else "big"
    fields, mark = NIFTI_FIELDS if int.from_bytes(data[:4], order) == 348 else NIFTI2_FIELDS, "<>"[order == "big"]
    for _ in range(rng.choice((1, 1, 2))):
        offset, kind = rng.choice(fields)
        (old,) = struct.unpack_from(mark + kind, new, offset)
        if kind in "fd":
            value = rng.choice((*FLOATS, -old, 2 * old, old + 1))
            struct.pack_into(mark + kind, new, offset, value if kind == "d" else max(min(value, 3.4e38), -3.4e38))
        else:
            size = struct.calcsize(kind)
            value = rng.choice((*damage.BOUNDARIES, old + 1, old - 1, -old, 512, 768, 4, 8, 16, 64))
            new[offset : offset + size] = (int(value) % 2 ** (8 * size)).to_bytes(size, order)
    return bytes(new)


def _nifti(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    return {seed.entry: _nifti_fields(rng, seed.files[seed.entry], seed)}


def _payload(rng: Random, seed: Seed, others: list[bytes]) -> Files:
    """The voxels of a MetaImage or NRRD behind its compression; the MetaImage's CompressedDataSize is put right."""
    name = list(seed.files)[-1]
    head = seed.heads.get(name, 0)
    header, packed = seed.files[name][:head], seed.files[name][head:]
    if packed.startswith(b"BZh"):
        return {**seed.files, name: header + bz2.compress(damage.damaged(rng, bz2.decompress(packed)), 1)}
    if packed.startswith(b"\x1f\x8b"):
        return {**seed.files, name: header + gzip.compress(damage.damaged(rng, gzip.decompress(packed)), 1, mtime=0)}
    packed = zlib.compress(damage.damaged(rng, zlib.decompress(packed)), 1)
    files = {**seed.files, name: header + packed}
    text = files[seed.entry]
    files[seed.entry] = re.sub(rb"(?m)^(CompressedDataSize = )\d+", rb"\g<1>%d" % len(packed), text, count=1)
    return files


def _elements(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    """An element of one slice, or the same one of every slice, is edited."""
    implicit = seed.name == "dicom-implicit"
    state = rng.getrandbits(64)
    names = sorted(seed.files) if rng.random() < 0.2 else [_chosen(rng, seed.files)]
    return seed.files | {name: elements.edited(Random(state), seed.files[name], implicit=implicit) for name in names}


def _deflated(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    name = _chosen(rng, seed.files)
    data = seed.files[name]
    meta, _rest = elements.walked(data, implicit=False)
    start = len(elements.joined(data, meta, []))
    inner = zlib.decompressobj(-15).decompress(data[start:])
    if rng.random() < 0.5:
        inner = elements.edited(rng, bytes(132) + inner)[132:]
    else:
        inner = damage.damaged(rng, inner, head=800)
    packer = zlib.compressobj(1, wbits=-15)
    return {**seed.files, name: data[:start] + packer.compress(inner) + packer.flush()}


def _frame(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    """The compressed frame of a slice, in items of the right length."""
    name = _chosen(rng, seed.files)
    data = seed.files[name]
    meta, rest = elements.walked(data, implicit=False)
    old = rest[-1]
    frame = next(generate_frames(old.value, number_of_frames=1))
    new = damage.damaged(rng, frame, head=80)
    rest[-1] = old._replace(value=encapsulate([new or b"\0\0"]) + SEQUENCE_END)
    return {**seed.files, name: elements.joined(data, meta, rest)}


def _files(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    """A file goes, comes twice, is emptied, or two change places."""
    files = dict(seed.files)
    name, other = _chosen(rng, files), _chosen(rng, files)
    folder = name.rpartition("/")[0]
    kind = rng.randrange(5)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files[f"{folder}/copy.dcm"] = files[name]
    elif kind == 2:
        files[name] = b""
    elif kind == 3:
        files[name], files[other] = files[other], files[name]
    else:
        files[rng.choice((f"{folder}/._x.dcm", f"{folder}/sub/x.dcm", f"{folder}/\u202egpj.dcm"))] = files[name][:200]
    return files


def _zip_fields(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    """A field of a local header, of the directory or of the record at the end becomes a boundary."""
    data = bytearray(seed.files[seed.entry])
    signature, length = rng.choice(((b"PK\x03\x04", 30), (b"PK\x01\x02", 46), (b"PK\x05\x06", 22)))
    starts = [one.start() for one in re.finditer(re.escape(signature), bytes(data))]
    at = rng.choice(starts)
    size = rng.choice((2, 4))
    field = at + rng.randrange(4, length - size + 1, 2)
    old = int.from_bytes(data[field : field + size], "little")
    new = rng.choice((*damage.BOUNDARIES, old + 1, old - 1, old ^ 1 << rng.randrange(8 * size))) % 2 ** (8 * size)
    data[field : field + size] = new.to_bytes(size, "little")
    return {seed.entry: bytes(data)}


def _member(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    """A member of the archive is damaged, and packed with a right checksum."""
    with zipfile.ZipFile(io.BytesIO(seed.files[seed.entry])) as archive:
        inner = {name: archive.read(name) for name in archive.namelist()}
    name = _chosen(rng, inner)
    if name.endswith(".dcm") and rng.random() < 0.7:
        inner[name] = elements.edited(rng, inner[name])
    elif rng.random() < 0.2:
        inner = _files(rng, Seed("", "", "", "", inner, (), "", {}), [])
    else:
        inner[name] = damage.damaged(rng, inner[name], head=800)
    return {seed.entry: zipped(inner)}


def _json(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    return {seed.entry: ways_json.edited(rng, seed.files[seed.entry])}


def _manifest(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    name = f"{seed.entry}/{MANIFEST_NAME}"
    return {**seed.files, name: ways_json.edited(rng, seed.files[name])}


def _rehashed(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    """The network or the case base is damaged, and the manifest's hash put right: the inner parsers are reached."""
    files = dict(seed.files)
    name = rng.choice((f"{seed.entry}/model.onnx", f"{seed.entry}/model.onnx", f"{seed.entry}/index/cases.sqlite"))
    files[name] = damage.damaged(rng, files[name], head=2000)
    manifest = json.loads(files[f"{seed.entry}/{MANIFEST_NAME}"])
    manifest["files"][name.removeprefix(f"{seed.entry}/")] = hashlib.sha256(files[name]).hexdigest()
    files[f"{seed.entry}/{MANIFEST_NAME}"] = json.dumps(manifest).encode()
    return files


WAYS: dict[str, Way] = {
    "bytes": _bytes,
    "text": _text,
    "gzip": _within_gzip(_inner_bytes),
    "gzip-nifti": _within_gzip(_nifti_fields),
    "nifti": _nifti,
    "payload": _payload,
    "elements": _elements,
    "deflated": _deflated,
    "frame": _frame,
    "files": _files,
    "zip": _zip_fields,
    "member": _member,
    "json": _json,
    "manifest": _manifest,
    "rehashed": _rehashed,
    "pages": pages,
    "sql": sql,
    "bomb": bomb,
    "answer": answer,
}
