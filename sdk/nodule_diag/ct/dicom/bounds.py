"""Limits for reading headers, because pydicom itself reads any number of bytes and any depth of sequences."""

from __future__ import annotations

import re
import struct
import zlib
from io import BytesIO

from pydicom.errors import BytesLengthException

from nodule_diag.errors import CTError

NOT_PARSED = (
    *(ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, MemoryError, RuntimeError),
    *(struct.error, zlib.error, BytesLengthException),
)
"""Exceptions of pydicom for bytes that cannot be parsed, with derived `RecursionError` and `NotImplementedError`."""

MAX_READS = 50_000_000
"""Reads for all headers of a folder or archive, three per element: 20,000 files of 800 elements, or two minutes."""

_BYTES_A_READ = 64
"""Skipped or inflated bytes that cost as much as one read."""

_MOST_BEHIND = 2**24

MAX_DEPTH = 64
"""Sequences within sequences; DICOM's own templates reach 10."""

_SEQUENCE_STARTS = tuple(b"\xff" * 4 + item for item in (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"))
_SEQUENCE_EDGE = re.compile(
    b"(\xff{4}(?:\xfe\xff\x00\xe0|\xff\xfe\xe0\x00))|(?:\xfe\xff\xdd\xe0|\xff\xfe\xe0\xdd)\0{4}"
)
"""Start (with the first item) and end of a sequence of undefined length, little and big endian."""


class Allowance:
    """The shared limit for all headers of a folder or archive."""

    def __init__(self) -> None:
        self.left = MAX_READS

    def check(self, source: str) -> None:
        """Refuse to continue when the limit is used up.

        Raises:
            CTError: ``ct-too-many-elements``.
        """
        if self.left < 0:
            raise CTError(
                f"{source} holds files whose headers have too many elements to be read",
                code="ct-too-many-elements",
                hint="give the folder of one CT study; if it is one, its headers are damaged",
            )


class Head(BytesIO):
    """The beginning of a file, which may be read only as long as the allowance lasts.

    Args:
        data: Its bytes.
        allowance: The limit, shared with other files.

    Attributes:
        cut: Whether a read went beyond the end of the data.

    Raises:
        ValueError: When the allowance is used up, or at once when sequences are nested too deep: every level needs a
            few frames of the stack.
    """

    def __init__(self, data: bytes, allowance: Allowance) -> None:
        super().__init__(data)
        self.cut = False
        self._allowance, self._size = allowance, len(data)
        allowance.left -= len(data) // _BYTES_A_READ
        if sum(map(data.count, _SEQUENCE_STARTS)) <= MAX_DEPTH:
            return
        depth = 0
        for edge in _SEQUENCE_EDGE.finditer(data):
            depth = depth + 1 if edge[1] else max(0, depth - 1)
            if depth > MAX_DEPTH:
                raise ValueError(f"sequences are nested more than {MAX_DEPTH} deep")

    def read(self, size: int | None = -1, /) -> bytes:
        """As for any file."""
        self._allowance.left -= 1
        if self._allowance.left < 0:
            raise ValueError("headers have too many elements")
        data = super().read(size)
        if size and size > 0 and len(data) < size:
            self.cut = self.cut or bool(data) or self.tell() > self._size
        return data


def inflate(data: memoryview, count: int) -> bytes:
    """The beginning of deflated data. The data must end at the end of the file, which is the only check for damage.

    Args:
        data: The rest of a file in the transfer syntax "Deflated Explicit VR Little Endian".
        count: Bytes wanted.

    Raises:
        zlib.error: If the data are damaged, or continue for more than 16 MiB.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    wanted, more = inflater.decompress(data, count), 0
    while not inflater.eof and more <= _MOST_BEHIND and (chunk := inflater.decompress(inflater.unconsumed_tail, 2**20)):
        more += len(chunk)
    if not inflater.eof or inflater.unused_data.strip(b"\0"):
        raise zlib.error("its end is not the end of the file")
    return wanted
