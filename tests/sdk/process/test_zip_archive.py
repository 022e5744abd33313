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


def test_an_archive_behind_something_else(tmp_path):
    """A program that unpacks itself."""
    path = tmp_path / "some.zip"
    packed(path, [b"x" * 5000, b"y"])
    path.write_bytes(b"MZ" * 3000 + path.read_bytes())
    with open_zip(path) as archive:
        assert [read_member(path, entry, 9999, check=True) for entry in archive.infolist()] == [b"x" * 5000, b"y"]


def test_zip64_and_data_descriptors_and_comments(tmp_path):
    path = tmp_path / "some.zip"
    with path.open("wb") as file, zipfile.ZipFile(Unseekable(file), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"a comment PK\x01\x02 that lies" * 500
        for number in range(3):
            with archive.open(f"{number}.dcm", "w", force_zip64=True) as member:
                member.write(bytes([number]) * 5000)
    with open_zip(path) as archive:
        entries = archive.infolist()
        assert all(entry.flag_bits & 8 for entry in entries)
        assert [read_member(path, entry, 9999, check=True) for entry in entries] == [
            bytes([number]) * 5000 for number in range(3)
        ]


class Unseekable:
    """A stream that zipfile can only append to, so that sizes stand behind the data."""

    def __init__(self, file):
        self.write, self.flush = file.write, file.flush


def test_more_than_65535_files_are_counted_by_zip64(tmp_path):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(65_600):
            archive.writestr(zipfile.ZipInfo(f"{number}"), b"")
    with open_zip(path) as archive:
        assert len(archive.infolist()) == 65_600
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x06\x06")
    struct.pack_into("<2Q", data, at + 24, 64, 64)
    path.write_bytes(data)
    with pytest.raises(zipfile.BadZipFile, match="counts 64 files"):
        open_zip(path)


@pytest.mark.parametrize("count", [0, 1, 3, 65_535])
def test_a_directory_that_counts_otherwise(tmp_path, count):
    path = tmp_path / "some.zip"
    packed(path, [b"x" * 5000, b"y"])
    data = bytearray(path.read_bytes())
    struct.pack_into("<2H", data, data.rindex(b"PK\x05\x06") + 8, count, count)
    path.write_bytes(data)
    with pytest.raises(zipfile.BadZipFile, match=f"counts {count:,} files"):
        open_zip(path)


@given(changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=3))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_gives_what_was_packed_or_bad_zip(tmp_path, changes):
    path = tmp_path / "some.zip"
    contents = [random.Random(number).randbytes(100) * 4 for number in range(4)]
    packed(path, contents)
    data = bytearray(path.read_bytes())
    for at, value in changes:
        data[-1 - at % len(data)] = value  # most of it is directory
    path.write_bytes(data)
    try:
        with open_zip(path) as archive:
            entries = archive.infolist()
        found = [read_member(path, entry, 9999, check=True) for entry in entries if entry.compress_type in (0, 8)]
    except zipfile.BadZipFile:
        return
    assert set(found) <= set(contents)
    assert len(entries) == len(contents)
