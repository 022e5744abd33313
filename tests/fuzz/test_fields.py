"""Headers drawn with meaning: a file whose fields agree is read to the voxel, and one flaw, whichever, is refused.

Mutation finds what is strange; this finds what is nearly right. The truth is what was drawn.
"""

from __future__ import annotations

import bz2
import gzip
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import pytest
from _pytest.mark import ParameterSet
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzz import elements
from fuzz.campaign import GOOD, Worker, pickled
from fuzz.seed import Seed
from fuzz.seeds import all_seeds
from fuzz.worker import Question
from nodule_diag.ct import read_ct
from nodule_diag.errors import CTError

EXAMPLES, DICOM_EXAMPLES = 20, 100
FLAWS = (
    "none",
    "longer",
    "shorter",
    "promises less",
    "promises more",
    "twice",
    "half a voxel",
    "no number",
    "checksum",
)
"""Ways to be nearly right; each format has those that it can have."""
TEXT_ONLY = ("twice", "half a voxel")
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "zlib": lambda data: zlib.compress(data, 1),
    "bzip2": lambda data: bz2.compress(data, 1),
}
FORMATS = {
    "nifti": (".nii", ""),
    "nifti gzip": (".nii.gz", "gzip"),
    "metaimage": (".mha", ""),
    "metaimage zlib": (".mha", "zlib"),
    "nrrd raw": (".nrrd", ""),
    "nrrd gzip": (".nrrd", "gzip"),
    "nrrd bzip2": (".nrrd", "bzip2"),
}


@dataclass(frozen=True)
class Drawn:
    """A CT as it was drawn, LPS: what a reader must find."""

    seed: int
    shape_zyx: tuple[int, int, int]
    hu: np.ndarray = field(repr=False)
    spacing_xyz: tuple[float, float, float]
    origin_xyz: tuple[float, float, float]
    big_endian: bool
    flaw_at: int
    flaw_by: int

    @property
    def voxels(self) -> bytes:
        return self.hu.astype(">i2" if self.big_endian else "<i2").tobytes()


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    shape = draw(st.tuples(*[st.integers(2, 9)] * 3))
    seed = draw(st.integers(0, 2**32))
    hu = np.random.default_rng(seed).integers(-900, -700, shape).astype(np.int16)
    hu[::2] += 800  # tissue in every other slice
    eighths = st.integers(4, 40).map(lambda n: n / 8)  # exact in float32 and in text
    spacing = draw(st.tuples(eighths, eighths, eighths))
    origin = draw(st.tuples(*[st.integers(-4000, 4000).map(lambda n: n / 8)] * 3))
    return Drawn(
        seed, shape, hu, spacing, origin, draw(st.booleans()), draw(st.integers(0, 2)), draw(st.integers(1, 3))
    )


def stored(ct: Drawn, flaw: str, packing: str) -> bytes:
    """The voxels as they stand in the file, with the flaws that are of their length or checksum."""
    data = ct.voxels
    data = data + bytes(ct.flaw_by) if flaw == "longer" else data[: -ct.flaw_by] if flaw == "shorter" else data
    packed = PACKERS[packing](data)
    if flaw == "checksum":
        at = {"gzip": -8, "zlib": -4, "bzip2": -5}[packing] + ct.flaw_at
        packed = packed[:at] + bytes([packed[at] ^ 1 << ct.flaw_by]) + packed[len(packed) + at + 1 :]
    return packed


def sizes(ct: Drawn, flaw: str) -> list[int]:
    z, y, x = ct.hu.shape
    found = [x, y, z]
    found[ct.flaw_at] += {"promises less": -1, "promises more": 1}.get(flaw, 0)
    return found


def text_fields(fields: list[str], ct: Drawn, flaw: str, size: str) -> bytes:
    """Lines of a text header, with the flaws that are of text."""
    at = next(number for number, line in enumerate(fields) if line.startswith(size))
    if flaw == "half a voxel":
        words = fields[at].split(" ")
        words[-1 - ct.flaw_at] += ".5"
        fields[at] = " ".join(words)
    if flaw == "twice":
        words = fields[at].split(" ")
        fields.insert(at + 1, " ".join([*words[:-3], words[-1], words[-2], str(int(words[-3]) + 1)]))
    return "\n".join(fields).encode()


def metaimage(ct: Drawn, flaw: str, packing: str) -> bytes:
    data = stored(ct, flaw, packing)
    spacing = ["nan" if flaw == "no number" and i == ct.flaw_at else repr(v) for i, v in enumerate(ct.spacing_xyz)]
    fields = [
        *("ObjectType = Image", "NDims = 3", "BinaryData = True"),
        f"BinaryDataByteOrderMSB = {ct.big_endian}",
        f"CompressedData = {bool(packing)}",
        *([f"CompressedDataSize = {len(data)}"] if packing else []),
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "Offset = " + " ".join(map(repr, ct.origin_xyz)),
        "ElementSpacing = " + " ".join(spacing),
        "DimSize = " + " ".join(map(str, sizes(ct, flaw))),
        "ElementType = MET_SHORT",
        "ElementDataFile = LOCAL\n",
    ]
    return text_fields(fields, ct, flaw, "DimSize") + data


