"""Zip archives that must be refused."""

import stat
import struct
import warnings
import zipfile
import zlib
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


@case("archive whose directory holds more files than it counts", "ct-truncated", "counts 1 files")
def zip_miscounted(folder):
    path = _zip(folder, {"1.dcm": b"x", "2.dcm": b"y"})
    data = bytearray(path.read_bytes())
    struct.pack_into("<2H", data, data.rindex(b"PK\x05\x06") + 8, 1, 1)
    path.write_bytes(data)
    return path


@case("archive whose files lie over each other", "ct-truncated", "over each other")
def zip_overlapping(folder):
    path = _zip(folder, {"1.dcm": b"x" * 100, "2.dcm": b"y" * 100})
    data = bytearray(path.read_bytes())
    struct.pack_into("<L", data, data.rindex(b"PK\x01\x02") + 42, 0)
    path.write_bytes(data)
    return path


@case("archive with a file without a name", "ct-truncated", "without a name")
def zip_nameless(folder):
    return _zip(folder, {"": b"x"})


@case("archive with two files of one name", "ct-archive-duplicate", "'a/1.dcm', twice")
def zip_duplicate(folder):
    path = folder / "scan.zip"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in (b"x", b"y"):
            archive.writestr(zipfile.ZipInfo("a/1.dcm"), data)
    return path


@case("archive whose file is longer than its directory says", "ct-damaged", "series/003.dcm")
def zip_promises_less(folder):
    series = slices(folder)
    with (series / "003.dcm").open("ab") as file:
        file.write(bytes(300))  # or the slice would be cut off
    path = make.zipped(series, folder / "scan.zip")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"series/003.dcm") - 46
    size = struct.unpack_from("<L", data, at + 24)[0] - 200
    struct.pack_into("<L", data, at + 24, size)
    with zipfile.ZipFile(path) as archive:
        struct.pack_into("<L", data, at + 16, zlib.crc32(archive.read("series/003.dcm")[:size]))
    path.write_bytes(data)
    return path


@case("archive whose file has another name than its directory says", "ct-damaged", "another file")
def zip_renamed(folder):
    path = make.zipped(slices(folder), folder / "scan.zip")
    path.write_bytes(path.read_bytes().replace(b"series/003.dcm", b"series/004.dcm", 1))
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


@case("an archive of a series with a slice that damage has made something else", "ct-damaged", "series/004.dcm")
def zip_disguised_slice(folder):
    """Its SOP class is another, so it would be set aside, and interpolated; its checksum says otherwise."""
    path = make.zipped(slices(folder), folder / "scan.zip")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    data = bytearray(path.read_bytes())
    at = data.index(b"series/004.dcm")
    modality = data.index(b"CS\x02\x00CT", at)
    data[modality + 4 : modality + 6] = b"SR"
    path.write_bytes(data)
    return path
