"""What a DICOM series can know of its damage: lengths within a slice, and what the other slices say."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from math import isclose

import numpy as np

from fuzz.elements import Element, joined, walked
from fuzz.readers import Answer
from fuzz.seed import Files

PIXELS, SYNTAX = 0x7FE00010, 0x00020010
ROWS, COLUMNS, FRAMES, ALLOCATED, SAMPLES = 0x00280010, 0x00280011, 0x00280008, 0x00280100, 0x00280002
SLOPE, INTERCEPT = 0x00281053, 0x00281052
NEAR = {SLOPE: 0.03, INTERCEPT: 30.0}
"""What is so near moves tissue by less than neighbours differ by nature: that is said to be let through."""
EXACT = {
    SLOPE: "RescaleSlope",
    INTERCEPT: "RescaleIntercept",
    ROWS: "Rows",
    COLUMNS: "Columns",
    ALLOCATED: "BitsAllocated",
    0x00280101: "BitsStored",
    0x00280102: "HighBit",
    0x00280103: "PixelRepresentation",
}
"""Must be the same in all slices wherever voxels changed."""
ONE_PATIENT = {0x00100020: "PatientID", 0x00200052: "FrameOfReferenceUID"}
"""Must be the same in all slices that have it, whatever the voxels are."""
MOVED_MM = 0.5
"""Scanners round positions to a tenth of a millimetre; what is further from where the others put it was moved."""


def dicom_contradiction(seed: Files, files: Files, good: Answer, found: Answer) -> tuple[str, bool]:
    """What the files themselves say against the answer.

    Returns:
        Why it is wrong, empty when nothing is; and whether a new warning of the reader's excuses it: a slice may be set
        aside with a word, but not pixels that are shorter than the header says.
    """
    order = sorted(seed)
    left = Counter(files.values())
    touched = [number for number, name in enumerate(order) if not left[seed[name]]]
    strange = [data for data in files.values() if data not in set(seed.values())]
    same = found.value == good.value
    few = len(touched) * 2 < len(order)
    whole = elements_of(seed[order[0]])
    if not same:
        for data in strange:
            if fault := pixels_fault(elements_of(data)):
                return fault, len(order) > 1
    for data in strange if few else ():
        there = elements_of(data)
        for tag, word in (ONE_PATIENT if same else ONE_PATIENT | EXACT).items():
            if (
                tag in there
                and _text(there[tag])
                and not _alike(there[tag], whole.get(tag, b""), near=NEAR.get(tag, 0.0))
            ):
                return f"{word} of a slice is {_text(there[tag])!r}, of the others {_text(whole.get(tag, b''))!r}", True
    if same:
        return "", True
    if found.hu is None or good.hu is None or found.corners_mm is None or good.corners_mm is None:
        raise TypeError("an answer of a CT has voxels")
    if found.hu.shape != good.hu.shape:
        gone = [number for number, name in enumerate(order) if name not in files]
        if few and len(files) >= len(seed) and len(order) > 1:
            return f"{good.hu.shape[0] - found.hu.shape[0]} slices are missing without a word", True
        middle = any(0 < number < len(order) - 1 for number in gone)
        return ("a slice within the volume is missing without a word" if middle else ""), True
    if few and len(order) > 1:
        moved = float(np.linalg.norm(found.corners_mm - good.corners_mm, axis=1).max())
        if moved > MOVED_MM:
            return f"one slice moved a corner of the volume by {moved:.2f} mm", True
        changed = [n for n in range(len(order)) if not np.array_equal(found.hu[n], good.hu[n])]
        if not set(changed) <= set(touched):
            return f"slices {changed} changed, and only {touched} were damaged", True
    return "", True


def elements_of(data: bytes) -> dict[int, bytes]:
    """Values by tag of a file, the first where one comes twice; under -1 what is wrong with its structure."""
    meta, _ = walked(data, implicit=False)
    syntax = _text(next((one.value for one in meta if one.tag == SYNTAX), b""))
    fault = b""
    if syntax == "1.2.840.10008.1.2.1.99":
        start = len(joined(data, meta, []))
        unpacker = zlib.decompressobj(-15)
        try:
            data = bytes(132) + unpacker.decompress(data[start:])
            fault = b"" if unpacker.eof else b"the deflated stream does not end"
        except zlib.error as error:
            fault = str(error).encode()
    _, rest = walked(data, implicit=syntax == "1.2.840.10008.1.2")
    found: dict[int, bytes] = {SYNTAX: syntax.encode(), -1: fault}
    for one in rest:
        found.setdefault(one.tag, one.value)
        if one.tag == PIXELS:
            found[-1] = found[-1] or _length_fault(one)
            break
    return found


def _length_fault(one: Element) -> bytes:
    length = int.from_bytes(one.head[-4:], "little")
    return b"" if length in (0xFFFFFFFF, len(one.value)) else b"pixel data end behind the file's end"


def pixels_fault(there: dict[int, bytes]) -> str:
    """Whether pixels are as many as the header says: native by their bytes, compressed by their own header."""
    if fault := there[-1]:
        return fault.decode()
    if PIXELS not in there:
        return "no pixel data"
    rows, columns, allocated = (int.from_bytes(there.get(tag, b"")[:2], "little") for tag in (ROWS, COLUMNS, ALLOCATED))
    try:
        frames = int(_text(there.get(FRAMES, b"1")) or 1)
    except ValueError:
        return "NumberOfFrames is not a number"
    pixels, syntax = there[PIXELS], there[SYNTAX].decode()
    native = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "")
    if syntax in native:
        promised = rows * columns * frames * allocated // 8
        return "" if len(pixels) - promised in (0, promised % 2) else f"{promised} bytes promised, {len(pixels)} there"
    items, fault = _items(pixels)
    if fault or not items:
        return fault or "no frame"
    frame = items[0]
    if syntax.startswith("1.2.840.10008.1.2.5"):
        return _runs_fault(frame, rows * columns)
    size = _jpeg_size(frame)
    return "" if size in (None, (rows, columns)) else f"a code stream of {size} pixels in an image of {(rows, columns)}"


def _items(pixels: bytes) -> tuple[list[bytes], str]:
    """The frames' fragments behind the offset table."""
    at, items = 0, []
    while at + 8 <= len(pixels):
        tag, length = struct.unpack_from("<II", pixels, at)
        if tag == 0xE0DDFFFE:
            return items[1:], ""
        if tag != 0xE000FFFE or at + 8 + length > len(pixels):
            break
        items.append(pixels[at + 8 : at + 8 + length])
        at += 8 + length
    return items[1:], "the items of the compressed pixels do not end as they say"


