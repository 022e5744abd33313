"""Own figures: this user's, of this machine, whole and private, or not read at all."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodule_diag.backends import own_figures, user_cache
from nodule_diag.backends.own_figures import (
    FiguresRefusedError,
    cpu_identity,
    figures_path,
    own_records,
    read_figures,
    save_figures,
)
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.bundle.parity import ParityRecord
from nodule_diag.errors import BackendError, OutputError

RECORD = ParityRecord(
    backend="openvino", device="cpu", precision="bf16", runtime_version="1", patches=8, malignancy=1e-4,
    expert_score=1e-4, segmentation=1e-5, cam=1e-4, cam_patches=8, overlap=1.0,
)  # fmt: skip
posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("NODULE_DIAG_CACHE", str(tmp_path / "cache"))
    return Bundle.open(tiny_bundle)


def refused(bundle: Bundle, code: str) -> str:
    with pytest.raises(FiguresRefusedError) as caught:
        read_figures(bundle)
    assert caught.value.code == f"figures-{code}"
    assert "doctor --selftest --save" in caught.value.hint
    message = caught.value.message
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert own_records(bundle) == ()
    told = code == "unsafe" and "no home" not in message
    assert ["self-test figures are not used" in str(warning.message) for warning in said] == [True] * told
    return message


def test_what_is_saved_is_read(bundle: Bundle) -> None:
    refused(bundle, "missing")
    path = save_figures(bundle, [RECORD])
    assert own_records(bundle) == (RECORD,)
    assert path == figures_path(bundle)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    again = RECORD.model_copy(update={"malignancy": 2e-4})
    save_figures(bundle, [again])
    assert own_records(bundle) == (again,)


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_may_read_or_write_them(bundle: Bundle, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = save_figures(bundle, [RECORD])
    finally:
        os.umask(before)
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
@pytest.mark.parametrize("place", ["file", "folder"])
def test_what_others_may_write_is_not_read(bundle: Bundle, mode: int, place: str) -> None:
    path = save_figures(bundle, [RECORD])
    target = path if place == "file" else path.parent
    target.chmod(mode | (0o111 if place == "folder" else 0))
    assert "can be written by other users" in refused(bundle, "unsafe")


@posix
def test_what_others_own_is_not_read(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    save_figures(bundle, [RECORD])
    monkeypatch.setattr(user_cache.os, "geteuid", lambda: os.getuid() + 1)
    assert "belongs to another user" in refused(bundle, "unsafe")


@posix
def test_links_are_not_followed(bundle: Bundle, tmp_path: Path) -> None:
    path = save_figures(bundle, [RECORD])
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    refused(bundle, "unsafe")
    path.unlink()
    (tmp_path / "elsewhere.json").rename(path)
    assert own_records(bundle) == (RECORD,)
    path.parent.rename(tmp_path / "folder")
    path.parent.symlink_to(tmp_path / "folder")
    refused(bundle, "unsafe")


@posix
def test_a_pipe_holds_nobody_up(bundle: Bundle) -> None:
    path = save_figures(bundle, [RECORD])
    path.unlink()
    os.mkfifo(path, 0o600)
    refused(bundle, "unsafe")


def test_a_folder_in_its_place(bundle: Bundle) -> None:
    path = save_figures(bundle, [RECORD])
    path.unlink()
    path.mkdir(mode=0o700)
    refused(bundle, "unsafe")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), junk=st.binary(max_size=40))
def test_a_damaged_file_is_not_read(bundle: Bundle, cut: int, junk: bytes) -> None:
    path = save_figures(bundle, [RECORD])
    path.write_bytes(path.read_bytes()[:cut] + junk)
    refused(bundle, "damaged")


def test_a_huge_file_is_not_read_whole(bundle: Bundle) -> None:
    path = save_figures(bundle, [RECORD])
    path.write_bytes(path.read_bytes() + b" " * 10**6)
    refused(bundle, "damaged")


@pytest.mark.parametrize("field", ["schema_version", "extra", "no records"])
def test_another_format_is_not_read(bundle: Bundle, field: str) -> None:
    path = save_figures(bundle, [RECORD])
    document = json.loads(path.read_text())
    document |= {"schema_version": {"schema_version": "nodule-diag/figures/2"}, "extra": {"x": 1},
                 "no records": {"records": []}}[field]  # fmt: skip
    path.write_text(json.dumps(document))
    refused(bundle, "damaged")


@pytest.mark.parametrize("what", ["bundle_sha256", "cpu", "versions"])
def test_figures_of_something_else_are_stale(bundle: Bundle, what: str) -> None:
    """As when a file was copied from another machine under this one's name, or a runtime was upgraded."""
    path = save_figures(bundle, [RECORD])
    document = json.loads(path.read_text())
    document["measured"][what] = {"onnxruntime": "0.1"} if what == "versions" else "another"
    path.write_text(json.dumps(document))
    assert f"measured with other {what}" in refused(bundle, "stale")


