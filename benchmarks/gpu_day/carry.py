"""The folder that is carried to the machine: the recipe, the folds, and every nodule's HU, in a small form.

HU are clipped to what the two windows show (exact: the network sees no more) and rounded to steps of 4 HU, so a voxel
is off by 2 HU at most, far below the noise of a CT. Differences along a row, low bytes apart from high ones, and LZMA
reduce LIDC's 973 VOIs and cubes to 22 MB, and each cube of lung to 88 kB; not all of these fit. What a bare machine
cannot compute alike (folds need scikit-learn, diagnoses a spreadsheet) is decided here.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nodule_diag.preprocessing import LUNG_WINDOW_HU, MEDIASTINAL_WINDOW_HU
from nodule_diag.process import write_bytes
from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data import (
    CUBE_SPACING_MM,
    EXTENSION,
    LungPlace,
    Nodule,
    NoduleVoxels,
    SureLabel,
    TrainingDataError,
    at_half_mm,
    lung_at_half_mm,
    read_hu,
    read_lung_hu,
)

STEP_HU: Final = 4
LOWEST_HU = min(LUNG_WINDOW_HU[0], MEDIASTINAL_WINDOW_HU[0])
HIGHEST_HU = max(LUNG_WINDOW_HU[1], MEDIASTINAL_WINDOW_HU[1])
LUNG_CUBES: Final = 144
"""Lung cubes that are carried, of 360: half of each patient's and half of each kind, 13 MB."""
BLOCK: Final = 16
"""Volumes compressed together: a machine with many cores unpacks blocks in parallel."""
INDEX, VOLUMES = "index.json", "volumes.xz"
Levels = NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One run of the day: a fold, or all patients.

    Attributes:
        name: Name of its folder.
        fold: From 0; None for all patients.
        learned: Case ids that are learned from, in the order in which draws count them.
        validation_patients: Patients of these cases that are set aside.
        provenance: What the finished model says about its split.
    """

    name: str
    fold: int | None
    learned: tuple[str, ...]
    validation_patients: tuple[str, ...]
    provenance: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Carry:
    """What the folder holds, without the voxels.

    Attributes:
        config: The recipe.
        parts: The runs.
        nodules: All nodules and places of lung, by case id.
        blocks: For each block of ``volumes.xz``, its start and end, and its volumes' (case id, shape, spacing).
        sha256: Digest of the whole folder.
    """

    config: TrainingConfig
    parts: tuple[Part, ...]
    nodules: dict[str, Nodule]
    blocks: tuple[dict[str, Any], ...]
    sha256: str


def levels_of(hu: NDArray[np.generic]) -> Levels:
    """HU as steps of ``STEP_HU`` above the lowest that a window shows."""
    clipped = np.clip(hu.astype(np.float64), LOWEST_HU, HIGHEST_HU)
    return np.asarray(np.rint((clipped - LOWEST_HU) / STEP_HU), dtype=np.int16)


def hu_of(levels: Levels) -> NDArray[np.int16]:
    """The HU of levels."""
    return np.asarray(levels.astype(np.int32) * STEP_HU + int(LOWEST_HU), dtype=np.int16)


def packed(volumes: Sequence[tuple[Levels, NDArray[np.bool_]]]) -> bytes:
    """Some volumes and masks compressed: the low bytes of all differences, the high ones, the masks' bits."""
    differences = np.concatenate([np.diff(levels, axis=-1, prepend=np.int16(0)).ravel() for levels, _ in volumes])
    zigzag = ((differences << 1) ^ (differences >> 15)).astype("<u2")
    planes = zigzag.view(np.uint8).reshape(-1, 2)
    bits = np.packbits(np.concatenate([mask.ravel() for _, mask in volumes]))
    return lzma.compress(planes[:, 0].tobytes() + planes[:, 1].tobytes() + bits.tobytes(), preset=6)


def unpacked(data: bytes, shapes: Sequence[tuple[int, ...]]) -> list[tuple[Levels, NDArray[np.bool_]]]:
    """The inverse of :func:`packed`."""
    raw = np.frombuffer(lzma.decompress(data), dtype=np.uint8)
    sizes = [int(np.prod(shape)) for shape in shapes]
    total = sum(sizes)
    zigzag = raw[:total].astype(np.uint16) | (raw[total : 2 * total].astype(np.uint16) << 8)
    differences = (zigzag >> 1).astype(np.int16) ^ -(zigzag & 1).astype(np.int16)
    masks = np.unpackbits(raw[2 * total :], count=total).astype(bool)
    starts = [0, *accumulate(sizes)]
    return [
        (
            np.cumsum(differences[start : start + size].reshape(shape), axis=-1, dtype=np.int16),
            masks[start : start + size].reshape(shape),
        )
        for start, size, shape in zip(starts, sizes, shapes, strict=False)
    ]


