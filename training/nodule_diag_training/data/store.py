"""Prepared nodules on disk: one zarr group for each, whole or absent.

The format is zarr and not HDF5 because a zarr group is a folder: it is written beside the store and moved in by one
rename. A crash or a full disk then costs only the current nodule; an HDF5 file that is open for writing can be lost as
a whole. Chunks carry a checksum. The store belongs to one set of preprocessing parameters; another set is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from nodule_diag.errors import OutputError
from nodule_diag.process import write_bytes

from .case import Case, Preprocessing
from .nodule import TrainingDataError
from .regions import Region
from .voxels import NoduleVoxels

DESCRIPTION = "preprocessing.json"
CASES = "cases"
INCOMING = ".incoming-"
COMPRESSION_LEVEL = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredCase:
    """A nodule of the store; its voxels are read on request.

    Attributes:
        folder: The nodule's folder.
        case: What is known of the nodule.
        center: As ``Region.center``.
        extension: As ``Region.extension``.
    """

    folder: Path
    case: Case
    center: tuple[float, float, float]
    extension: int

    def region(self) -> Region:
        """The nodule's voxels.

        Raises:
            TrainingDataError: If the voxels are damaged.
        """
        import zarr

        try:
            group = zarr.open_group(self.folder, mode="r")
            return Region(
                channels=np.asarray(group["channels"][...]),  # type: ignore[index]
                occupancy=np.asarray(group["occupancy"][...]) if self.case.mask_known else None,  # type: ignore[index]
                center=self.center,
                extension=self.extension,
            )
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise _damaged(self.folder, error) from error

    def voxels(self) -> NoduleVoxels:
        """The voxels as training takes them; the mask is empty where the nodule has no outline (``Nodule.outlined``).

        Raises:
            TrainingDataError: If the voxels are damaged.
        """
        region = self.region()
        empty = np.zeros(region.channels.shape[1:], dtype=np.float16)
        return NoduleVoxels(
            channels=region.channels,
            occupancy=empty if region.occupancy is None else region.occupancy,
            center=region.center,
            extension=region.extension,
        )


class NoduleStore:
    """A folder of prepared nodules.

    Args:
        path: The folder; made when it does not exist.
        preprocessing: The parameters of its nodules; an existing store must have the same.

    Raises:
        TrainingDataError: If the store was prepared with other parameters, or the folder holds something else.
    """

    def __init__(self, path: Path, *, preprocessing: Preprocessing) -> None:
        self.path = path
        self.preprocessing = preprocessing
        description = path / DESCRIPTION
        if description.exists():
            held = read_description(path)
            if held != preprocessing:
                raise TrainingDataError(
                    f"{path} was prepared with other parameters: {_difference(held, preprocessing)}",
                    hint="give another --out, or remove the store",
                )
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise TrainingDataError(f"{path} is not a store of nodules", hint="give a new folder for --out")
        else:
            try:
                (path / CASES).mkdir(parents=True)
            except OSError as error:
                raise OutputError(f"cannot make {path}: {error.strerror}", hint="check its permissions") from error
            write_bytes(description, preprocessing.model_dump_json(indent=1).encode())
        for leftover in path.glob(f"{INCOMING}*"):
            shutil.rmtree(leftover)

    def _folder(self, case_id: str) -> Path:
        return self.path / CASES / hashlib.sha256(case_id.encode()).hexdigest()[:24]

    def _held(self, case_id: str) -> Case | None:
        """The facts of a stored nodule; None where there is none, or a damaged one."""
        import zarr

        try:
            return Case.model_validate(dict(zarr.open_group(self._folder(case_id), mode="r").attrs)["case"])
        except (OSError, KeyError, ValueError):
            return None

    def holds(self, case: Case, *, fingerprint: str) -> bool:
        """Whether the nodule was stored from the same source with the same facts."""
        import zarr

        folder = self._folder(case.case_id)
        if not folder.is_dir():
            return False
        return zarr.open_group(folder, mode="r").attrs.get("key") == self._key(case, fingerprint)

    def _key(self, case: Case, fingerprint: str) -> str:
        # The centre of a LIDC nodule is found during preparation and follows from the source.
        facts = case.model_dump(mode="json", exclude={"center_xyz_mm"} if case.kind == "lidc" else None)
        text = json.dumps([self.preprocessing.model_dump(mode="json"), facts, fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def add(self, case: Case, region: Region, *, fingerprint: str) -> None:
        """Write a nodule. A stored version of it with other facts or from a changed CT is replaced.

        Raises:
            TrainingDataError: If another nodule of the store has its id.
            OutputError: If the nodule cannot be written; the store is then unchanged.
        """
        import zarr
        from zarr.codecs import ZstdCodec

        if (held := self._held(case.case_id)) is not None and held.is_another_than(case):
            raise TrainingDataError(
                f"{case.case_id} is {held.patient_id}'s nodule in {held.source} already",
                hint="name cases so that no two nodules have one name",
            )
        incoming = self.path / f"{INCOMING}{secrets.token_hex(6)}"
        codec = ZstdCodec(level=COMPRESSION_LEVEL, checksum=True)
        arrays = {"channels": region.channels}
        if region.occupancy is not None:
            arrays["occupancy"] = region.occupancy
        try:
            group = zarr.open_group(incoming, mode="w")
            for name, array in arrays.items():
                group.create_array(name, data=array, chunks=array.shape, compressors=codec)
            group.attrs.update(
                {
                    "key": self._key(case, fingerprint),
                    "case": case.model_dump(mode="json"),
                    "center": list(region.center),
                    "extension": region.extension,
                }
            )
            for file in incoming.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as opened:
                        os.fsync(opened.fileno())
            target = self._folder(case.case_id)
            if target.exists():
                shutil.rmtree(target)
            incoming.replace(target)
        except OSError as error:
            shutil.rmtree(incoming, ignore_errors=True)
            raise OutputError(
                f"cannot write {case.case_id} into {self.path}: {error.strerror or error}",
                hint="check permissions and free space; a repeated command goes on from here",
            ) from error


def read_store(path: Path) -> Iterator[StoredCase]:
    """Every nodule of a store, in a fixed order, without its voxels.

    Raises:
        TrainingDataError: If there is no store, or what is known of one of its nodules is damaged.
    """
    import zarr

    read_description(path)
    for folder in sorted((path / CASES).iterdir()):
        try:
            facts: dict[str, Any] = dict(zarr.open_group(folder, mode="r").attrs)
            case = Case.model_validate(facts["case"])
            z, y, x = facts["center"]
            stored = StoredCase(folder=folder, case=case, center=(z, y, x), extension=facts["extension"])
        except (OSError, RuntimeError, KeyError, ValueError) as error:  # ValidationError is a ValueError
            raise _damaged(folder, error) from error
        yield stored


def _damaged(folder: Path, error: Exception) -> TrainingDataError:
    return TrainingDataError(f"{folder} is damaged: {error}", hint="remove this folder and prepare the store again")


def read_description(path: Path) -> Preprocessing:
    """What a store was prepared with.

    Raises:
        TrainingDataError: If there is no store.
    """
    try:
        return Preprocessing.model_validate_json((path / DESCRIPTION).read_bytes())
    except (OSError, ValidationError) as error:
        raise TrainingDataError(
            f"{path} is not a store of nodules: {DESCRIPTION} cannot be read", hint="nodule-diag train prepare"
        ) from error


def _difference(held: Preprocessing, wanted: Preprocessing) -> str:
    pairs = zip(held.model_dump().items(), wanted.model_dump().values(), strict=True)
    return ", ".join(f"{name} {old} instead of {new}" for (name, old), new in pairs if old != new)
