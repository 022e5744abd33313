"""What a DICOMweb server answers: seeds of the fuzzer. A file is a status, headers, an empty line and the body."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ct_files as make
from fuzz.seed import LISTING, OBJECT, SERIES_FILE, STORED, Files, Seed

SLICES, SHAPE_YX = 3, (20, 24)
BOUNDARY = "a-part-begins-here"


def answers(folder: Path) -> list[Seed]:
    """A series that is listed and fetched, and an object that is stored."""
    saved = make.save_series(folder / "pacs", make.dicom_slices(make.chest_hu((SLICES, *SHAPE_YX))))
    slices = [path.read_bytes() for path in sorted(saved.iterdir())]
    uids = [f"{make.UID_ROOT}.1.{number + 1}" for number in range(SLICES)]
    ways = ("bytes", "text", "text", "answer", "answer", "answer")
    fetched = {
        SERIES_FILE: _answer(_kind(), _multipart(slices)),
        LISTING: _answer("application/dicom+json", json.dumps([_item(uid) for uid in uids], indent=1).encode()),
        OBJECT: _answer(_kind(), _multipart(slices[-1:])),
    }
    said = {"00081199": {"vr": "SQ", "Value": [_item(uids[0], tag="00081155")]}}
    stored = {STORED: _answer("application/dicom+json; charset=utf-8", json.dumps(said, indent=1).encode())}
    return [
        Seed("pacs-fetch", "DICOMweb, fetched", "fetched", SERIES_FILE, fetched, ways, "fetched", _heads(fetched)),
        Seed("pacs-store", "DICOMweb, stored", "stored", STORED, stored, ways, "stored", _heads(stored)),
    ]


def _heads(files: Files) -> dict[str, int]:
    return {name: data.find(b"\n\n") + 300 for name, data in files.items()}


def _kind() -> str:
    return f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'


def _item(uid: str, tag: str = "00080018") -> dict[str, Any]:
    return {tag: {"vr": "UI", "Value": [uid]}}


def _answer(kind: str, body: bytes) -> bytes:
    return f"200 OK\nContent-Type: {kind}\n\n".encode() + body


def _multipart(parts: list[bytes]) -> bytes:
    mark = f"--{BOUNDARY}".encode()
    head = b"\r\nContent-Type: application/dicom\r\n\r\n"
    return b"\r\n".join(mark + head + part for part in parts) + b"\r\n" + mark + b"--\r\n"
