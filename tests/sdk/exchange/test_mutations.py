"""Damaged files of every form: refused with a typed error, or read; never a bare exception, never a warning past us.

``NODULE_DIAG_MUTATIONS=2000`` tries as many of each file instead of a few.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from nodule_diag.errors import CoordinateError, UsageError
from nodule_diag.exchange import open_positions

FILES = (
    *("lps.csv", "comma.csv", "list.json", "lines.jsonl", "lps.mrk.json", "ras.mrk.json", "old.fcsv", "luna25.csv"),
    *("challenge.json", "rtstruct", "seg binary", "seg label map rle", "sr point", "sr outlines", "sr segment"),
    *("chest cad",),
)
TRIES = int(os.environ.get("NODULE_DIAG_MUTATIONS", "25"))


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped, bytes set, a piece removed, doubled, zeroed or moved; several of these, as faults come."""
    for _ in range(int(rng.integers(1, 4))):
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
        piece = data[at : at + length]
        match rng.integers(7):
            case 0:
                data = data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
            case 1:
                data = data[:at] + rng.integers(0, 256, len(piece), dtype=np.uint8).tobytes() + data[at + length :]
            case 2:
                data = data[:at] + data[at + length :]
            case 3:
                data = data[:at] + piece + data[at:]
            case 4:
                data = data[:at] + bytes(len(piece)) + data[at + length :]
            case 5:
                data = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
            case _:
                other = int(rng.integers(len(data)))
                data = data[:other] + piece + data[other + length :]
        data = data or b"\0"
    return data


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(straight, tmp_path, name):
    source = straight.files[name]
    path = tmp_path / f"damaged{source.suffix}"
    whole = source.read_bytes()
    refused = 0
    for seed in range(TRIES):
        path.write_bytes(mutated(whole, np.random.default_rng([seed, len(whole)])))
        try:
            found = open_positions(path).on(straight.ct)
        except (UsageError, CoordinateError) as error:
            refused += 1
            assert len(str(error)) < 20_000
        else:
            assert found
            assert all(np.isfinite(position.xyz_lps_mm).all() for position in found)
    assert refused, "mutations that change nothing prove nothing"
