"""A CT that the service fetches from a real PACS, with the service's own account."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread

import ct_files as make

pytest.importorskip("dicomweb_client", reason="no extra pacs")

from nodule_diag.pacs.server import Pacs
from orthanc import PASSWORD, USER, orthanc


def test_a_series_is_fetched_diagnosed_and_referred_to(start, tmp_path, monkeypatch):
    monkeypatch.setenv("NODULE_DIAG_DICOMWEB_USER", USER)
    monkeypatch.setenv("NODULE_DIAG_DICOMWEB_PASSWORD", PASSWORD)
    folder = make.save_series(tmp_path / "series", make.dicom_slices())
    slices = [dcmread(path) for path in sorted(folder.iterdir())]
    with orthanc(tmp_path) as url:
        Pacs(url).store(slices)
        running = start(dicomweb=(f"{url}/",))
        named = {"dicomweb": {"url": url, "study": make.UID_ROOT, "series": f"{make.UID_ROOT}.1"}}
        answer = running.client.post("/v1/cts", json=named)
        assert answer.status_code == 201, answer.text
        held = running.service.store.get(answer.json()["id"]).read.ct
        np.testing.assert_array_equal(held.hu, make.chest_hu())
        found = running.ask(named)
        assert found.status_code == 200, found.text
        assert found.json()["ct"]["series_uid"] == f"{make.UID_ROOT}.1"
        assert running.ask(answer.json()["id"], headers={"Accept": "multipart/related"}).status_code == 200
        absent = {"dicomweb": named["dicomweb"] | {"series": "1.2.3"}}
        missing = running.client.post("/v1/cts", json=absent)
        assert (missing.status_code, missing.json()["code"]) == (404, "pacs-not-found")
    refused = running.client.post("/v1/cts", json=named)
    assert (refused.status_code, refused.json()["code"]) == (502, "pacs-unreachable")
