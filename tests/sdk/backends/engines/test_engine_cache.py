"""The engine cache: keys, refusals, one builder at a time, and a build that is killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("filelock", reason="the engine cache locks with filelock: pip install 'nodule-diag[tensorrt-rtx]'")

from hypothesis import given, settings
from hypothesis import strategies as st

from nodule_diag.backends import user_cache
from nodule_diag.backends.engines.cache import EngineCache, cache_folder
from nodule_diag.backends.engines.store import EngineKey, EngineRefusedError, read_engine, sidecar_path, write_engine
from nodule_diag.errors import BackendError

PLAN = bytes(range(256)) * 40
KEY = EngineKey(
    model_sha256="ab" * 32,
    runtime="tensorrt-rtx",
    runtime_version="1.7.1.116",
    gpu="NVIDIA RTX A4000",
    compute_capability="8.6",
    driver="cuda-13000, 580.65.06",
    precision="fp16",
    profile="1-1-1,1-8-32",
)
OTHERS = {
    "model_sha256": "cd" * 32,
    "runtime": "tensorrt",
    "runtime_version": "1.7.1.117",
    "gpu": "NVIDIA RTX A4500",
    "compute_capability": "8.9",
    "driver": "cuda-13000, 580.65.07",
    "precision": "bf16",
    "profile": "1-1-1",
}
BUILD = """
import sys, time
from pathlib import Path
from nodule_diag.backends.engines.cache import EngineCache
from nodule_diag.backends.engines.store import EngineKey
folder, key, seconds = Path(sys.argv[1]), EngineKey.model_validate_json(sys.argv[2]), float(sys.argv[3])
def build():
    with (folder / "builds.txt").open("a") as file:
        file.write("built\\n")
    print("building", flush=True)
    time.sleep(seconds)
    return b"plan" * 1000
sys.stdout.write(str(len(EngineCache(folder).get(key, build=build))))
"""


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def changed(field: str) -> EngineKey:
    return KEY.model_copy(update={field: OTHERS[field]})


def fail() -> bytes:
    raise AssertionError("built although it is cached")


@contextmanager
def started(folder: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A process that builds for so long; it is gone afterwards, whatever came of the test."""
    folder.mkdir(mode=0o700, exist_ok=True)
    program = [sys.executable, "-c", BUILD, str(folder), KEY.model_dump_json(), str(seconds)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_every_field_of_the_key_counts():
    assert OTHERS.keys() == EngineKey.model_fields.keys()
    names = {KEY.file_name, *(changed(field).file_name for field in OTHERS)}
    assert len(names) == 1 + len(OTHERS)
    assert "tensorrt-rtx-1.7.1.116-sm8.6-fp16" in KEY.file_name


@settings(max_examples=25)
@given(st.text(min_size=1, max_size=60))
def test_no_gpu_name_leaves_the_folder(name):
    file = KEY.model_copy(update={"gpu": name, "runtime_version": name}).file_name
    assert Path(file).name == file
    assert len(file) < 200


def test_an_engine_is_built_once(cache):
    assert cache.get(KEY, build=lambda: PLAN) == PLAN
    assert cache.get(KEY, build=fail) == PLAN
    if os.name == "posix":
        assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("field", OTHERS)
def test_an_engine_of_another_key_is_refused_and_rebuilt(cache, field):
    """Even under the right name: somebody copied a cache from another machine."""
    cache.folder.mkdir(mode=0o700)
    path = cache.path_of(KEY)
    write_engine(path, PLAN, key=changed(field))
    with pytest.raises(EngineRefusedError, match=field) as caught:
        read_engine(path, key=KEY)
    assert caught.value.code == "engine-other-key"
    assert cache.get(KEY, build=lambda: b"rebuilt") == b"rebuilt"
    assert read_engine(path, key=KEY) == b"rebuilt"


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda path: path.write_bytes(PLAN[:-1]), "engine-truncated"),
        (lambda path: path.write_bytes(b""), "engine-truncated"),
        (lambda path: path.write_bytes(PLAN[:99] + b"\x00" + PLAN[100:]), "engine-altered"),
        (lambda path: sidecar_path(path).unlink(), "engine-undescribed"),
        (lambda path: sidecar_path(path).write_bytes(b"{}"), "engine-undescribed"),
        (lambda path: sidecar_path(path).write_bytes(b" " * 10**6), "engine-undescribed"),
        (lambda path: path.unlink(), "engine-missing"),
    ],
)
def test_a_damaged_engine_is_refused_and_rebuilt(cache, damage, code):
    cache.get(KEY, build=lambda: PLAN)
    damage(cache.path_of(KEY))
    with pytest.raises(EngineRefusedError) as caught:
        read_engine(cache.path_of(KEY), key=KEY)
    assert caught.value.code == code
    assert isinstance(caught.value, BackendError)
    assert cache.get(KEY, build=lambda: b"rebuilt") == b"rebuilt"
    assert cache.get(KEY, build=fail) == b"rebuilt"


@settings(max_examples=25)
@given(st.integers(0, len(PLAN) - 1), st.integers(1, 255))
def test_any_changed_byte_is_seen(tmp_path_factory, position, by):
    path = tmp_path_factory.mktemp("engine") / "e.engine"
    write_engine(path, PLAN, key=KEY)
    altered = bytearray(PLAN)
    altered[position] ^= by
    path.write_bytes(altered)
    with pytest.raises(EngineRefusedError, match="altered"):
        read_engine(path, key=KEY)


