"""The folder of ``--out``: the JSON document, and per nodule a CAM and a segmentation that lie on the CT.

A map's name ends with the start of its SHA-256, and the document says which maps are its own. So maps of two patients
cannot be mixed up, whoever wrote what when:

1. Everything is written into a folder inside, ``.nodule-diag``, under a lock that a second writer is refused by.
2. The maps change places. Their names are their content, so none takes the place of another one.
3. ``prediction.json`` is replaced by one rename: until then the old result stands, from then on the new one.
4. Maps that the document does not name are removed, also those that an earlier run left when it was killed.

Files of others in the folder are never touched.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodule_diag.errors import OutputError, UsageError
from nodule_diag.process import document_text
from nodule_diag_cli.signals import uninterrupted

if TYPE_CHECKING:
    from nodule_diag.ct import CTVolume
    from nodule_diag.results import Diagnosis

DOCUMENT = "prediction.json"
WORK, LOCK = ".nodule-diag", "lock"
MAX_STEM = 80  # characters of an id in a file name; file systems allow 255 bytes for the whole of it
DIGEST = 16
"""Hexadecimal digits of a map's SHA-256 in its name."""
_UNSAFE = re.compile(r"[^\w.-]", re.ASCII)
_MAP = re.compile(rf"(?:cam|segmentation)_[\w.-]+-([0-9a-f]{{{DIGEST}}})\.nii\.gz", re.ASCII)
_NOTE_AT, _NOTE = 148, b"nodule-diag: "
"""Where and how a NIfTI header of ours says whose it is."""


def file_stem(nodule_id: str) -> str:
    """The part of a file name that stands for an id: letters, digits, ``_ . -``, never a path."""
    return _UNSAFE.sub("_", nodule_id).strip(".")[:MAX_STEM] or "_"


class ResultFolder:
    """A folder that this process alone writes results into; :func:`opened` makes it.

    Attributes:
        folder: Where the result is to be.
        work: A folder inside for what is not finished.
    """

    def __init__(self, folder: Path, stems: dict[str, str]) -> None:
        self.folder, self.work = folder, folder / WORK
        self._stems = stems

    def write(self, *, ct: CTVolume, diagnoses: Sequence[Diagnosis], document: dict[str, Any]) -> list[Path]:
        """Write a result in the place of the one that is there, all of it or nothing.

        Args:
            ct: The CT.
            diagnoses: One a nodule of the document.
            document: The names of its maps are added: ``maps`` of each nodule.

        Returns:
            The files.

        Raises:
            OutputError: One cannot be written, as when the disk is full; the old result stands then.
        """
        from nodule_diag.process import sync_folder, write_bytes
        from nodule_diag.results import write_cam, write_segmentation

        for diagnosis, nodule in zip(diagnoses, document["nodules"], strict=True):
            cam, segmentation = self.work / "cam.nii.gz", self.work / "segmentation.nii.gz"
            write_cam(cam, ct, diagnosis.cam)
            write_segmentation(segmentation, ct, diagnosis.segmentation)
            nodule["maps"] = {
                kind: self._named(path, f"{kind}_{self._stems[diagnosis.id]}")
                for kind, path in (("cam", cam), ("segmentation", segmentation))
            }
        names = [name for nodule in document["nodules"] for name in nodule["maps"].values()]
        write_bytes(self.work / DOCUMENT, document_text(document).encode())
        with uninterrupted():
            before = _read(self.folder / DOCUMENT)
            try:
                self.move(*names)
                sync_folder(self.folder)
                self.move(DOCUMENT)
                sync_folder(self.folder)
            finally:
                self.sweep()
            for path in _of_0_2(before, self.folder):
                _remove(path)
        return [self.folder / name for name in (*names, DOCUMENT)]

    def move(self, *names: str) -> None:
        """Take finished files to their place."""
        for name in names:
            try:
                (self.work / name).replace(self.folder / name)
            except OSError as error:
                raise OutputError(
                    f"cannot write {self.folder / name}: {error.strerror}", hint="name another --out"
                ) from error

    def sweep(self) -> None:
        """Remove maps that the document which stands here does not name, and that were certainly written by this."""
        document = _read(self.folder / DOCUMENT)
        mine = {name for nodule in document.get("nodules", ()) for name in nodule.get("maps", {}).values()}
        for path in self.folder.glob("*.nii.gz"):
            named = _MAP.fullmatch(path.name)
            if named and path.name not in mine and path.is_file() and _digest(path) == named[1]:
                _remove(path)

    def _named(self, path: Path, stem: str) -> str:
        """Call a finished map by its content; returns the name."""
        name = f"{stem}-{_digest(path)}.nii.gz"
        path.replace(path.with_name(name))
        return name


