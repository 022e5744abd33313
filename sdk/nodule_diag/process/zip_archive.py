"""Opening zip archives whose bytes may be anything: zipfile lets damage out as half a dozen kinds of errors."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

SERVED_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def open_zip(source: Path | BinaryIO) -> zipfile.ZipFile:
    """Open an archive and read its directory.

    Raises:
        zipfile.BadZipFile: If it is no zip, or its directory is damaged.
        OSError: If it cannot be read.
    """
    try:
        archive = zipfile.ZipFile(source)
    except (ValueError, struct.error, NotImplementedError, RuntimeError) as error:
        raise zipfile.BadZipFile(str(error)) from error
    if any(entry.header_offset < 0 for entry in archive.infolist()):
        archive.close()
        raise zipfile.BadZipFile("its directory points before its beginning")
    return archive
