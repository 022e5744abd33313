"""Whether another user could put something into the cache: by its folder, by a folder above it, or by a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodule_diag.backends.user_cache import make_private, why_unsafe_way
from nodule_diag.errors import OutputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


def test_a_way_that_is_this_users_alone(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/../a")
    for path in (tmp_path / "a" / "b", tmp_path / "link" / "b", tmp_path / "absent" / "b"):
        assert why_unsafe_way(path) == ""


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o702])
def test_a_folder_above_that_others_may_write(tmp_path: Path, mode: int) -> None:
    """Whoever may write there exchanges the folder for his own."""
    folder = tmp_path / "shared" / "mine" / "cache"
    folder.mkdir(parents=True)
    (tmp_path / "shared").chmod(mode)
    assert f"{tmp_path / 'shared'}, which can be written by other users" in why_unsafe_way(folder)
    (tmp_path / "shared").chmod(0o1777)
    assert why_unsafe_way(folder) == ""


def test_a_folder_above_behind_a_link(tmp_path: Path) -> None:
    """The link leads through a folder that others may write; its own way is clean."""
    (tmp_path / "shared" / "cache").mkdir(parents=True)
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to("shared")
    assert "can be written by other users" in why_unsafe_way(tmp_path / "one" / "cache")


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OutputError, match="Too many levels of symbolic links"):
        make_private(tmp_path / "one" / "cache")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives a file away")
@pytest.mark.parametrize("what", ["link", "folder"])
def test_another_users_folder_or_link(tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    os.lchown(tmp_path / what, 1234, 1234)
    assert f"{tmp_path / what}, which belongs to another user" in why_unsafe_way(tmp_path / "link" / "cache")


def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        make_private(tmp_path / "a" / "b")
        make_private(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o700, 0o700]
