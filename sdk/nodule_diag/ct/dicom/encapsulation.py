"""Compressed pixels in a DICOM file: a chain of items that hold an offset table and the frames, in fragments.

DICOM PS3.5, A.4. Every item must be complete, and must match the table and the number of frames.
"""

from __future__ import annotations

import struct

from nodule_diag.ct.refusals import damaged, truncated

_HEAD = struct.Struct("<HHL")
_ITEM, _END_OF_ITEMS = 0xFFFEE000, 0xFFFEE0DD


def fragments_of(data: memoryview, count: int, *, name: str) -> list[list[memoryview]]:
    """Find the fragments of each frame.

    Args:
        data: The bytes from the first item on; bytes after the last item are ignored.
        count: Frames that the header promises.
        name: The file, for messages.

    Returns:
        (count) frames, each of one fragment or more.

    Raises:
        CTError: ``ct-truncated`` or ``ct-damaged``.
    """
    table, *fragments = _items(data, name) or [(0, data[:0])]
    offsets = [offset for (offset,) in struct.iter_unpack("<L", table[1])] if len(table[1]) % 4 == 0 else None
    if offsets is None or len(offsets) not in (0, count):
        held = "no whole table" if offsets is None else f"{len(offsets)} frames"
        raise damaged(name, f"its header promises {count} frame{'s' * (count > 1)}, its table of offsets holds {held}")
    if count == 1 and fragments:
        return [[fragment for _, fragment in fragments]]
    if len(fragments) == count and not offsets:
        return [[fragment] for _, fragment in fragments]
    first = fragments[0][0] if fragments else 0
    places = [at - first for at, _ in fragments]
    if (
        not offsets
        or not fragments
        or offsets[0] != 0
        or not set(offsets) <= set(places)
        or offsets != sorted(set(offsets))
    ):
        raise damaged(name, f"its header promises {count} frame{'s' * (count > 1)}, its compressed pixels hold others")
    starts = [places.index(offset) for offset in offsets]
    return [
        [fragment for _, fragment in fragments[start:end]]
        for start, end in zip(starts, [*starts[1:], len(fragments)], strict=True)
    ]


def items_of(frame: list[memoryview]) -> bytes:
    """One frame as the pixels of a separate file."""
    data = b"".join(frame)
    head = _HEAD.pack(_ITEM >> 16, _ITEM & 0xFFFF, 0) + _HEAD.pack(_ITEM >> 16, _ITEM & 0xFFFF, len(data))
    return head + data + _HEAD.pack(_END_OF_ITEMS >> 16, _END_OF_ITEMS & 0xFFFF, 0)


def _items(data: memoryview, name: str) -> list[tuple[int, memoryview]]:
    """The start and the content of each item."""
    items, at = [], 0
    while at < len(data):
        if at + _HEAD.size > len(data):
            raise truncated(name, "its compressed pixels end within an item")
        group, element, length = _HEAD.unpack_from(data, at)
        tag = group << 16 | element
        if tag == _END_OF_ITEMS:
            break
        if tag != _ITEM:
            raise damaged(name, "another element follows within its compressed pixels")
        start = at + _HEAD.size
        if start + length > len(data):
            raise truncated(name, "its compressed pixels end within a frame")
        items.append((at, data[start : start + length]))
        at = start + length
    return items
