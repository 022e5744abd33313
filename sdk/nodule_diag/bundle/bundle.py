"""Open a bundle: every hash is checked before any byte is parsed, and the hashed bytes are the parsed bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ValidationError

from nodule_diag.bundle.fields import UNSAFE_PATH, require_plain_json
from nodule_diag.bundle.files import MAX_MANIFEST_BYTES, beside, list_files, read_bounded
from nodule_diag.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest
from nodule_diag.errors import BundleError, OutputError
from nodule_diag.process import sole_writer, sync_folder, write_bytes, writing

MAX_TOTAL_BYTES = 1024 * 2**20
"""All files of a bundle together: they are held in memory."""
FIRST_SCHEMA = "nodule-diag/bundle/1"
"""Its case base was ``cases.json`` and search files of hnswlib."""
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The one time stamp of every entry, so that equal bundles are equal files."""


MAX_SHOWN = 300
"""Characters of a manifest that a message repeats."""


class _Version(BaseModel):
    """The one field that says how the rest must be read."""

    schema_version: str


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle in which every file has the hash that the manifest gives.

    The bytes are read once and kept, so replacing a file on disk after the check has no effect.

    Attributes:
        manifest: The parsed ``manifest.json``.
        sha256: The hash of ``manifest.json``, which lists the hash of every other file. It identifies the bundle.
        path: Where the bundle was opened.
        files: The checked bytes of every file that the manifest lists, by relative path.
    """

    manifest: Manifest
    sha256: str
    path: Path
    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read and check a bundle.

        Args:
            path: Its directory, or a zip of that directory's content.

        Returns:
            The checked bundle.

        Raises:
            BundleError: With its own code for each fault: ``bundle-missing``, ``bundle-not-a-bundle``,
                ``bundle-unreadable``, ``bundle-unsafe-path``, ``bundle-too-large``, ``bundle-schema-unknown``,
                ``bundle-manifest-invalid``, ``bundle-file-missing``, ``bundle-file-unlisted``,
                ``bundle-hash-mismatch``.
        """
        root = Path(path)
        readers = list_files(root)
        text = read_bounded(MANIFEST_NAME, readers.pop(MANIFEST_NAME), limit=MAX_MANIFEST_BYTES)
        manifest = _parse_manifest(text)
        _check_listing(manifest, set(readers))
        data: dict[str, bytes] = {}
        remaining = MAX_TOTAL_BYTES
        for name, expected in manifest.files.items():
            data[name] = read_bounded(name, readers[name], limit=remaining)
            remaining -= len(data[name])
            found = hashlib.sha256(data[name]).hexdigest()
            if found != expected:
                raise BundleError(
                    f"{name} in the bundle was changed or damaged: its sha256 is {found}, the manifest says {expected}",
                    hint="copy or download the bundle again",
                    code="bundle-hash-mismatch",
                )
        return cls(manifest, hashlib.sha256(text).hexdigest(), root, data)

    @classmethod
    def default(cls) -> Bundle:
        """Open the bundle that is packaged with the SDK.

        Raises:
            BundleError: ``bundle-missing`` when this distribution carries none, or any fault of :meth:`open`.
        """
        path = Path(str(resources.files("nodule_diag") / "bundles" / "default"))
        if not path.is_dir():
            raise BundleError(
                "this installation carries no packaged bundle",
                hint="install nodule-diag from its wheel, or name a bundle with --bundle (bundle=...)",
                code="bundle-missing",
            )
        return cls.open(path)

    @property
    def model_sha256(self) -> str:
        """The hash of the fp32 network's file. It identifies the model that gave the scores of a case base.

        It does not depend on the case base, card, figures or reduced graphs, and equals ``sha256sum model.onnx``.
        """
        return self.manifest.files[self.manifest.model.file]

    def read(self, name: str) -> bytes:
        """The checked bytes of one file.

        Args:
            name: Its relative path, as the manifest lists it.

        Raises:
            BundleError: ``bundle-file-missing``.
        """
        if name not in self.files:
            raise BundleError(f"the bundle has no file {name}", code="bundle-file-missing")
        return self.files[name]


def _parse_manifest(text: bytes) -> Manifest:
    try:
        require_plain_json(text)
        version = _Version.model_validate_json(text).schema_version
    except ValidationError as error:
        raise _invalid(error) from error
    except ValueError as error:
        raise _invalid_at("its JSON", str(error)) from error
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"the bundle's schema version is {version!r}; this version of nodule-diag reads {SCHEMA_VERSION!r}",
            hint="nodule-diag export cases BUNDLE --cases BUNDLE/index/cases.json --same --out NEW makes a new one"
            if version == FIRST_SCHEMA
            else "install the nodule-diag that the bundle was made for, or take another bundle",
            code="bundle-schema-unknown",
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise _invalid(error) from error