def _runs_fault(frame: bytes, pixels: int) -> str:
    """Whether each segment of run lengths gives as many bytes as there are pixels (DICOM PS3.5, annex G)."""
    count, *offsets = struct.unpack_from("<16I", frame) if len(frame) >= 64 else (0,)
    if not 0 < count <= 15:
        return f"{count} segments of run lengths"
    for at, end in zip(offsets[:count], [*offsets[1:count], len(frame)], strict=True):
        done = 0
        while done < pixels and at < min(end, len(frame)):
            code = frame[at]
            done += code + 1 if code < 128 else 257 - code if code > 128 else 0
            at += code + 2 if code < 128 else 2 if code > 128 else 1
        if done != pixels or frame[at:end] not in (b"", b"\0", b"\0\0", b"\0\0\0"):  # padded to a length of two or four
            return f"run lengths of {done} bytes, and {end - at} left, for {pixels} pixels"
    return ""


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS or JPEG 2000 code stream; None where it has no such header."""
    if frame.startswith(b"\xff\x4f\xff\x51") and len(frame) >= 24:
        x, y, left, top = struct.unpack_from(">4I", frame, 8)
        return y - top, x - left
    at = 2
    while frame.startswith(b"\xff\xd8") and at + 9 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4])
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">2H", frame, at + 5)
            return rows, columns
        at += 2 + length
    return None


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip("\0 ")


def _alike(one: bytes, other: bytes, *, near: float) -> bool:
    """The same text, or the same number in another spelling; or one that is near it."""
    try:
        return _text(one) == _text(other) or isclose(float(_text(one)), float(_text(other)), rel_tol=0, abs_tol=near)
    except ValueError:
        return False
