"""Reads and checks the header of a compressed image before the image is decoded.

A DICOM header and the code stream both state the size and the bits of an image. Where they differ, one is damaged, and
a decoder would allocate the memory that the stream states. JPEG, JPEG-LS and JPEG 2000 have no checksum, but an end
marker, and JPEG 2000 has the length of each part: these reveal a truncated or joined stream.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydicom import uid

_JPEG_SPECTRAL, _JPEG_PROGRESSIVE = "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"  # both retired
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)

SYNTAXES: tuple[str, ...] = (
    *(uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, _JPEG_SPECTRAL, _JPEG_PROGRESSIVE),
    *(uid.JPEGLossless, uid.JPEGLosslessSV1, *_JPEG_LS, *_JPEG_2000),
)
"""Transfer syntaxes whose frames are code streams, which GDCM decodes."""

_SIZE_MARKERS = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
_LS_SIZE_MARKER = 0xF7
_LOSSLESS_SIZE_MARKERS = (0xC3, 0xC7, 0xCB, 0xCF, _LS_SIZE_MARKER)
_PROGRESSIVE_MARKERS = (0xC2, 0xC6, 0xCA, 0xCE)
_SCAN_MARKER = 0xDA
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xDA))
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"

_J2K_START, _J2K_END, _TILE_PART = b"\xff\x4f\xff\x51", b"\xff\xd9", b"\xff\x90"
_JP2_START = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_CODING_STYLE = 0xFF52
_TILE_PART_BYTES = 14


@dataclass(frozen=True)
class CodeStream:
    """One compressed image.

    Attributes:
        data: Its bytes from the first marker on.
        rows, columns: Its size.
        samples: Numbers per pixel.
        bits: Bits per number.
        signed: Whether numbers are signed; false where the format does not say.
        lossy: Whether its coding is lossy.
    """

    data: bytes
    rows: int
    columns: int
    samples: int
    bits: int
    signed: bool
    lossy: bool


def code_stream(frame: bytes, syntax: str) -> CodeStream:
    """Read a frame's own header and find its end.

    Args:
        frame: All its fragments.
        syntax: One of `SYNTAXES`.

    Raises:
        ValueError: If it is not a complete code stream of its syntax; says why.
    """
    try:
        return _jpeg_2000(frame) if syntax in _JPEG_2000 else _jpeg(frame, ls=syntax in _JPEG_LS)
    except (struct.error, IndexError) as error:
        raise ValueError("its code stream ends within its header") from error


def _jpeg(frame: bytes, *, ls: bool) -> CodeStream:
    """ITU-T T.81, annex B, and T.87, annex C."""
    if not frame.startswith(_JPEG_START):
        raise ValueError("its code stream does not begin as JPEG")
    at, kind = 2, None
    rows = columns = samples = bits = 0
    while True:
        if frame[at] != 0xFF or frame[at + 1] in _WITHOUT_LENGTH:
            raise ValueError("its JPEG stream has no marker where one is due")
        marker = frame[at + 1]
        if marker == 0xFF:  # may be repeated
            at += 1
            continue
        if marker == _SCAN_MARKER:
            break
        if marker in _SIZE_MARKERS:
            if kind is not None:
                raise ValueError("its JPEG stream names its size twice")
            kind, (bits, rows, columns, samples) = marker, struct.unpack_from(">B2HB", frame, at + 4)
        at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    if kind is None or (kind == _LS_SIZE_MARKER) is not ls:
        raise ValueError("its code stream is of another kind of JPEG")
    last, end = frame.rfind(_JPEG_END), frame.find(_JPEG_END, at)
    if last < at or frame[last + 2 :].strip(b"\0"):
        raise ValueError("its JPEG stream does not end")
    if end != last and kind not in _PROGRESSIVE_MARKERS:  # tables between scans may hold the same bytes
        raise ValueError("its JPEG stream goes on behind its end")
    # Parameters of the scan, after two bytes for each component: the allowed loss, and low bits that were cut off.
    near, _, cut_bits = frame[at + 5 + 2 * frame[at + 4] :][:3]
    lossy = kind not in _LOSSLESS_SIZE_MARKERS or (ls and near > 0) or cut_bits & 0xF > 0
    return CodeStream(frame[: last + 2], rows, columns, samples, bits, signed=False, lossy=lossy)


def _jpeg_2000(frame: bytes) -> CodeStream:
    """ITU-T T.800, annex A; some writers keep the file format of its annex I around it."""
    data = frame[max(0, frame.find(_J2K_START)) :] if frame.startswith(_JP2_START) else frame
    if not data.startswith(_J2K_START):
        raise ValueError("its code stream does not begin as JPEG 2000")
    right, bottom, left, top, wide, high, tiles_left, tiles_top, samples, depth, dx, dy = struct.unpack_from(
        ">8LH3B", data, 8
    )
    if not (wide and high and left < right and top < bottom and (dx, dy) == (1, 1)):
        raise ValueError("its JPEG 2000 stream has no size")
    tiles = -(-(right - tiles_left) // wide) * -(-(bottom - tiles_top) // high)
    at, lossy = 2, None
    while data[at : at + 2] != _TILE_PART:
        marker, length = struct.unpack_from(">2H", data, at)
        if marker < 0xFF01 or length < 2:
            raise ValueError("its JPEG 2000 stream has no marker where one is due")
        if marker == _CODING_STYLE:
            lossy = data[at + 13] == 0
        at += 2 + length
    found = set()
    while data[at : at + 2] == _TILE_PART:
        tile, length = struct.unpack_from(">HL", data, at + 4)
        found.add(tile)
        if length == 0:  # to the end
            at = max(at + _TILE_PART_BYTES, data.rfind(_J2K_END))
            break
        if length < _TILE_PART_BYTES or at + length > len(data):
            raise ValueError("its JPEG 2000 stream is cut off")
        at += length
    if lossy is None or len(found) != tiles or data[at:].removeprefix(_J2K_END).strip(b"\0"):
        raise ValueError("its JPEG 2000 stream is not whole, or goes on behind its end")
    signed, bits = depth >= 0x80, (depth & 0x7F) + 1
    return CodeStream(data, bottom - top, right - left, samples, bits, signed=signed, lossy=lossy)