def test_another_version_is_stale(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    save_figures(bundle, [RECORD])
    version = own_figures.metadata.version
    monkeypatch.setattr(own_figures.metadata, "version", lambda name: "99" if name == "nodule-diag" else version(name))
    refused(bundle, "stale")


def test_another_cpu_has_figures_of_its_own(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines that share a home do not write over each other's."""
    first = save_figures(bundle, [RECORD])
    monkeypatch.setattr(own_figures, "cpu_identity", lambda: "another CPU")
    refused(bundle, "missing")
    second = save_figures(bundle, [RECORD])
    assert first != second
    assert first.exists()


CPU = "processor\t: {core}\nmodel name\t: A CPU\ncpu MHz\t\t: {mhz}\nsiblings\t: 2\nflags\t\t: fpu {flags}\n\n"


def test_the_cpu_is_its_model_and_its_instructions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not its clock, not the core that was asked, and not how many there are."""
    monkeypatch.setattr(own_figures, "_CPU_INFO", tmp_path / "cpuinfo")

    def identity(**said: object) -> str:
        cores = [CPU.format(**({"core": core, "mhz": 2000.5, "flags": "avx2"} | said)) for core in (0, 1)]
        (tmp_path / "cpuinfo").write_text("".join(cores))
        return cpu_identity()

    plain = identity()
    assert plain.startswith("A CPU ")
    assert identity(core=7, mhz=3100.0) == plain
    assert identity(flags="avx2 avx512_bf16") != plain
    (tmp_path / "cpuinfo").write_text(CPU.format(core=0, mhz=1, flags="avx2").rstrip())  # no empty line at its end
    assert cpu_identity() == plain


def test_a_system_without_such_a_description(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(own_figures, "_CPU_INFO", tmp_path / "absent")
    here = cpu_identity()
    monkeypatch.setattr(own_figures.platform, "node", lambda: "another machine")
    assert cpu_identity() != here


def test_a_folder_that_cannot_be_made(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(OutputError) as caught:
        save_figures(bundle, [RECORD])
    assert "NODULE_DIAG_CACHE" in caught.value.hint


def test_a_user_without_a_home(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number: nothing is read, and saving says what to set."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("NODULE_DIAG_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(user_cache.Path, "home", no_home)
    assert "no home folder" in refused(bundle, "unsafe")
    with pytest.raises(OutputError, match="no home folder") as caught:
        save_figures(bundle, [RECORD])
    assert "NODULE_DIAG_CACHE" in caught.value.hint


def test_a_cache_that_may_not_be_entered(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another user's home is."""

    def denied(path: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    save_figures(bundle, [RECORD])
    with monkeypatch.context() as patch:
        patch.setattr(own_figures.Path, "lstat", denied)
        assert "Permission denied" in refused(bundle, "unsafe")


def test_nothing_is_not_saved(bundle: Bundle) -> None:
    with pytest.raises(BackendError) as caught:
        save_figures(bundle, [])
    assert caught.value.code == "figures-none"
    refused(bundle, "missing")


@posix
def test_nothing_is_saved_where_others_may_write(bundle: Bundle) -> None:
    path = save_figures(bundle, [RECORD])
    before = path.read_bytes()
    path.parent.chmod(0o777)
    with pytest.raises(OutputError, match="can be written by other users") as caught:
        save_figures(bundle, [RECORD, RECORD])
    assert f"chmod 700 {path.parent}" in caught.value.hint
    assert path.read_bytes() == before


@posix
def test_who_may_own_what() -> None:
    """Engines may be root's, as in an image that was built with them; figures may not."""

    def said(uid: int, *owners: int) -> str:
        found = os.stat_result((stat.S_IFDIR | 0o755, 1, 1, 1, uid, 0, 0, 0, 0, 0))
        return user_cache.why_unsafe(found, is_kind=stat.S_ISDIR, owners=owners)

    assert said(os.geteuid()) == ""
    assert said(os.geteuid() + 1) == said(os.geteuid() + 1, os.geteuid() + 2) == "belongs to another user"
    assert said(os.geteuid() + 1, os.geteuid() + 1) == ""


def test_where_they_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NODULE_DIAG_CACHE")
    monkeypatch.setattr(user_cache.Path, "home", lambda: tmp_path)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for system, below in (("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")):
        monkeypatch.setattr(user_cache.sys, "platform", system)
        assert user_cache.user_cache() == tmp_path / below / "nodule-diag"


def test_reading_them_imports_no_runtime(bundle: Bundle) -> None:
    save_figures(bundle, [RECORD])
    program = (
        "import sys; from nodule_diag.bundle import Bundle; from nodule_diag.backends.own_figures import own_records\n"
        "assert len(own_records(Bundle.open(sys.argv[1]))) == 1\n"
        "assert not {'onnxruntime', 'openvino', 'SimpleITK'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(bundle.path)], check=True)