def nrrd(ct: Drawn, flaw: str, packing: str) -> bytes:
    numbers = ["nan" if flaw == "no number" and i == ct.flaw_at else repr(v) for i, v in enumerate(ct.spacing_xyz)]
    rows = [",".join(numbers[i] if i == j else "0" for j in range(3)) for i in range(3)]
    fields = [
        *("NRRD0004", "type: short", "dimension: 3", "space: left-posterior-superior"),
        "sizes: " + " ".join(map(str, sizes(ct, flaw))),
        "space directions: " + " ".join(f"({row})" for row in rows),
        "kinds: domain domain domain",
        f"endian: {'big' if ct.big_endian else 'little'}",
        f"encoding: {packing or 'raw'}",
        f"space origin: ({','.join(map(repr, ct.origin_xyz))})\n\n",
    ]
    return text_fields(fields, ct, flaw, "sizes") + stored(ct, flaw, packing)


def nifti(ct: Drawn, flaw: str, packing: str) -> bytes:
    """By nibabel, in RAS; flaws are patched in (nifti1.h)."""
    affine = np.diag([*ct.spacing_xyz, 1.0])
    affine[:3, 3] = ct.origin_xyz
    header = nibabel.Nifti1Header(endianness=">" if ct.big_endian else "<")
    header.set_data_dtype(np.int16)
    data = bytearray(nibabel.Nifti1Image(ct.hu.T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, header).to_bytes())
    order = ">" if ct.big_endian else "<"
    struct.pack_into(f"{order}3h", data, 42, *sizes(ct, flaw))
    if flaw == "no number":
        struct.pack_into(f"{order}f", data, 280 + 16 * ct.flaw_at + 4 * ct.flaw_at, float("nan"))
    data = data + bytes(ct.flaw_by) if flaw == "longer" else data[: -ct.flaw_by] if flaw == "shorter" else data
    packed = PACKERS[packing](bytes(data))
    if flaw == "checksum":
        packed = packed[:-8] + bytes([packed[-8] ^ 1 << ct.flaw_by]) + packed[-7:]
    return packed


# No shrinking: what was drawn is small, and a slow machine must not search for minutes before it says what failed.
FIXED = settings(
    derandomize=True, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
WRITERS = {"nifti": nifti, "metaimage": metaimage, "nrrd": nrrd}


def case(name: str, flaw: str, *values: object) -> ParameterSet:
    """A case of a test."""
    return pytest.param(*values, id=f"{name}, {flaw}")


CASES = [
    case(name, flaw, name, flaw)
    for name, (_, packing) in FORMATS.items()
    for flaw in FLAWS
    if not (flaw == "checksum" and not packing) and not (flaw in TEXT_ONLY and name.startswith("nifti"))
]


@pytest.mark.parametrize(("name", "flaw"), CASES)
def test_fields(name: str, flaw: str, tmp_path: Path) -> None:
    suffix, packing = FORMATS[name]
    path = tmp_path / f"scan{suffix}"

    @settings(FIXED, max_examples=EXAMPLES)
    @given(drawn())
    def run(ct: Drawn) -> None:
        path.write_bytes(WRITERS[name.split()[0]](ct, flaw, packing))
        if flaw != "none":
            with pytest.raises(CTError) as caught:
                read_ct(path)
            assert caught.value.hint
            return
        found = read_ct(path)
        assert np.array_equal(found.hu, ct.hu)
        assert found.spacing_xyz_mm == ct.spacing_xyz
        assert found.origin_xyz_mm == ct.origin_xyz

    run()


TEXTS = st.sampled_from(["0", "1", "-1", "1.0", "2", "nan", "inf", "1e308", "1e-40", "-1024", "-1000", "0\\0\\1", "CT"])
WORDS = st.integers(0, 2**16 - 1).map(lambda n: n.to_bytes(2, "little"))
SERIES = "dicom-explicit"


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Seed, Worker]]:
    if sys.platform != "linux":
        pytest.skip("workers are watched through /proc")
    seeds = [seed for seed in all_seeds() if seed.name == SERIES]
    with pickled(seeds, tmp_path_factory.mktemp("series")) as path, Worker(path) as worker:
        yield seeds[0], worker


@pytest.mark.parametrize("slices", [case("dicom", str(count), count) for count in (1, 6)])
def test_dicom_elements_by_tag(slices: int, series: tuple[Seed, Worker]) -> None:
    """Any element gets any value, in one slice or in all: refused, said, or nothing that the others contradict."""
    seed, worker = series
    names = sorted(seed.files)
    count = len(elements.walked(seed.files[names[0]], implicit=False)[1])

    @settings(FIXED, max_examples=DICOM_EXAMPLES)
    @given(at=st.integers(0, count - 1), text=TEXTS, word=WORDS, first=st.integers(0, 5))
    def run(at: int, text: str, word: bytes, first: int) -> None:
        files = dict(seed.files)
        for name in names if slices == len(names) else [names[first]]:
            meta, rest = elements.walked(files[name], implicit=False)
            value = word if rest[at].vr == b"US" else text.encode()
            rest[at] = elements.with_value(rest[at], value)
            files[name] = elements.joined(files[name], meta, rest)
        outcome = worker.ask(Question(SERIES, files=files))
        assert outcome.kind in GOOD, outcome

    run()
