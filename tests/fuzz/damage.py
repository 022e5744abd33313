"""Damage to bytes and to lines of text that knows nothing of formats: each function gives new bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

BOUNDARIES = (0, 1, 2, 127, 128, 255, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63)
NUMBERS = (
    *("0", "1", "-1", "-0", "0.5", "1.5", "255", "65536", "2147483648", "4294967296", "9223372036854775808"),
    *("nan", "inf", "-inf", "1e308", "1e309", "1e-320", "1_0", "0x10", "1,5", "\u0661", "", "1" * 400),
)
LONG = (200, 1500, 20_000, 200_000)
DEEP = (50, 2_000, 100_000)

Damage = Callable[[Random, bytes], bytes]


def place(rng: Random, data: bytes, head: int = 0) -> int:
    """Somewhere in the data; half the time in its head, where there is one."""
    return rng.randrange(min(head, len(data)) if head and rng.random() < 0.5 else len(data)) if data else 0


def damaged(rng: Random, data: bytes, *, head: int = 0, others: list[bytes] | None = None) -> bytes:
    """One to three kinds of damage after each other; never the same bytes."""
    new = data
    for _ in range(10):
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            new = rng.choice(_KINDS)(rng, new, place(rng, new, head), others or [data])
        if new != data:
            return new
    return data + b"\0"


def damaged_text(rng: Random, data: bytes) -> bytes:
    """One to three kinds of damage to lines."""
    new = data
    for _ in range(10):
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            new = rng.choice(_TEXT_KINDS)(rng, new)
        if new != data:
            return new
    return data + b"\n#"


def number_edited(rng: Random, data: bytes) -> bytes:
    """Another number where one stands in text."""
    found = list(re.finditer(rb"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", data))
    if not found:
        return data
    one = rng.choice(found)
    if rng.random() < 0.3:  # a digit, so that the number stays a likely one
        at = rng.choice([i for i in range(one.start(), one.end()) if data[i : i + 1].isdigit()])
        return data[:at] + str(rng.randrange(10)).encode() + data[at + 1 :]
    return data[: one.start()] + rng.choice(NUMBERS).encode() + data[one.end() :]


def _flip(rng: Random, data: bytes, at: int, _: list[bytes]) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else data


def _set(rng: Random, data: bytes, at: int, _: list[bytes]) -> bytes:
    return (
        data[:at] + rng.choice((b"\0", b"\xff", b"\x7f", b"\x80", rng.randbytes(1), rng.randbytes(4))) + data[at + 1 :]
    )


def _integer(rng: Random, data: bytes, at: int, _: list[bytes]) -> bytes:
    """A whole number of 1 to 8 bytes becomes a boundary, or moves by a little."""
    size, order = rng.choice((1, 2, 2, 4, 4, 8)), rng.choice(("little", "big"))
    at -= at % rng.choice((1, size))
    old = int.from_bytes(data[at : at + size], order)
    new = rng.choice((*BOUNDARIES, -1, -(2**31), old + 1, old - 1, 2 * old)) % 2 ** (8 * size)
    return data[:at] + new.to_bytes(size, order)[: len(data) - at] + data[at + size :]


def _sector(rng: Random, data: bytes, at: int, _: list[bytes]) -> bytes:
    """What discs and copies do: a block is zeroed, filled, lost, doubled or exchanged with another."""
    size = rng.choice((16, 64, 512, 4096))
    at -= at % size
    block, rest = data[at : at + size], data[at + size :]
    kind = rng.randrange(5)
    if kind == 4:
        to = rng.randrange(0, len(data) + 1, size)
        first, second = sorted((at, to))
        if second - first < size:
            return data[:at] + rest
        a, b = data[first : first + size], data[second : second + size]
        return data[:first] + b + data[first + size : second] + a + data[second + size :]
    return data[:at] + (bytes(len(block)), rng.randbytes(len(block)), b"", block + block)[kind] + rest


def _cut(_: Random, data: bytes, at: int, __: list[bytes]) -> bytes:
    return data[:at]


def _extended(rng: Random, data: bytes, at: int, _: list[bytes]) -> bytes:
    more = rng.choice((b"\0", bytes(rng.choice((2, 512, 5000))), data[at : at + 512], data, rng.randbytes(64)))
    return data + more


def _inserted(rng: Random, data: bytes, at: int, _: list[bytes]) -> bytes:
    return data[:at] + rng.choice((b"\0", rng.randbytes(1), rng.randbytes(8), bytes(64))) + data[at:]


def _spliced(rng: Random, data: bytes, at: int, others: list[bytes]) -> bytes:
    """The beginning of this file with the end of another."""
    other = rng.choice(others)
    return data[:at] + other[rng.choice((at, rng.randrange(len(other) + 1))) :]


def _number(rng: Random, data: bytes, _: int, __: list[bytes]) -> bytes:
    return number_edited(rng, data)


_KINDS = (_flip, _flip, _flip, _set, _set, _integer, _integer, _integer, _sector, _sector, _cut, _extended, _inserted)
_KINDS += (_spliced, _number)


def _line_kind(rng: Random, data: bytes) -> bytes:
    """A line comes twice, goes, moves, or gets another's value."""
    lines = data.split(b"\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        lines.insert(to, lines[at])
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines[at], lines[to] = lines[to], lines[at]
    elif kind == 3:  # the same field with another number
        lines.insert(to, number_edited(rng, lines[at]))
    else:
        mark = rng.choice((b"=", b":", b","))
        (key, sign, _), value = lines[at].partition(mark), lines[to].partition(mark)[2]
        lines[at] = key + sign + value
    return b"\n".join(lines)


def _lengthened(rng: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    more = rng.choice((b"A", b" ", b"1", b" 1", b",", b"\0", b"\xff", b"(", b"%s")) * rng.choice(LONG)
    lines[at] = rng.choice((lines[at] + more, more + lines[at], lines[at].partition(b" ")[0] + b" " + more))
    return b"\n".join(lines)


def _nested(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((b"[", b"{", b"(", b'{"a":', b'"', b"\\")) * rng.choice(DEEP) + data[at:]


def _word(rng: Random, data: bytes) -> bytes:
    """A word becomes another of the text, goes, or is doubled."""
    found = list(re.finditer(rb"[\w.-]+", data))
    if not found:
        return data
    one, other = rng.choice(found), rng.choice(found)
    new = rng.choice((other.group(), b"", one.group() * 2, one.group() + b" " + other.group(), one.group().swapcase()))
    return data[: one.start()] + new + data[one.end() :]


def _any_byte(rng: Random, data: bytes) -> bytes:
    return damaged(rng, data)


_TEXT_KINDS = (number_edited, number_edited, number_edited, _line_kind, _line_kind, _word, _word, _lengthened, _nested)
_TEXT_KINDS += (_any_byte,)
