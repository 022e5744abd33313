"""The elements of a DICOM file as bytes, without pydicom: walked, changed, left out, doubled, moved and nested."""

from __future__ import annotations

import struct
from random import Random
from typing import NamedTuple

from fuzz.damage import BOUNDARIES, NUMBERS, damaged

_START = 132
_LONG_LENGTHS = (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"OD", b"UC", b"UR", b"OL")
_TEXTS = (b"DS", b"IS", b"UI", b"CS", b"LO", b"SH", b"ST", b"PN", b"DA", b"TM")
_DEEP = (20, 1_000, 40_000)


class Element(NamedTuple):
    """One element: its head (tag, VR, length) and its value."""

    tag: int
    vr: bytes
    head: bytes
    value: bytes


def walked(data: bytes, *, implicit: bool) -> tuple[list[Element], list[Element]]:
    """The elements of group 2, and those of the data set. Sequences are one value, whatever they hold."""
    at, meta, rest = _START, [], []
    while at + 8 <= len(data):
        group, element = struct.unpack_from("<HH", data, at)
        vr = data[at + 4 : at + 6] if group == 2 or not implicit else b""
        if vr in _LONG_LENGTHS:
            size, length = 12, struct.unpack_from("<I", data, at + 8)[0]
        elif vr:
            size, length = 8, struct.unpack_from("<H", data, at + 6)[0]
        else:
            size, length = 8, struct.unpack_from("<I", data, at + 4)[0]
        end = len(data) if length == 0xFFFFFFFF else min(len(data), at + size + length)
        one = Element(group << 16 | element, vr, data[at : at + size], data[at + size : end])
        (meta if group == 2 else rest).append(one)
        at = end
    return meta, rest


def joined(data: bytes, meta: list[Element], rest: list[Element]) -> bytes:
    """The file again."""
    return data[:_START] + b"".join(one.head + one.value for one in (*meta, *rest))


def with_value(one: Element, value: bytes) -> Element:
    """The element with another value, and the length of that."""
    value += b"\0" * (len(value) % 2) if one.vr in (b"UI", b"OB", b"OW", b"US") else b" " * (len(value) % 2)
    kind = "<I" if len(one.head) == 12 or not one.vr else "<H"
    length = min(len(value), 0xFFFF if kind == "<H" else 0xFFFFFFFF)
    return one._replace(head=one.head[: -struct.calcsize(kind)] + struct.pack(kind, length), value=value)


def edited(rng: Random, data: bytes, *, implicit: bool = False) -> bytes:
    """One edit of one element; the same generator state makes the same edit of every slice."""
    meta, rest = walked(data, implicit=implicit)
    part = meta if rng.random() < 0.1 and meta else rest
    if not part:
        return damaged(rng, data)
    at, kind = rng.randrange(len(part)), rng.randrange(12)
    one = part[at]
    if kind <= 5:
        part[at] = with_value(one, _value(rng, one))
    elif kind == 6:
        del part[at]
    elif kind == 7:
        part.insert(rng.randrange(len(part) + 1), with_value(one, _value(rng, one)) if rng.random() < 0.5 else one)
    elif kind == 8:  # a length that is not the value's
        size = 4 if len(one.head) == 12 or not one.vr else 2
        length = rng.choice((*BOUNDARIES, len(one.value) + 2, max(0, len(one.value) - 2))) % 2 ** (8 * size)
        part[at] = one._replace(head=one.head[:-size] + length.to_bytes(size, "little"))
    elif kind == 9:
        to = rng.randrange(len(part))
        part[at], part[to] = part[to], part[at]
    elif kind == 10:
        part.insert(at, _bomb(rng, implicit=implicit))
    else:
        part[at] = one._replace(head=damaged(rng, one.head))
    return joined(data, meta, rest)


def _value(rng: Random, one: Element) -> bytes:
    if one.vr == b"US" or (not one.vr and len(one.value) == 2):
        old = int.from_bytes(one.value[:2], "little")
        choices = (*BOUNDARIES, old + 1, old - 1, old ^ 1 << rng.randrange(16))
        return (rng.choice(choices) % 2**16).to_bytes(2, "little") * rng.choice((1, 1, 1, 2))
    if one.vr in _TEXTS or (not one.vr and len(one.value) < 200):
        parts = one.value.decode("latin-1").rstrip("\0 ").split("\\")
        at = rng.randrange(len(parts))
        parts[at] = rng.choice(
            (*NUMBERS, parts[at][:-1], parts[at] + "1", "A" * 1500, parts[rng.randrange(len(parts))])
        )
        if rng.random() < 0.2:
            parts.append(parts[0])
        return "\\".join(parts).encode("utf-8")
    return damaged(rng, one.value)


def _bomb(rng: Random, *, implicit: bool) -> Element:
    """Sequences in sequences, none of which says where it ends."""
    head = b"\x08\x00\x40\x11" + (b"" if implicit else b"SQ\0\0") + b"\xff" * 4
    item = b"\xfe\xff\x00\xe0" + b"\xff" * 4
    return Element(0x00081140, b"" if implicit else b"SQ", head, item + (head + item) * rng.choice(_DEEP))
