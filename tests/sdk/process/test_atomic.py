"""A file is written whole or not at all."""

import pytest

from nodule_diag.errors import OutputError
from nodule_diag.process import atomic


def test_replaces_the_old_file(tmp_path):
    target = tmp_path / "result.json"
    target.write_bytes(b"old")
    atomic.write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_keeps_the_old_file(tmp_path):
    target = tmp_path / "result.nii.gz"
    target.write_bytes(b"old")

    def interrupted():
        with atomic.writing(target) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.name.endswith("result.nii.gz")
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        atomic.write_bytes(tmp_path / "nowhere" / "result.json", b"")
