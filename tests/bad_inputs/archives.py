"""Zip archives that must be refused."""

import stat
import struct
import zipfile
from pathlib import Path

import ct_files as make
from bad_inputs.case import case, cut
from bad_inputs.dicom import slices


@case("an empty archive file", "ct-empty", "scan.zip")
def empty_zip(folder):
    path = folder / "scan.zip"
    path.touch()
    return path


@case("archive cut off", "ct-truncated", "scan.zip")
def zip_truncated(folder):
    return cut(make.zipped(slices(folder), folder / "scan.zip"), 5000)


@case("archive with a flipped bit", "ct-damaged", "series/003.dcm", "CRC")
def zip_corrupt(folder):
    path = folder / "scan.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for item in sorted(slices(folder).iterdir()):
            archive.write(item, f"series/{item.name}")
        offset = archive.getinfo("series/003.dcm").header_offset
    data = bytearray(path.read_bytes())
    data[offset + 1500] ^= 4
    path.write_bytes(data)
    return path


@case("archive compressed by LZMA", "ct-archive-compression", "series/000.dcm", "other than deflate")
def zip_lzma(folder):
    path = folder / "scan.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for item in sorted(slices(folder).iterdir()):
            archive.write(item, f"series/{item.name}")
    return path


@case("archive whose directory points before its beginning", "ct-truncated", "before its beginning")
def zip_before_its_beginning(folder):
    path = _zip(folder, {"1.dcm": b"x"})
    data = bytearray(path.read_bytes())
    offset = data.rindex(b"PK\x05\x06") + 16  # of the directory, in the record at the archive's end
    data[offset] += 100
    path.write_bytes(data)
    return path


@case("archive with a damaged file name", "ct-truncated", "scan.zip")
def zip_bad_name(folder):
    path = _zip(folder, {"h\u00e4.dcm": b"x"})
    path.write_bytes(path.read_bytes().replace("h\u00e4".encode(), b"h\xff\xff"))
    return path


def _zip(folder: Path, names: dict[str, bytes]) -> Path:
    path = folder / "scan.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in names.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def _claiming(path: Path, unpacked_bytes: int) -> Path:
    """Make the archive's directory claim that each file unpacks to so much."""
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<I", data, at + 24, unpacked_bytes)
        at = data.find(b"PK\x01\x02", at + 46)
    path.write_bytes(data)
    return path


@case("an archive that writes outside its folder", "ct-archive-path-escape", "../../escaped.dcm")
def zip_escape(folder):
    return _zip(folder, {"a/1.dcm": b"x", "../../escaped.dcm": b"x"})


@case("an archive with an absolute path", "ct-archive-path-escape", "/etc/escaped.dcm")
def zip_absolute(folder):
    return _zip(folder, {"/etc/escaped.dcm": b"x"})


@case("an archive with a Windows path", "ct-archive-path-escape", "escaped.dcm")
def zip_windows(folder):
    return _zip(folder, {"C:\\escaped.dcm": b"x"})


@case("an archive with a symbolic link", "ct-archive-link", "link.dcm")
def zip_link(folder):
    path = folder / "scan.zip"
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/hostname")
    return path


@case("an archive with one huge file (zip bomb)", "ct-archive-too-large", "3,840 MiB")
def zip_bomb(folder):
    return _claiming(_zip(folder, {"a.dcm": b"x"}), 0xF0000000)


@case("an archive that unpacks to too much (zip bomb)", "ct-archive-too-large", "5.0 GiB")
def zip_bomb_many(folder):
    return _claiming(_zip(folder, {f"{i}.dcm": b"x" for i in range(20)}), 256 * 2**20)


@case("an archive of too many files", "ct-archive-too-many-files", "20,001 files")
def zip_too_many(folder):
    return _zip(folder, {f"{i}.dcm": b"" for i in range(20_001)})


@case("an encrypted archive", "ct-archive-encrypted", "a.dcm")
def zip_encrypted(folder):
    path = _zip(folder, {"a.dcm": b"x"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return path


@case("an archive without DICOM images", "ct-no-dicom", "looked at: 2")
def zip_no_dicom(folder):
    return _zip(folder, {"a.txt": b"hello", "b.nii": b"hello"})


@case("an archive of a series that lacks most slices", "ct-missing-slices", "5 slices where 12 would be even")
def zip_missing_slices(folder):
    return make.zipped(slices(folder, lambda items: items[:4] + items[11:]), folder / "scan.zip")
