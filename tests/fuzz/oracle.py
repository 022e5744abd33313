"""Whether an answer about a damaged file may stand: what the format itself could have known, by code of its own.

Nothing here is the SDK's: checksums, lengths and repeated fields are looked at with the standard library. An answer
that differs from the seed's although one of them is broken is wrong. Where only voxels were damaged that nothing
protects, the answer must be exactly those voxels. docs/reliability.md says the rule of each format in words.
"""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from fuzz.oracle_dicom import dicom_contradiction
from fuzz.oracle_pacs import fetched_contradiction, stored_contradiction
from fuzz.oracle_plain import Volume, metaimage, nifti, nrrd
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


def _table(seed: Seed, files: Files, good: Answer, found: Answer) -> Verdict:
    if found.value == good.value:
        return Verdict(RIGHT)
    ids = [case["case_id"] for case, *_ in found.value]
    numbers = [case[key] for case, *_ in found.value for key in ("malignancy", "expert_score")]
    numbers += [number for _, xyz, _ in found.value for number in xyz]
    numbers += [one for case, *_ in found.value for one in case["columns"].values() if isinstance(one, float)]
    if len(set(ids)) != len(ids) or not all(map(isfinite, numbers)):
        return Verdict(WRONG, "a case that stands twice, or a number that is none")
    if seed.entry.endswith("json"):
        try:
            json.loads(files[seed.entry].decode("utf-8-sig"), object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            return Verdict(WRONG, f"JSON: {error}")
    return Verdict(UNKNOWABLE)


def _where(seed: Seed, files: Files, good: Answer, found: Answer) -> Verdict:
    """A filter and its opposite part the cases: nothing is lost, nothing comes twice, and the base stays as it is."""
    those, others, same, untouched = found.value
    known = sorted(map(tuple, good.value[0] + good.value[1]))
    if sorted(map(tuple, [*those, *others])) != known or not same or not untouched:
        return Verdict(WRONG, "the filter and its opposite do not part the cases, or it changed them")
    return Verdict(RIGHT if those == good.value[0] else UNKNOWABLE)


def _fetched(seed: Seed, files: Files, good: Answer, found: Answer) -> Verdict:
    if found.value == good.value:
        return Verdict(RIGHT)
    why, excused = fetched_contradiction(seed.files, files, good, found)
    return _with_warnings(why, good, found, excused=excused)


def _stored(seed: Seed, files: Files, _: Answer, __: Answer) -> Verdict:
    why = stored_contradiction(seed.files, files)
    return Verdict(WRONG, why) if why else Verdict(RIGHT)


_RULES: dict[str, Callable[[Seed, Files, Answer, Answer], Verdict]] = {
    "nifti": _plain(nifti),
    "metaimage": _plain(metaimage),
    "nrrd": _plain(nrrd),
    "dicom": _dicom,
    "zip": _zip,
    "bundle": _bundle,
    "model": _model,
    "cases": _cases,
    "points": _points,
    "table": _table,
    "where": _where,
    "fetched": _fetched,
    "stored": _stored,
}
