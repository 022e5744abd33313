"""LUNA25's nodule blocks: 64 slices of 128 x 128 voxels round each nodule, as numpy files.

``image/<AnnotationID>.npy`` is an array. ``metadata/<AnnotationID>.npy`` is a pickled dictionary of origin, spacing and
transform. numpy's reader would run any code in such a file. Here an unpickler reads the file. It allows only the five
names that arrays are pickled with, and makes plain records, which are checked before they become numbers.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nodule_diag.ct import CTVolume
from nodule_diag_training.data.nodule import TrainingDataError

IMAGE: Final = "image"
METADATA: Final = "metadata"
"""The folders of a set of blocks."""
LARGEST_METADATA: Final = 64 * 1024
"""Limit in bytes; three small arrays take 700."""
MOST_MEMOS: Final = 1024
"""Limit of a pickle's memo positions: for a high position, Python reserves memory for all positions below it."""
NUMBERS: Final = re.compile(r"[fiu][248]")
"""The element types of an array of numbers."""
DAMAGED: Final = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, pickle.UnpicklingError,
)  # fmt: skip
"""Errors that the unpickler raises on bytes that are no such pickle."""
USE_CTS: Final = "prepare this nodule from its CT (.mha) instead"


@dataclass(frozen=True, kw_only=True)
class BlockGrid:
    """Where a block's voxels lie.

    Attributes:
        origin_xyz_mm: LPS position of the first voxel.
        spacing_zyx_mm: Spacing along the array's axes.
        direction: [3, 3], columns are the LPS unit vectors of the array's x, y and z axes.
    """

    origin_xyz_mm: tuple[float, float, float]
    spacing_zyx_mm: tuple[float, float, float]
    direction: NDArray[np.float64]


class _Dtype:
    """An element type, as pickled: its kind and size, and then its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """An array, as pickled: version, shape, element type, whether in Fortran's order, and bytes or a list."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _Scalar:
    """A numpy scalar, as pickled."""

    def __init__(self, dtype: _Dtype, data: bytes) -> None:
        self.state = (1, (), dtype, False, data)


def _encoded(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes as {encoding!r}")
    return text.encode("latin1")


class _Records(pickle.Unpickler):
    """Unpickles arrays into records, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as in pickle
        multiarray = ("numpy.core.multiarray", "numpy._core.multiarray")
        known: dict[str, tuple[tuple[str, ...], Callable[..., object]]] = {
            "ndarray": (("numpy",), _Array),
            "dtype": (("numpy",), _Dtype),
            # New functions for each file, so that a pickle cannot leave anything behind in them.
            "_reconstruct": (multiarray, lambda *_: _Array()),
            "scalar": (multiarray, lambda dtype, data: _Scalar(dtype, data)),
            "encode": (("_codecs",), lambda text, encoding: _encoded(text, encoding)),
        }
        modules, record = known.get(name, ((), _Array))
        if module not in modules:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return record


def read_block_grid(path: Path) -> BlockGrid:
    """Read a block's metadata without running any code in it.

    Args:
        path: ``metadata/<AnnotationID>.npy``.

    Raises:
        TrainingDataError: If it cannot be read, or holds anything but three arrays of numbers.
    """
    try:
        data = path.read_bytes()
        if len(data) > LARGEST_METADATA:
            raise ValueError(f"it has {len(data)} bytes")
        found = _unpickled(data)
        origin, spacing = (_numbers(found[name], (3,)) for name in ("origin", "spacing"))
        transform = _numbers(found["transform"], (3, 3))
        if not spacing.min() > 0.0:
            raise ValueError(f"its spacing is {spacing.tolist()} mm")
    except (OSError, EOFError, *DAMAGED) as error:
        raise TrainingDataError(f"{path} is no metadata of a LUNA25 block: {error}", hint=USE_CTS) from error
    z, y, x = spacing.tolist()
    oz, oy, ox = origin.tolist()
    # Row i of the transform is a step along the array's axis i, in mm, each of its numbers divided by the spacing of
    # that number's own axis; all are ordered zyx.
    rows = transform * spacing / spacing[:, None]
    return BlockGrid(origin_xyz_mm=(ox, oy, oz), spacing_zyx_mm=(z, y, x), direction=rows[::-1, ::-1].T)


def _unpickled(data: bytes) -> dict[str, Any]:
    """The dictionary in a numpy file of one object."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"it is a numpy file of version {version}")
    shape, _, dtype = read_header[version](file)
    if shape != () or not dtype.hasobject:
        raise ValueError(f"it holds {shape} of {dtype}, not one dictionary")
    pickled = data[file.tell() :]
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument is not None and argument > MOST_MEMOS:
            raise ValueError(f"it remembers a value in place {argument}")
    # Not pickle.load: find_class above decides which names are allowed, and none of them is a function of the system.
    array = _Records(io.BytesIO(pickled)).load()
    if not isinstance(array, _Array) or not isinstance(array.state[4], list) or len(array.state[4]) != 1:
        raise ValueError("it holds something else than one dictionary")
    (found,) = array.state[4]
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not a dictionary")
    return found


def _numbers(value: object, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A record, or lists of numbers, as a finite array of exactly this shape."""
    if isinstance(value, list | tuple) and shape:
        array = np.array([_numbers(own, shape[1:]) for own in value], dtype=np.float64)
    elif isinstance(value, int | float):
        array = np.array(value, dtype=np.float64)
    elif isinstance(value, _Array | _Scalar):
        _, own_shape, dtype, fortran, data = value.state
        if not isinstance(dtype, _Dtype) or not NUMBERS.fullmatch(dtype.code) or dtype.order not in ("<", ">", "="):
            raise ValueError("it holds an array of no numbers")
        flat = np.frombuffer(data, dtype=dtype.order + dtype.code)
        array = flat.reshape(own_shape, order="F" if fortran else "C").astype(np.float64)
    else:
        raise ValueError(f"it holds a {type(value).__name__} in place of numbers")
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"it holds {array.shape} in place of {shape} finite numbers")
    return array


def read_block(image: Path, metadata: Path) -> CTVolume:
    """A block as a small CT.

    Args:
        image: ``image/<AnnotationID>.npy``, HU, [z, y, x].
        metadata: ``metadata/<AnnotationID>.npy``.

    Raises:
        CTError: If the block is not a CT, by the same rules as for a CT file.
        TrainingDataError: If a file cannot be read.
    """
    grid = read_block_grid(metadata)
    try:
        hu = np.load(image, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingDataError(f"{image} cannot be read: {error}", hint=USE_CTS) from error
    return CTVolume.from_array(
        hu,
        spacing_zyx_mm=grid.spacing_zyx_mm,
        origin_xyz_mm=grid.origin_xyz_mm,
        direction=grid.direction,
        path=str(image),
    )
