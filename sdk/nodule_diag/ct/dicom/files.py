"""Where the bytes of DICOM files come from: a folder, or a zip archive that is never unpacked.

A member of an archive is inflated in memory each time it is read, so no patient data is written anywhere. No name from
the archive is used as a path. Archives with unsafe names are refused all the same, because of what else they may hold.
"""

from __future__ import annotations

import os
import stat
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath

from nodule_diag.ct.limits import MAX_ARCHIVE_BYTES, MAX_FILE_BYTES, MAX_FILES
from nodule_diag.errors import CTError
from nodule_diag.process import SERVED_COMPRESSION, open_zip, read_member

_ENCRYPTED = 0x1
_GIB = 2**30


@dataclass(frozen=True)
class DicomFile:
    """A file in a folder or in an archive, that any thread may read.

    Attributes:
        name: Its path in the folder or archive, for messages.
        path: The file, or the archive.
        member: The member of the archive; None in a folder.
    """

    name: str
    path: Path
    member: zipfile.ZipInfo | None = None

    @property
    def _archive(self) -> Path | bytes:
        return self.path

    @property
    def size(self) -> int:
        """Size in bytes, inflated where the file is compressed; no more bytes are ever read."""
        return self.member.file_size if self.member else self.path.stat().st_size

    def part(self, start: int, count: int, *, check: bool = True) -> memoryview:
        """``count`` bytes from ``start``; fewer where the file ends.

        Args:
            start: First byte.
            count: Number of bytes.
            check: Whether all of an archive's member is inflated, to verify its checksum.

        Raises:
            CTError: ``ct-damaged``.
        """
        if self.member is None:
            with self.path.open("rb") as file:  # a buffer: one call to the system reads 2 GiB at most
                file.seek(start)
                return memoryview(file.read(count))
        try:
            return memoryview(read_member(self._archive, self.member, start + count, check=check))[start:]
        except zipfile.BadZipFile as error:
            raise CTError(
                f"{self.path} is damaged: {self.name!r} cannot be unpacked ({error})",
                code="ct-damaged",
                hint="copy or download the archive again",
            ) from error


@dataclass(frozen=True, repr=False)
class MemoryFile(DicomFile):
    """A file that was never on a disk.

    Attributes:
        name: Its name, for messages.
        path: Its source, for messages.
        data: Its bytes.
    """

    data: bytes = b""

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.data)

    def part(self, start: int, count: int, *, check: bool = True) -> memoryview:  # noqa: ARG002
        """``count`` bytes from ``start``; fewer where the file ends."""
        return memoryview(self.data)[start : start + count]


@dataclass(frozen=True, repr=False)
class MemberFile(DicomFile):
    """A file in an archive that was never on a disk.

    Attributes:
        name: Its path in the archive, for messages.
        path: The archive's name, for messages.
        member: The member of the archive.
        archive: All bytes of the archive.
    """

    archive: bytes = b""

    @property
    def _archive(self) -> Path | bytes:
        return self.archive


def files_in(folder: Path) -> list[DicomFile]:
    """All regular files under a folder, in a fixed order. Links are followed, and no folder is entered twice.

    Raises:
        CTError: ``ct-too-many-files``.
        OSError: When a folder cannot be read: its files may be slices of the CT.
    """
    found: list[DicomFile] = []
    entered: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        here = Path(parent).stat()
        if (here.st_dev, here.st_ino) in entered:  # through a link to a folder above or beside
            folders.clear()
            continue
        entered.add((here.st_dev, here.st_ino))
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                found.append(DicomFile(printable_name(str(path.relative_to(folder))), path))
        if max(len(found), len(entered)) > MAX_FILES:
            raise CTError(
                f"{folder} holds over {MAX_FILES:,} files or folders",
                code="ct-too-many-files",
                hint="give the folder of one CT study",
            )
    return found


def _refuse(error: OSError) -> None:
    raise error


def printable_name(name: str) -> str:
    """A name for a message on any terminal: control characters and bytes of another encoding are escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def members_of(path: Path, data: bytes | None = None) -> list[DicomFile]:
    """The files of an archive in the order of its directory, which is checked first.

    Args:
        path: The ``.zip``.
        data: Its bytes, where it was never on a disk.

    Raises:
        CTError: ``ct-truncated``, or one of ``ct-archive-*``.
    """
    try:
        with open_zip(path if data is None else BytesIO(data)) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise CTError(
            f"{path} is truncated or no zip archive: {error}",
            code="ct-truncated",
            hint="copy or download the file again",
        ) from error
    names = set[str]()
    for entry in entries:
        _check_entry(entry, path)
        if entry.filename in names:
            raise CTError(
                f"{path} holds {entry.filename!r}, twice",
                code="ct-archive-duplicate",
                hint="pack the DICOM folder again",
            )
        names.add(entry.filename)
    files = [entry for entry in entries if not entry.is_dir() and not _is_clutter(entry.filename)]
    if len(files) > MAX_FILES:
        raise CTError(
            f"{path} holds {len(files):,} files, over the limit of {MAX_FILES:,}",
            code="ct-archive-too-many-files",
            hint="pack one CT series alone",
        )
    total = sum(entry.file_size for entry in files)
    if total > MAX_ARCHIVE_BYTES:
        raise CTError(
            f"{path} unpacks to {total / _GIB:.1f} GiB, over the limit of {MAX_ARCHIVE_BYTES / _GIB:.0f} GiB",
            code="ct-archive-too-large",
            hint="pack one CT series alone",
        )
    if data is None:
        return [DicomFile(printable_name(entry.filename), path, entry) for entry in files]
    return [MemberFile(printable_name(entry.filename), path, entry, archive=data) for entry in files]


def _check_entry(entry: zipfile.ZipInfo, path: Path) -> None:
    """Refuse one file if its directory entry is not safe."""

    def refused(why: str, code: str, hint: str) -> CTError:
        return CTError(f"{path} holds {entry.filename!r}, {why}", code=code, hint=hint)

    posix, windows = PurePosixPath(entry.filename), PureWindowsPath(entry.filename)
    if posix.is_absolute() or windows.drive or windows.root or ".." in (*posix.parts, *windows.parts):
        hint = "do not trust this archive; pack the DICOM folder again"
        raise refused("which points outside the archive", "ct-archive-path-escape", hint)
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise refused("which is a symbolic link", "ct-archive-link", "pack the DICOM files themselves")
    if entry.flag_bits & _ENCRYPTED:
        raise refused("which is encrypted and needs a password", "ct-archive-encrypted", "unpack it first")
    if entry.compress_type not in SERVED_COMPRESSION:
        hint = "pack the DICOM folder again as an ordinary zip"
        raise refused("which is compressed in a way other than deflate", "ct-archive-compression", hint)
    if entry.file_size > MAX_FILE_BYTES:
        limit = f"over the limit of {MAX_FILE_BYTES // 2**20:,} MiB for one DICOM file"
        why = f"which unpacks to {entry.file_size / 2**20:,.0f} MiB, {limit}"
        raise refused(why, "ct-archive-too-large", "pack the DICOM slices of one CT series alone")


def _is_clutter(name: str) -> bool:
    """Whether macOS added this file to the archive."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith("._")
