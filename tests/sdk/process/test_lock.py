"""One writer at a time, whatever becomes of the one before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nodule_diag.errors import OutputError
from nodule_diag.process.lock import sole_writer

HOLD = """
import sys
from pathlib import Path
from nodule_diag.process import sole_writer
with sole_writer(Path(sys.argv[1]), of=Path("results")):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_until_it_ends_or_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    for end in ("close", "kill"):
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(OutputError, match="another process is writing in results") as caught:
                sole_writer(file, of=Path("results")).__enter__()
            assert caught.value.code == "output-busy"
            if end == "kill":
                holder.kill()
            else:
                holder.stdin.close()
            holder.wait()
        assert file.exists() == (end == "kill")
        with sole_writer(file, of=Path("results")):
            assert file.exists()
        assert not file.exists()


def test_in_one_process_too(tmp_path: Path) -> None:
    with sole_writer(tmp_path / "lock", of=tmp_path):
        with pytest.raises(OutputError, match="another process"), sole_writer(tmp_path / "lock", of=tmp_path):
            pass
        assert (tmp_path / "lock").exists(), "the one who was refused took nothing away"


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=f"cannot write in {tmp_path}"),
        sole_writer(tmp_path / "absent" / "lock", of=tmp_path),
    ):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="cannot write in"), sole_writer(tmp_path / "link", of=tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()
