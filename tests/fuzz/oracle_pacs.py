"""What answers of a DICOMweb server can know: the listing, the parts of a message, and what the slices say."""

from __future__ import annotations

import json
import re
from typing import Any

from fuzz.oracle_dicom import dicom_contradiction, elements_of
from fuzz.readers import Answer
from fuzz.seed import LISTING, OBJECT, SERIES_FILE, STORED, Files

SOP_INSTANCE, REFERENCED = "00080018", "00081155"
DONE, FAILED = "00081199", "00081198"


def body_of(data: bytes) -> tuple[str, bytes]:
    """Head and body of an answer."""
    head, _, body = data.partition(b"\n\n")
    return head.decode("latin-1"), body


def parts_of(data: bytes) -> list[bytes]:
    """The parts of a multipart message (RFC 2046), as they would be cut by hand."""
    head, body = body_of(data)
    found = re.search(r'boundary="?([^";\r\n]+)', head, re.IGNORECASE)
    if found is None:
        return [body]
    pieces = body.split(b"--" + found[1].encode("latin-1"))[1:]
    return [piece.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for piece in pieces if b"\r\n\r\n" in piece]


def listed(document: Any) -> set[str]:
    """The UIDs of a listing."""
    items = document if isinstance(document, list) else [document]
    return {
        str(uid)
        for item in items
        if isinstance(item, dict) and isinstance(item.get(SOP_INSTANCE), dict)
        for uid in item[SOP_INSTANCE].get("Value") or ()
    }


def fetched_contradiction(seed: Files, files: Files, good: Answer, found: Answer) -> tuple[str, bool]:
    """Why a CT cannot be what the server answered: an object that is listed is not in it, or slices disagree."""
    try:
        wanted = listed(json.loads(body_of(files[LISTING])[1]))
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        return f"a listing that is not JSON: {error}", False
    shown = found.value[0][0] if found.hu is not None else 0
    if len(wanted) > shown and not set(found.warnings) - set(good.warnings):
        return f"{len(wanted)} objects are listed, and the CT has {shown} slices without a word", False
    was = {_uid(part): part for part in parts_of(seed[SERIES_FILE])}
    came = [part for name in (SERIES_FILE, OBJECT) for part in parts_of(files.get(name, b""))]
    whole = {uid: part for uid, part in was.items() if part in came and uid in wanted}
    strange = [(_uid(part), part) for part in came if part not in was.values() and _uid(part) in wanted]
    # Of an object that came twice, any may have been taken.
    taken = (whole | dict(strange), whole | dict(strange[::-1]), dict(strange) | whole)
    return min(dicom_contradiction(was, now, good, found) for now in taken)


def _uid(part: bytes) -> str:
    return elements_of(part).get(0x00080018, b"").decode("latin-1").strip("\0 ")


def stored_contradiction(seed: Files, files: Files) -> str:
    """Why an object cannot be taken for stored: the answer does not name it, or says that it failed."""
    expected = json.loads(body_of(seed[STORED])[1])
    (uid,) = _referenced(expected, DONE)
    head, body = body_of(files[STORED])
    if not re.match(r"\s*2\d\d", head):
        return f"status {head[:20]!r}"
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    said = said[0] if isinstance(said, list) and said else said
    if uid not in _referenced(said, DONE):
        return "the answer does not say that the object was stored"
    return "the answer says that an object was not stored" if _referenced(said, FAILED) else ""


def _referenced(document: Any, tag: str) -> list[str]:
    try:
        items = {key.strip(): value for key, value in document.items()}[tag]["Value"]
        values = [value for item in items for value in item[REFERENCED]["Value"]]
        return [str(uid) for value in values for uid in (value if isinstance(value, list) else [value])]
    except (KeyError, TypeError, AttributeError):
        return []
