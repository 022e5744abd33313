"""Members of an archive in memory: the truth is zipfile's, and what was packed."""

import random
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodule_diag.process import open_zip, read_member


def packed(path, contents, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for number, data in enumerate(contents):
            archive.writestr(f"{number}.dcm", data)
    with open_zip(path) as archive:
        return archive.infolist()


@given(
    data=st.binary(max_size=3000).flatmap(lambda part: st.integers(0, 1500).map(lambda times: part * times)),
    count=st.integers(0, 2**22),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    check=st.booleans(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_as_much_as_was_wanted(tmp_path, data, count, method, check):
    path = tmp_path / "some.zip"
    _, entry = packed(path, [b"before", data], method)
    assert read_member(path, entry, count, check=check) == data[:count]


def test_members_side_by_side(tmp_path):
    contents = [bytes([number]) * 200_000 for number in range(20)]
    path = tmp_path / "some.zip"
    entries = packed(path, contents)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda entry: read_member(path, entry, 2**30, check=True), entries)) == contents


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("at", range(0, 3000, 37))
def test_a_flipped_bit_never_gives_other_bytes(tmp_path, method, at):
    """Also where only the beginning is kept: the checksum is over all of it. Padding bits of deflate hold nothing."""
    data = random.Random(0).choices(b"abcdefgh", k=3000)
    path = tmp_path / "some.zip"
    (entry,) = packed(path, [bytes(data)], method)
    start = 30 + len(entry.filename)
    flipped = bytearray(path.read_bytes())
    flipped[start + at % entry.compress_size] ^= 8
    path.write_bytes(flipped)
    padding = method == zipfile.ZIP_DEFLATED and at % entry.compress_size == entry.compress_size - 1
    with nullcontext() if padding else pytest.raises(zipfile.BadZipFile):
        assert read_member(path, entry, 100, check=True) == bytes(data[:100])


def test_a_directory_that_claims_more_or_less_is_found(tmp_path):
    path = tmp_path / "some.zip"
    packed(path, [b"x" * 5000])
    whole = path.read_bytes()
    for claimed in (4999, 5001):
        data = bytearray(whole)
        struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, claimed)
        path.write_bytes(data)
        (entry,) = zipfile.ZipFile(path).infolist()
        with pytest.raises(zipfile.BadZipFile):
            read_member(path, entry, 10, check=True)


def test_a_member_that_is_not_where_the_directory_says(tmp_path):
    path = tmp_path / "some.zip"
    (entry,) = packed(path, [b"x" * 5000])
    entry.header_offset = 7
    with pytest.raises(zipfile.BadZipFile, match="does not begin"):
        read_member(path, entry, 10, check=False)


@pytest.mark.parametrize("offset", [2**20, 2**63, 2**64 - 1])
def test_a_directory_that_points_behind_its_files(tmp_path, offset):
    """Zip64 has room for offsets that no file can have."""
    path = tmp_path / "some.zip"
    packed(path, [b"x" * 5000])
    data = bytearray(path.read_bytes())
    directory, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    name_bytes, extra_bytes = struct.unpack_from("<2H", data, directory + 28)
    assert extra_bytes == 0
    struct.pack_into("<H", data, directory + 30, 12)
    struct.pack_into("<L", data, directory + 42, 0xFFFFFFFF)
    extra = struct.pack("<2HQ", 1, 8, offset)
    struct.pack_into("<L", data, end + 12, end - directory + len(extra))
    at = directory + 46 + name_bytes
    path.write_bytes(data[:at] + extra + data[at:])
    with pytest.raises(zipfile.BadZipFile, match="behind its files"):
        open_zip(path)
