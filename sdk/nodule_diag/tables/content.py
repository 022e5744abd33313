"""The bytes of a file, limited in size, and its text in UTF-8 or UTF-16."""

from __future__ import annotations

import codecs
from pathlib import Path

from nodule_diag.errors import UsageError

MAX_BYTES = 256 * 2**20
"""The largest file: a segmentation of 600 slices of 512 x 512 in 12 segments is 240 MB uncompressed."""
MAX_TEXT_BYTES = 64 * 2**20
"""The largest text: LUNA16's list of 754,975 candidates is 37 MB."""
MAX_POSITIONS = 1_000_000
"""The most rows that are read, including rows of other series."""

_SAVE = "save it as UTF-8 text"
_MARKED = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_bytes(path: Path) -> bytes:
    """Read a whole file up to the size limit; the file may be a pipe.

    Raises:
        UsageError: when it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {path}: {why}", hint="check the path") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: more than {MAX_BYTES} bytes are too many", hint="give a smaller file")
    return data


def text_of(path: Path, data: bytes) -> str:
    """Decode UTF-8, or UTF-16 with its byte order mark.

    Raises:
        UsageError: for anything else.
    """
    if len(data) > MAX_TEXT_BYTES:
        raise UsageError(f"{path}: {len(data)} bytes are too many for a text", hint="give a smaller file")
    encoding = next((name for mark, name in _MARKED if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text", hint=_SAVE) from error
    if "\0" in text:
        raise UsageError(f"{path}: not text", hint=_SAVE)
    return text
