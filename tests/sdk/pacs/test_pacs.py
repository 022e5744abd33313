"""A series from a real Orthanc and objects back to it, and everything that goes wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

import ct_files as make
from dicom_in_every_position import predicted, series
from nodule_diag.ct.reading import read_ct
from nodule_diag.dicom_objects.writing import dicom_objects
from nodule_diag.errors import PacsError, UsageError
from nodule_diag.pacs import account as module
from nodule_diag.pacs import session
from nodule_diag.pacs.server import Pacs
from orthanc import PASSWORD, USER, cut_line, orthanc
from ports import held_port

STUDY, SERIES = make.UID_ROOT, f"{make.UID_ROOT}.1"


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    folder = make.save_series(tmp_path_factory.mktemp("ct"), series())
    return [dcmread(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, slices: list[Dataset]) -> Iterator[str]:
    """A server that holds the series."""
    with orthanc(tmp_path_factory.mktemp("orthanc")) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv(module.USER, USER)
        patch.setenv(module.PASSWORD, PASSWORD)
        Pacs(url).store(slices)
        yield url


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.USER, USER)
    monkeypatch.setenv(module.PASSWORD, PASSWORD)
    monkeypatch.delenv(module.TOKEN, raising=False)
    monkeypatch.setattr(session, "BACKOFF_S", 0.0)


def test_the_series_that_comes_is_the_series_on_disk(address: str, tmp_path: Path) -> None:
    counts: list[tuple[int, int]] = []
    fetched = Pacs(address).fetch(STUDY, SERIES, progress=lambda have, of: counts.append((have, of)))
    assert counts[-1] == (40, 40)
    ct, on_disk = fetched.read(), read_ct(make.save_series(tmp_path / "ct", series()))
    np.testing.assert_array_equal(ct.hu, on_disk.hu)
    assert ct.origin_xyz_mm == on_disk.origin_xyz_mm
    assert [s.sop_uid for s in ct.dicom.slices] == [s.sop_uid for s in on_disk.dicom.slices]


def test_objects_go_back_and_are_found(address: str) -> None:
    pacs = Pacs(address)
    fetched = pacs.fetch(STUDY, SERIES)
    ct = fetched.read()
    made = dicom_objects(ct, predicted(ct), files=fetched.files)
    pacs.store(made.values())
    for item in made.values():
        back = pacs.fetch(STUDY, item.SeriesInstanceUID)
        found = {dcmread(BytesIO(file.data)).SOPInstanceUID for file in back.files}
        assert item.SOPInstanceUID in found
    pacs.store(made.values())  # the same UIDs again do no harm


@pytest.mark.parametrize("after", [100, 30_000, 60_000, 120_000, 250_000])
def test_what_a_cut_line_left_out_is_asked_for_again(address: str, after: int) -> None:
    """A cut after the listing: the client that everybody uses takes the rest for all there is."""
    with cut_line(address, after=after, times=2) as line:
        fetched = Pacs(line).fetch(STUDY, SERIES)
    assert len(fetched.files) == 40
    assert fetched.read().size_xyz == (60, 64, 40)


def test_a_line_that_stays_bad_is_an_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing is known; no object of 8 kB comes through."""
    expected = Pacs(address)._instances(STUDY, SERIES, lambda *_: None)
    with cut_line(address, after=5_000, times=10**6) as line:
        pacs = Pacs(line)
        monkeypatch.setattr(pacs, "_instances", lambda *_: expected)
        with pytest.raises(PacsError) as caught:
            pacs.fetch(STUDY, SERIES)
    assert caught.value.code == "pacs-unreachable"
    assert caught.value.exit_code == 6


def test_incomplete_is_said_with_its_count(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pacs = Pacs(address)
    listed = pacs._instances
    monkeypatch.setattr(pacs, "_instances", lambda *uids: [*listed(*uids), "1.2.3.4"])
    with pytest.raises(PacsError) as caught:
        pacs.fetch(STUDY, SERIES)
    assert caught.value.code == "pacs-not-found"


@pytest.mark.parametrize(
    ("study", "series_uid", "code"),
    [("1.2.3", SERIES, "pacs-not-found"), (STUDY, "1.2.3", "pacs-not-found")],
)
def test_unknown_uids(address: str, study: str, series_uid: str, code: str) -> None:
    with pytest.raises(PacsError) as caught:
        Pacs(address).fetch(study, series_uid)
    assert caught.value.code == code


def test_wrong_password(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.PASSWORD, "wrong")
    with pytest.raises(PacsError, match="401") as caught:
        Pacs(address).fetch(STUDY, SERIES)
    assert caught.value.code == "pacs-denied"
    assert "wrong" not in str(caught.value)


def test_account_from_netrc(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(module.USER)
    netrc = tmp_path / "netrc"
    netrc.write_text(f'machine 127.0.0.1 login {USER} password "{PASSWORD}"')
    monkeypatch.setenv("NETRC", str(netrc))
    assert Pacs(address).fetch(STUDY, SERIES).files


def test_an_account_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine pacs.example login made-up password secret")
    for variables in ({module.USER: USER}, {module.TOKEN: "token"}, {"NETRC": str(netrc)}):
        with monkeypatch.context() as patch:
            patch.delenv(module.USER)
            for name, value in variables.items():
                patch.setenv(name, value)
            with pytest.raises(UsageError, match="not encrypted") as caught:
                Pacs("http://pacs.example/dicom-web")
            assert caught.value.code == "pacs-url"
            assert Pacs("https://pacs.example/dicom-web").url
            if "NETRC" in variables:
                assert Pacs("http://other.example/dicom-web").url, "it is another server's account"


def test_a_token_is_sent_before_all_else(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orthanc knows no tokens: it must be refused although the password is right."""
    monkeypatch.setenv(module.TOKEN, "token")
    with pytest.raises(PacsError) as caught:
        Pacs(address).fetch(STUDY, SERIES)
    assert caught.value.code == "pacs-denied"


def test_nobody_listens() -> None:
    with held_port() as port, pytest.raises(PacsError) as caught:
        Pacs(f"http://127.0.0.1:{port}/dicom-web").fetch(STUDY, SERIES)
    assert caught.value.code == "pacs-unreachable"


def test_a_disk_that_is_full_there(tmp_path: Path, slices: list[Dataset]) -> None:
    """Writes of over 4 kB fail in the server; what it says is passed on, and nothing is taken for stored."""
    with orthanc(tmp_path, largest_file=600_000) as url:
        big = dcmread(_saved(slices[0], tmp_path / "big.dcm"))
        big.Rows, big.Columns = 1024, 1024
        big.PixelData = bytes(2 * 1024 * 1024)
        big.SOPInstanceUID = big.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
        with pytest.raises(PacsError) as caught:
            Pacs(url).store([big])
        assert caught.value.code == "pacs-failed"
        with pytest.raises(PacsError) as caught:
            Pacs(url).fetch(STUDY, SERIES)
        assert caught.value.code == "pacs-not-found"


def _saved(item: Dataset, path: Path) -> Path:
    item.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    "url", ["pacs.example", "ftp://pacs.example/", "http://", "file:///etc/passwd", "https://user:secret@pacs.example/"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Pacs(url)
    assert caught.value.code == "pacs-url"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uid", ["", "1.2/../3", "a", "1" * 65, "1.2?x=1"])
def test_uids_that_are_none(uid: str) -> None:
    with pytest.raises(UsageError, match="not a DICOM UID"):
        Pacs("http://127.0.0.1:1/").fetch(uid, SERIES)
