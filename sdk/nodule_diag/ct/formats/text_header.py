"""A header in lines of text: limited in size, each field once, and numbers checked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from io import BufferedReader
from math import isfinite

from nodule_diag.ct.refusals import damaged, quoted
from nodule_diag.errors import CTError

MAX_LINE_BYTES = 2**20
MAX_LINES = 2**16
MAX_HEADER_BYTES = 2**23
"""MITK writes every DICOM attribute of every slice into a header: 40 lines of 60 bytes per slice, for 1,000 slices."""

MAX_AXES = 16
"""The limit of teem; a CT has three axes, and may have others with one sample."""

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MAX_DIGITS = 64
"""Digits of one number; a double uses at most 17."""


class TextHeader:
    """The fields of a header.

    Args:
        path: The file, for messages.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._values: dict[str, str] = {}

    def add(self, field: str, value: str) -> None:
        """Add a field.

        Raises:
            CTError: ``ct-damaged`` when the field is there already: one of the two must be wrong.
        """
        if field in self._values:
            raise damaged(
                self.path, f"its header gives {field} twice, as {quoted(self._values[field])} and {quoted(value)}"
            )
        self._values[field] = value

    def __contains__(self, field: str) -> bool:
        return field in self._values

    def get(self, field: str, default: str = "") -> str:
        """The text of a field, or the default where there is none."""
        return self._values.get(field, default)

    def wholes(self, field: str) -> list[int]:
        """The whole numbers of a field, at least one and at most `MAX_AXES`.

        Raises:
            CTError: ``ct-damaged`` when it has other values, or is missing.
        """
        words = self.get(field).split(maxsplit=MAX_AXES)
        if not 1 <= len(words) <= MAX_AXES or not all(_WHOLE.fullmatch(word) for word in words):
            raise self.wrong(field)
        return [int(word) for word in words]

    def whole(self, field: str, default: int | None = None) -> int:
        """The whole number of a field; see `wholes`."""
        if default is not None and field not in self:
            return default
        first, *others = self.wholes(field)
        if others:
            raise self.wrong(field)
        return first

    def reals(self, field: str, *, count: int, words: Sequence[str] | None = None) -> list[float]:
        """Finite numbers of a field.

        Args:
            field: Its name.
            count: How many numbers it must have.
            words: Its words, where white space does not separate them.

        Raises:
            CTError: ``ct-damaged`` when it has more, fewer or other values, or is missing.
        """
        texts = self.get(field).split(maxsplit=count) if words is None else words
        if len(texts) != count or not all(len(text) <= _MAX_DIGITS and _REAL.fullmatch(text) for text in texts):
            raise self.wrong(field)
        values = [float(text) for text in texts]
        if not all(isfinite(value) for value in values):
            raise self.wrong(field)
        return values

    def wrong(self, field: str) -> CTError:
        """The error for a field that is missing or has an impossible value."""
        if field not in self:
            return damaged(self.path, f"its header has no {field}")
        return damaged(self.path, f"its header gives {field} as {quoted(self._values[field])}")


def header_lines(file: BufferedReader, path: str) -> Iterator[str]:
    """The lines of a header without their ends, read from the file one at a time.

    Bytes that are not UTF-8 become surrogates, as in names of files.

    Raises:
        CTError: ``ct-damaged`` when a line, their number or all of them together are longer than any header.
    """
    done = 0
    for _ in range(MAX_LINES):
        line = file.readline(MAX_LINE_BYTES)
        done += len(line)
        if len(line) == MAX_LINE_BYTES or done > MAX_HEADER_BYTES:
            raise damaged(path, "its header is longer than any that a CT has")
        if not line:
            return
        yield line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    raise damaged(path, "its header is longer than any that a CT has")
