"""Readers with faults, each of a kind that the fuzzer must find. `test_fuzzer` gives them to the worker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fuzz.readers import READERS as HONEST
from fuzz.readers import Answer
from nodule_diag.errors import CTError, NoduleDiagError

_ENOUGH_BYTES = 400 * 2**20
_TOO_MUCH_BYTES = 6 * 2**30
_EAT = f"x = b'1' * {700 * 2**20}"


def _when_refused(fault: Callable[[NoduleDiagError], Any]) -> Callable[[Path], Answer]:
    """An honest reader, but for what it does with a file that it refuses."""

    def read(path: Path) -> Answer:
        try:
            return HONEST["ct"](path)
        except NoduleDiagError as error:
            fault(error)
            raise

    return read


def _forever(_: NoduleDiagError) -> NoReturn:
    while True:
        pass


def _bare(_: NoduleDiagError) -> NoReturn:
    raise KeyError("DimSize")


def _blunt(error: NoduleDiagError) -> NoReturn:
    raise CTError(error.message)


def _ignores_checksum(path: Path) -> Answer:
    """Takes what can be inflated, as readers do that stop after the last voxel."""
    data = path.read_bytes()
    try:
        plain = zlib.decompressobj(47).decompress(data, 10**6)
    except zlib.error:
        plain = zlib.decompressobj(-15).decompress(data[10:-8], 10**6) if data[:1] == b"\x1f" else b""
    other = path.with_name("plain.nii")
    other.write_bytes(plain or b"-")
    return HONEST["ct"](other)


def _never_written(path: Path) -> Answer:
    """Fills what is missing with what lies in memory."""
    found = HONEST["points"](path)
    return replace(found, value=[*found.value, (os.urandom(8), 0.0, 0.0, 0.0)])


def _drops_slices(path: Path) -> Answer:
    """Passes over files that it cannot read, and says nothing."""
    folder = path.parent / "kept"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for one in sorted(path.rglob("*.dcm")):
        data = one.read_bytes()
        if data[128:132] == b"DICM" and len(data) > 3000:
            (folder / one.name).write_bytes(data)
    return HONEST["ct"](folder)


def _other_slice(path: Path) -> Answer:
    """Takes the voxels of a slice from its neighbour as soon as a file is damaged."""
    found = HONEST["ct"](path)
    assert found.hu is not None
    hu = found.hu.copy()
    if int(hu.astype(np.int64).sum()) % 3:
        hu[2] = hu[3]
    shape, _, placed = found.value
    return replace(found, value=(shape, hu.tobytes(), placed), hu=hu)


READERS: dict[str, Callable[[Path], Answer]] = {
    **HONEST,
    "bundle": _when_refused(lambda _: b"1" * _ENOUGH_BYTES),  # as much as a bundle may take
    "aborts": _when_refused(lambda _: os.abort()),
    "leaves": _when_refused(lambda _: os._exit(0)),
    "hangs": _when_refused(_forever),
    "sleeps": _when_refused(lambda _: time.sleep(600)),
    "is-bare": _when_refused(_bare),
    "is-blunt": _when_refused(_blunt),
    "prints": _when_refused(lambda _: os.write(2, b"bad file\n")),
    "eats": _when_refused(lambda _: b"1" * _ENOUGH_BYTES),
    "asks-for-too-much": _when_refused(lambda _: bytearray(_TOO_MUCH_BYTES)),
    "feeds-a-child": _when_refused(lambda _: subprocess.run([sys.executable, "-c", _EAT], check=True)),
    "ignores-checksum": _ignores_checksum,
    "never-written": _never_written,
    "drops-slices": _drops_slices,
    "other-slice": _other_slice,
}