def chosen_lung(places: Sequence[LungPlace], *, count: int) -> list[LungPlace]:
    """At most ``count`` places: equally many of each patient and kind, if there are enough, spread over each group."""
    groups: dict[tuple[str, str], list[LungPlace]] = {}
    for place in places:
        groups.setdefault((place.patient_id, place.kind), []).append(place)
    kept: set[str] = set()
    for number, (_, group) in enumerate(sorted(groups.items(), key=lambda item: len(item[1]))):
        share = min(len(group), (count - len(kept)) // (len(groups) - number))
        kept |= {group[round((i + 0.5) * len(group) / share - 0.5)].case_id for i in range(share)}
    return [place for place in places if place.case_id in kept]


def write_carry(
    folder: Path, *, config: TrainingConfig, parts: Sequence[Part], nodules: Sequence[Nodule]
) -> dict[str, int | str]:
    """Write the folder; the same data give the same bytes.

    Returns:
        Its volumes, bytes and sha256.

    Raises:
        TrainingDataError: If a nodule cannot be read.
        OutputError: If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blocks, data = [], b""
    for start in range(0, len(nodules), BLOCK):
        volumes, facts = [], []
        for nodule in nodules[start : start + BLOCK]:
            hu, mask, spacing = _read(nodule)
            volumes.append((levels_of(hu), mask))
            facts.append({"case_id": nodule.case_id, "shape": hu.shape, "spacing_zyx_mm": spacing})
        block = packed(volumes)
        blocks.append({"start": len(data), "stop": len(data) + len(block), "volumes": facts})
        data += block
    index = {
        "config": config.model_dump(mode="json"),
        "parts": [asdict(part) for part in parts],
        "nodules": [_facts(nodule) for nodule in nodules],
        "blocks": blocks,
    }
    text = json.dumps(index, sort_keys=True).encode()
    write_bytes(folder / VOLUMES, data)
    write_bytes(folder / INDEX, text)
    return {"volumes": len(nodules), "bytes": len(data) + len(text), "sha256": _sha256(text, data)}


def read_carry(folder: Path) -> Carry:
    """What the folder holds.

    Raises:
        TrainingDataError: If it is missing or damaged.
    """
    try:
        text, data = (folder / INDEX).read_bytes(), (folder / VOLUMES).read_bytes()
        index = json.loads(text)
        parts = [
            Part(
                **{**part, "learned": tuple(part["learned"]), "validation_patients": tuple(part["validation_patients"])}
            )
            for part in index["parts"]
        ]
        return Carry(
            config=TrainingConfig.model_validate(index["config"]),
            parts=tuple(parts),
            nodules={facts["case_id"]: _nodule(facts) for facts in index["nodules"]},
            blocks=tuple(index["blocks"]),
            sha256=_sha256(text, data),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingDataError(
            f"{folder} cannot be read: {error}", hint="make it with python -m benchmarks.gpu_day pack"
        ) from error


def read_block(folder: Path, block: dict[str, Any], nodules: dict[str, Nodule]) -> list[tuple[str, NoduleVoxels]]:
    """The volumes of a block at 0.5 mm, with their case ids."""
    with (folder / VOLUMES).open("rb") as file:
        file.seek(block["start"])
        data = file.read(block["stop"] - block["start"])
    facts = block["volumes"]
    found = unpacked(data, [tuple(own["shape"]) for own in facts])
    return [
        (own["case_id"], _at_half_mm(nodules[own["case_id"]], hu_of(levels), mask, own["spacing_zyx_mm"]))
        for own, (levels, mask) in zip(facts, found, strict=True)
    ]


def _at_half_mm(
    nodule: Nodule, hu: NDArray[np.int16], mask: NDArray[np.bool_], spacing: Sequence[float]
) -> NoduleVoxels:
    if isinstance(nodule, LungPlace):
        return lung_at_half_mm(hu)
    return at_half_mm(hu, mask, spacing_zyx_mm=spacing, extension=0 if nodule.is_cube else EXTENSION)


def _read(nodule: Nodule) -> tuple[NDArray[np.int16], NDArray[np.bool_], tuple[float, float, float]]:
    if isinstance(nodule, LungPlace):
        hu = read_lung_hu(nodule)
        return hu, np.zeros(hu.shape, dtype=bool), CUBE_SPACING_MM
    hu, mask, spacing = read_hu(nodule)
    return hu, np.asarray(mask > 0), spacing


def _facts(nodule: Nodule) -> dict[str, Any]:
    """For JSON; of the files, only what they say about the form."""
    return {**asdict(nodule), "image": nodule.image.name, "mask": None if nodule.mask is None else nodule.mask.name}


def _nodule(facts: dict[str, Any]) -> Nodule:
    known = {
        **facts,
        "image": Path(facts["image"]),
        "mask": None if facts["mask"] is None else Path(facts["mask"]),
        "reader_scores": tuple(facts["reader_scores"]),
    }
    if "kind" in facts:
        return LungPlace(**known)
    nodule = Nodule(**{**known, "sure": None})
    return nodule if facts["sure"] is None else replace(nodule, sure=SureLabel(**facts["sure"]))


def _sha256(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
