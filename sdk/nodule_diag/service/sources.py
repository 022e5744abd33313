"""Where a CT of a request comes from: an upload, a path below ``--root``, or a PACS that the service may query."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from nodule_diag.ct import dicom_files, dicom_files_in_memory, read_ct, read_ct_in_memory, reading_limits
from nodule_diag.errors import NoduleDiagError
from nodule_diag.service.problems import ServiceError
from nodule_diag.service.requests import DicomwebReference, PathReference, Reference
from nodule_diag.service.settings import Settings
from nodule_diag.service.store import ReadCT
from nodule_diag.service.work import Job


class Sources:
    """Reads CTs.

    Args:
        settings: The allowed folder and servers, and the largest CT.
        threads: Threads for reading.
    """

    def __init__(self, settings: Settings, *, threads: int) -> None:
        self._settings, self._threads = settings, threads

    def uploaded(
        self, files: Mapping[str, bytes], job: Job, *, series: str | None = None, acquisition: int | None = None
    ) -> ReadCT:
        """Read an uploaded CT; errors as `read_ct_in_memory`."""
        started = time.perf_counter()
        with reading_limits(max_voxels=self._settings.ct_voxels, watch=lambda share: job.at("read", share)):
            ct = read_ct_in_memory(files, series=series, acquisition=acquisition, threads=self._threads)
        read_ms = (time.perf_counter() - started) * 1000
        if ct.dicom is None:
            return ReadCT(ct, read_ms=read_ms)
        size = sum(map(len, files.values()))
        return ReadCT(ct, dicom_files_in_memory(files), files_bytes=size, read_ms=read_ms)

    def referred(self, reference: Reference, job: Job) -> ReadCT:
        """Read a CT that is named by a reference.

        Raises:
            ServiceError: ``no-root``, ``path-outside-root`` or ``dicomweb-not-allowed``.
            NoduleDiagError: As `read_ct` and `Pacs.fetch`.
        """
        with reading_limits(
            max_voxels=self._settings.ct_voxels,
            watch=lambda share: job.at("read", share),
            may_open=lambda file: _require(_within(self._root, file)),
        ):
            if isinstance(reference, PathReference):
                return self._below_root(reference)
            return self._fetched(reference, job)

    def check(self, reference: Reference) -> None:
        """Refuse a CT that must not be read, before the work is queued; errors as :meth:`referred`."""
        if isinstance(reference, PathReference):
            self._path(reference.path)
        else:
            self._require_allowed(reference.dicomweb.url)

    def _below_root(self, reference: PathReference) -> ReadCT:
        path = self._path(reference.path)
        started = time.perf_counter()
        try:
            ct = read_ct(path, series=reference.series, acquisition=reference.acquisition, threads=self._threads)
        except NoduleDiagError as error:  # its message names the folder of --root
            error.message = error.message.replace(str(path), reference.path)
            raise
        read_ms = (time.perf_counter() - started) * 1000
        files = None if ct.dicom is None else dicom_files(path)
        return ReadCT(replace(ct, path=reference.path), files, read_ms=read_ms)

    @property
    def _root(self) -> Path:
        """The resolved folder of ``--root``."""
        if self._settings.root is None:
            raise ServiceError(
                "the service takes no paths",
                status=403,
                code="no-root",
                hint="send the CT, or start the service with --root DIR",
            )
        return self._settings.root.resolve()

    def _path(self, given: str) -> Path:
        """The resolved path of a path below the root; links must not lead out of the root."""
        root = self._root
        try:
            path = (root / given).resolve()
            inside = path.is_relative_to(root) and "\0" not in given
            inside = inside and all(_within(root, link) for link in _links(path))
        except (OSError, ValueError, RuntimeError):  # a loop of links, or an invalid name
            inside = False
        _require(inside)
        return path

    def _fetched(self, reference: DicomwebReference, job: Job) -> ReadCT:
        from nodule_diag.pacs import Pacs

        wanted = reference.dicomweb
        self._require_allowed(wanted.url)
        started = time.perf_counter()
        fetched = Pacs(wanted.url).fetch(
            wanted.study, wanted.series, progress=lambda have, of: job.at("read", 0.5 * have / of)
        )
        ct = fetched.read(acquisition=reference.acquisition, threads=self._threads)
        size = sum(file.size for file in fetched.files)
        return ReadCT(ct, fetched.files, files_bytes=size, read_ms=(time.perf_counter() - started) * 1000)

    def _require_allowed(self, url: str) -> None:
        """Only servers that the operator allowed: the service uses its own account and network."""
        if url.rstrip("/") not in {allowed.rstrip("/") for allowed in self._settings.dicomweb}:
            raise ServiceError(
                f"the service may not ask the PACS {url[:80]!r}",
                status=403,
                code="dicomweb-not-allowed",
                hint="start the service with that URL in --dicomweb",
            )


def _links(folder: Path) -> Iterator[Path]:
    """The links in a folder and below it; none of a file."""
    for parent, folders, names in os.walk(folder):
        yield from (entry for name in (*folders, *names) if (entry := Path(parent, name)).is_symlink())


def _within(root: Path, file: Path) -> bool:
    """Whether a file, or a link, is a plain file below the root; a link to a folder could lead further."""
    target = file.resolve()
    return target.is_relative_to(root) and not target.is_dir()


def _require(inside: bool) -> None:
    if not inside:
        raise ServiceError(
            "the path leads out of the folder that CTs may be taken from",
            status=403,
            code="path-outside-root",
            hint="give a path below that of --root, without links to elsewhere",
        )