def _invalid(error: ValidationError) -> BundleError:
    """Name the first wrong field, but an unsafe path before all others, because it is no accident."""
    faults = error.errors(include_url=False, include_context=False)
    fault = next((fault for fault in faults if fault["type"] == UNSAFE_PATH), faults[0])
    where = ".".join(str(part) for part in fault["loc"]) or "its JSON"
    code = "bundle-unsafe-path" if fault["type"] == UNSAFE_PATH else "bundle-manifest-invalid"
    return _invalid_at(where, fault["msg"], code=code)


def _invalid_at(where: str, why: str, *, code: str = "bundle-manifest-invalid") -> BundleError:
    """Names and values of a manifest may be anything: unprintable characters are replaced, long texts are cut."""
    said = f"{where[:MAX_SHOWN]}: {why[:MAX_SHOWN]}"
    return BundleError(
        f"the bundle's {MANIFEST_NAME} is invalid at {''.join(c if c.isprintable() else '?' for c in said)}",
        hint="take the bundle from where it was made; manifests are not written by hand",
        code=code,
    )


def _check_listing(manifest: Manifest, present: set[str]) -> None:
    listed = set(manifest.files)
    unhashed = f"the bundle's {MANIFEST_NAME} is invalid at files: no sha256 for"
    for names, fault, code in (
        (set(manifest.required_files()) - listed, unhashed, "bundle-manifest-invalid"),
        (listed - present, "the bundle lacks", "bundle-file-missing"),
        (present - listed, "the bundle holds files that its manifest does not list:", "bundle-file-unlisted"),
    ):
        if names:
            raise BundleError(
                f"{fault} {', '.join(sorted(names)[:5])}", hint="copy or download the whole bundle again", code=code
            )


def seal(manifest: Manifest, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Complete a bundle in memory: hash ``files`` into the manifest and add the manifest.

    Args:
        manifest: Everything but ``files``, which is replaced.
        files: Content by relative path, ``manifest.json`` left out.

    Returns:
        Every file of the bundle, ``manifest.json`` first.

    Raises:
        BundleError: ``bundle-manifest-invalid`` or ``bundle-unsafe-path``, as opening it would.
    """
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    text = (manifest.model_copy(update={"files": hashes}).model_dump_json(indent=2) + "\n").encode()
    _check_listing(_parse_manifest(text), set(files))
    return {MANIFEST_NAME: text, **{name: files[name] for name in hashes}}


def write_bundle(path: str | os.PathLike[str], *, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle whole or not at all, and open it.

    A directory is replaced by two renames. A process that is killed between them leaves the former bundle under a
    hidden name. The next write moves it back first, and opening names it.

    Args:
        path: A ``.zip`` to write, or a directory. A directory that holds a bundle already is replaced as a whole.
        manifest: Everything but ``files``.
        files: Content by relative path, ``manifest.json`` left out.

    Returns:
        The bundle as it was read back.

    Raises:
        BundleError: When what would be written is not a valid bundle.
        OutputError: When the bundle cannot be written, or ``path`` holds something other than a bundle;
            ``output-busy`` while another process writes this directory.
    """
    target, content = Path(path), seal(manifest, files)
    if target.suffix == ".zip":
        _write_zip(target, content)
    else:
        _write_directory(target, content)
    return Bundle.open(target)


def _write_zip(target: Path, content: Mapping[str, bytes]) -> None:
    with writing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)


def _write_directory(target: Path, content: Mapping[str, bytes]) -> None:
    """Fill a new directory beside the target, then exchange the two by renaming."""
    empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not (target / MANIFEST_NAME).is_file() and not empty:
        raise OutputError(f"{target} exists and is not a bundle", hint="name a new folder, or remove this one")
    fresh, old = beside(target, "new"), beside(target, "old")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with sole_writer(beside(target, "lock"), of=target):
            _clear_dead(fresh, target, old)
            try:
                for name, data in content.items():
                    (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                    write_bytes(fresh / name, data)
                sync_folder(fresh)
                _exchange(fresh, target, old)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write the bundle {target}: {error.strerror or error}") from error


def _clear_dead(fresh: Path, target: Path, old: Path) -> None:
    """Move back what a killed writer moved away, and remove what else it left."""
    if os.path.lexists(old) and not os.path.lexists(target):
        old.rename(target)
    for left in (fresh, old):
        _remove(left)


def _exchange(fresh: Path, target: Path, old: Path) -> None:
    """Put ``fresh`` in the place of ``target``. The old content is restored on failure and removed on success."""
    if target.exists():
        target.rename(old)
    try:
        fresh.rename(target)
    except BaseException:
        if os.path.lexists(old):
            old.rename(target)
        raise
    sync_folder(target.parent)  # before the old content goes
    with suppress(OSError):
        _remove(old)


def _remove(path: Path) -> None:
    """Remove a directory, or a link to one."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
