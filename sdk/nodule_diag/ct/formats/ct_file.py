"""The file of a CT, on a disk or in memory, and the data file that a header names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import cast

from nodule_diag.ct.limits import READING_LIMITS
from nodule_diag.ct.refusals import quoted
from nodule_diag.errors import CTError


@dataclass(frozen=True, repr=False)
class CTFile:
    """A file of one of the formats.

    Attributes:
        path: Its path, or its name.
        data: Its bytes, where it was never on a disk.
        beside: The files that came with it, by name; a header in memory can name only these.
        used: The names of those that it has named.
    """

    path: Path
    data: bytes | None = None
    beside: Mapping[str, bytes] | None = None
    used: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        """The name for messages."""
        return str(self.path)

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.path.stat().st_size if self.data is None else len(self.data)

    def open(self) -> BufferedReader:
        """Open the file at its first byte."""
        if self.data is None:
            return self.path.open("rb")
        return BufferedReader(cast("BufferedReader", BytesIO(self.data)))  # shares the bytes

    def data_file(self, name: str) -> CTFile:
        """The file with the voxels of a detached header: one file, in the header's own folder.

        A header is text that anyone can write, so it may not name a file outside its folder. Links in the folder are
        followed to any place: their author could also have put the voxels into the folder. A caller for whom that is
        not so sets ``may_open`` of :func:`nodule_diag.ct.reading_limits`.

        Args:
            name: The file as the header names it.

        Raises:
            CTError: ``ct-detached-data`` or ``ct-missing-data-file``.
        """
        named = Path(name)
        # MetaImage and NRRD also allow lists of files and patterns such as ct%03d.raw, one file per slice. A missing
        # slice, or a slice of another CT, would not be noticed. So they are refused, like a folder of pictures.
        several = name.split(maxsplit=1)[:1] == ["LIST"] or "%" in name
        if several or not name or "\0" in name or named.is_absolute() or named.drive or ".." in named.parts:
            raise CTError(
                f"{self} takes its voxels from {quoted(name)}, which is not one file in its own folder",
                code="ct-detached-data",
                hint="store the CT as one .mha, .nrrd or .nii.gz file",
            )
        data = self.path.parent / named
        if self.data is not None:
            held = (self.beside or {}).get(name)
            if held is not None:
                self.used.add(name)
                return CTFile(data, held)
        elif data.is_file():
            READING_LIMITS.get().may_open(data)
            return CTFile(data)
        raise CTError(
            f"{self} takes its voxels from {quoted(name)}, which does not exist",
            code="ct-missing-data-file",
            hint=f"keep the {self.path.suffix} and its data file together",
        )