@contextmanager
def opened(folder: Path, nodule_ids: Sequence[str]) -> Iterator[ResultFolder]:
    """Make the folder, take it for this process and clean up after one that was killed, before any work is done.

    Raises:
        OutputError: The folder cannot be made, or is a file; ``output-busy`` while another process writes in it.
        UsageError: Two ids would share a file.
    """
    from nodule_diag.process import sole_writer

    results = ResultFolder(folder, _stems(nodule_ids))
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", hint="name a folder with --out")
    locked = ExitStack()
    try:
        with uninterrupted():
            _make(results.work, of=folder)
            locked.enter_context(sole_writer(results.work / LOCK, of=folder))
            locked.callback(_empty, results.work)
        _empty(results.work)
        results.sweep()
        yield results
    finally:
        with uninterrupted():
            locked.close()
            with suppress(OSError):  # another writer has come, or this one was refused
                results.work.rmdir()


def _make(work: Path, *, of: Path) -> None:
    if work.is_symlink():  # everything in it is removed later
        raise OutputError(f"{work} is a link", hint="remove it, or name another --out")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {of}: {error.strerror}", hint="name another --out") from error


def _stems(nodule_ids: Sequence[str]) -> dict[str, str]:
    """The part of the file names that stands for each id."""
    stems = {nodule_id: file_stem(nodule_id) for nodule_id in nodule_ids}
    taken: dict[str, str] = {}
    for nodule_id, stem in stems.items():
        # Some file systems do not tell upper from lower case.
        other = taken.setdefault(stem.casefold(), nodule_id)
        if other != nodule_id:
            raise UsageError(
                f"the nodule ids {other!r} and {nodule_id!r} would both be written as {stem!r}",
                hint="give them ids that differ in letters or digits",
            )
    return stems


def _empty(work: Path) -> None:
    """Remove everything but the lock."""
    try:
        for path in work.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{work} cannot be emptied: {error.strerror}", hint="remove it by hand, or name another --out"
        ) from error


def _remove(path: Path) -> None:
    """Remove a map of another run."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path} is of another run and cannot be removed: {error.strerror}", hint="remove it by hand"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    """A document of ours; empty for what is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:  # its maps are not known then, and must not be taken for leftovers
        raise OutputError(f"{path} cannot be read: {error.strerror}", hint="name another --out") from error
    try:
        document = json.loads(data)
        maps = [nodule.get("maps", {}) for nodule in document["nodules"]]
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return {}
    return document if all(isinstance(names, dict) for names in maps) else {}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST]


def _of_0_2(document: dict[str, Any], folder: Path) -> Iterator[Path]:
    """The maps of a document that does not name them: as nodule-diag 0.2 called them, where their header is ours."""
    for nodule in document.get("nodules", ()):
        for kind in () if "maps" in nodule else ("cam", "segmentation"):
            path = folder / f"{kind}_{file_stem(str(nodule.get('id')))}.nii.gz"
            with suppress(OSError, EOFError, ValueError), gzip.open(path) as file:
                if file.read(_NOTE_AT + len(_NOTE))[_NOTE_AT:] == _NOTE:
                    yield path