def test_a_build_that_fails_leaves_nothing(cache):
    def broken() -> bytes:
        raise BackendError("out of memory", code="engine-build-failed")

    with pytest.raises(BackendError, match="out of memory"):
        cache.get(KEY, build=broken)
    assert not list(cache.folder.glob("*.engine*.json"))
    assert not cache.path_of(KEY).exists()


def test_two_processes_build_once(tmp_path):
    folder = tmp_path / "engines"
    with started(folder, 1.0) as one, started(folder, 1.0) as other:
        outputs = [process.communicate(timeout=240)[0] for process in (one, other)]
        assert [one.returncode, other.returncode] == [0, 0]
    assert all(output.endswith("4000") for output in outputs)
    assert (folder / "builds.txt").read_text() == "built\n"


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
def test_a_killed_build_leaves_nothing_usable_and_blocks_nobody(cache):
    with started(cache.folder, 600.0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(EngineRefusedError, match="there is no engine"):
        read_engine(cache.path_of(KEY), key=KEY)
    assert EngineCache(cache.folder, lock_timeout_s=60).get(KEY, build=lambda: PLAN) == PLAN


def test_what_a_killed_writer_left_is_swept(cache):
    cache.folder.mkdir(mode=0o700)
    left = [cache.folder / f".0.part.{name}" for name in (KEY.file_name, KEY.file_name + ".json")]
    for file in left:
        file.write_bytes(PLAN[:100])
    other = cache.folder / f".0.part.{changed('gpu').file_name}"
    other.write_bytes(b"another build is writing this")
    cache.get(KEY, build=lambda: PLAN)
    assert not [file for file in left if file.exists()]
    assert other.exists()


def test_a_lock_that_is_held_for_too_long_is_an_error(tmp_path):
    folder = tmp_path / "engines"
    with started(folder, 600.0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        with pytest.raises(BackendError, match="another process has been building") as caught:
            EngineCache(folder, lock_timeout_s=0.2).get(KEY, build=fail)
        assert caught.value.code == "engine-lock-timeout"


def test_blobs_are_whole_or_absent(cache):
    assert cache.load_blob("a.timing") is None
    cache.store_blob("a.timing", b"measured")
    assert cache.load_blob("a.timing") == b"measured"
    path = cache.folder / "a.timing"
    for damaged in (path.read_bytes()[:-1], b"", b"x" * 32, path.read_bytes()[:-1] + b"?"):
        path.write_bytes(damaged)
        assert cache.load_blob("a.timing") is None


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_an_engine_is_not_taken_from_where_others_may_write(cache):
    """An engine is code, and whoever may write it may write the hash beside it."""
    cache.get(KEY, build=lambda: PLAN)
    cache.folder.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="can be written by other users: nothing is kept") as caught:
        assert cache.get(KEY, build=lambda: b"built now") == b"built now"
    assert f"chmod 700 {cache.folder}" in str(caught[0].message)
    cache.folder.chmod(0o755)
    assert cache.get(KEY, build=fail) == PLAN


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_nothing_else_is_taken_from_there_either(cache):
    """Kernels that were compiled at run time are code too."""
    cache.store_blob("a.kernels", b"code")
    cache.folder.parent.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="is reached by"):
        assert cache.load_blob("a.kernels") is None
    with pytest.warns(RuntimeWarning, match="is reached by"):
        cache.store_blob("a.kernels", b"other")
    with pytest.warns(RuntimeWarning, match="is reached by"):
        cache.discard(KEY)
    cache.folder.parent.chmod(0o1777)
    assert cache.load_blob("a.kernels") == b"code", "in a folder such as /tmp nobody else may exchange it"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("suffix", ["", ".json"])
@pytest.mark.parametrize("how", ["written by others", "link"])
def test_a_file_that_others_could_have_written_is_not_taken(cache, tmp_path, suffix, how):
    cache.get(KEY, build=lambda: PLAN)
    path = cache.folder / f"{KEY.file_name}{suffix}"
    if how == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.chmod(0o666)
    assert cache.get(KEY, build=lambda: b"built now") == b"built now"
    assert cache.get(KEY, build=fail) == b"built now", "and is kept in its place"


@pytest.mark.parametrize("name", [KEY.file_name, KEY.file_name + ".lock"])
def test_where_it_cannot_be_kept_it_is_built_each_time(cache, name):
    """The lock, or the engine: a folder stands for whatever the system refuses to write."""
    (cache.folder / name).mkdir(mode=0o700, parents=True)
    cache.folder.chmod(0o700)
    with pytest.warns(RuntimeWarning, match="cannot be written") as caught:
        assert cache.get(KEY, build=lambda: PLAN) == PLAN
    assert user_cache.CACHE_VARIABLE in str(caught[0].message)


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setattr(user_cache.sys, "platform", "linux")
    monkeypatch.setattr(user_cache.Path, "home", lambda: tmp_path)
    monkeypatch.delenv(user_cache.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "nodule-diag" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "nodule-diag" / "engines"
    monkeypatch.setenv(user_cache.CACHE_VARIABLE, str(tmp_path / "mine"))
    assert cache_folder() == EngineCache().folder == tmp_path / "mine"


def test_a_cache_that_cannot_be_made_names_the_variable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning) as caught:
        assert EngineCache(tmp_path / "file" / "engines").get(KEY, build=lambda: PLAN) == PLAN
    assert user_cache.CACHE_VARIABLE in str(caught[0].message)
