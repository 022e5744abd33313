"""A DICOMweb server that is a folder of answers to what `nodule_diag.pacs` asks; there is no network.

A file is a status, headers, an empty line and the body; http.client's own parser reads the headers.
"""

from __future__ import annotations

import io
from functools import cache
from http.client import HTTPException, parse_headers
from pathlib import Path
from typing import Any

import requests
import urllib3
from pydicom import Dataset
from requests.adapters import HTTPAdapter

from fuzz.seed import LISTING, OBJECT, SERIES_FILE, STORED
from nodule_diag.pacs import Pacs
from nodule_diag.pacs import server as module

URL = "http://127.0.0.1:9/dicom-web"
STUDY = "1.2.826.0.1.3680043.8.498"
SERIES = f"{STUDY}.1"


class _Folder(HTTPAdapter):
    """Answers from files."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        path = (request.url or "").partition("?")[0]
        name = {f"{SERIES}/instances": LISTING, SERIES: SERIES_FILE}.get(path.partition("/series/")[2], OBJECT)
        name = STORED if request.method == "POST" else name
        if name == LISTING and "offset" in (request.url or ""):
            return self._response(request, 200, {}, b"")  # the listing has one page
        file = self._folder / name
        head, _, body = file.read_bytes().partition(b"\n\n") if file.is_file() else (b"404 gone", b"", b"")
        status, _, lines = head.partition(b"\n")
        try:
            headers = dict(parse_headers(io.BytesIO(lines + b"\n\n")))
            code = int(status.split()[0])
        except (HTTPException, ValueError, IndexError) as error:
            raise requests.exceptions.ConnectionError(f"not HTTP: {type(error).__name__}") from error
        return self._response(request, code, headers, body)

    def _response(
        self, request: requests.PreparedRequest, status: int, headers: dict[str, str], body: bytes
    ) -> requests.Response:
        raw = urllib3.HTTPResponse(
            io.BytesIO(body), headers=headers, status=status, preload_content=False, request_method=request.method
        )
        return self.build_response(request, raw)


def pacs_of(folder: Path) -> Pacs:
    """A server that answers from the files of a folder."""
    module.BACKOFF_S = 0.0  # type: ignore[misc]
    pacs = Pacs(URL)
    pacs._client._session.mount("http://", _Folder(folder))
    return pacs


@cache
def one_object() -> Dataset:
    """What is stored: the first slice."""
    import ct_files as make

    item = make.dicom_slices(make.chest_hu((2, 20, 24)))[0]
    make.save_slice(item, io.BytesIO())
    return item
