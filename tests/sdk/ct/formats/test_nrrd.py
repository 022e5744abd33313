"""NRRD against teem (in SimpleITK), over everything that its definition lets a CT's header say."""

import bz2
import gzip
import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

import ct_files as make
from nodule_diag.ct.formats.nrrd import _VOXEL_TYPES
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import CTError

SPACES = {
    (1, 1, 1): ("left-posterior-superior", "LPS", "lps", "left posterior superior", "LeftPosteriorSuperior"),
    (-1, -1, 1): ("right-anterior-superior", "RAS", "rightanteriorsuperior"),
    (1, -1, 1): ("left-anterior-superior", "LAS", "left anterior superior"),
}
PACK = {
    **dict.fromkeys(("raw", "RAW"), bytes),
    **dict.fromkeys(("gzip", "gz", "GZIP"), lambda data: gzip.compress(data, 1, mtime=0)),
    **dict.fromkeys(("bzip2", "bz2"), bz2.compress),
}
HU_TYPES = [name for name, code in _VOXEL_TYPES.items() if code not in ("i1", "u1", "u2", "u4", "u8")]
"""Those that hold negative numbers down to -1024."""
NOISE = [
    "# a comment: of any kind",
    "content: MR of a phantom",
    "number: Hank Hill sells propane",
    'labels: "R" "A" "S"',
    "thicknesses: NaN NaN 2.5",
    "centerings: cell cell cell",
    'space units: "mm" "mm" "mm"',
    "measurement frame: (1,0,0) (0,1,0) (0,0,1)",
    "key:=value: of a key",
    "type:=of a key",
    "min: -1024",
    "old max: 3071",
]


def vector(numbers) -> str:
    return f"({','.join(f'{float(number):.17g}' for number in numbers)})"


def write_nrrd(
    path: Path,
    image: sitk.Image,
    *,
    kind: str = "short",
    encoding: str = "raw",
    endian: str = "little",
    space: str = "LPS",
    signs: tuple[int, int, int] = (1, 1, 1),
    lines: Sequence[str] = (),
    skipped: bytes = b"",
    data_name: str | None = None,
) -> Path:
    """A file by the words of the definition, with no code in common with any reader of it."""
    directions = np.reshape(image.GetDirection(), (3, 3)).T * np.reshape(image.GetSpacing(), (3, 1)) * signs
    stored = sitk.GetArrayFromImage(image)
    dtype = np.dtype(_VOXEL_TYPES[kind]).newbyteorder("<" if endian == "little" else ">")
    header = [
        f"type: {kind}",
        "dimension: 3",
        f"space: {space}",
        f"sizes: {' '.join(map(str, image.GetSize()))}",
        f"space directions: {' '.join(map(vector, directions))}",
        f"endian: {endian}",
        f"encoding: {encoding}",
        f"space origin: {vector(np.multiply(image.GetOrigin(), signs))}",
        *lines,
        *([f"data file: {data_name}"] if data_name else []),
    ]
    voxels = stored.astype(dtype).tobytes()
    packed = encoding.lower() != "raw"
    payload = PACK[encoding](skipped + voxels) if packed else skipped + voxels
    text = ("NRRD0005\n" + "\n".join(header) + "\n").encode()
    if data_name:
        (path.parent / data_name).write_bytes(payload)
        path.write_bytes(text)
    else:
        path.write_bytes(text + b"\n" + payload)
    return path


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_whatever_a_header_may_say(data):
    stored = data.draw(st.sampled_from(make.ORIENTATIONS))
    signs = data.draw(st.sampled_from(list(SPACES)))
    encoding = data.draw(st.sampled_from(list(PACK)))
    detached = data.draw(st.booleans())
    skip = data.draw(st.integers(0, 70))
    lines = data.draw(st.lists(st.sampled_from(NOISE), unique_by=lambda line: line.partition(":")[0]))
    if skip:
        lines.append(data.draw(st.sampled_from(["byte skip", "byteskip", "Byte Skip"])) + f": {skip}")
    turn = np.deg2rad(data.draw(st.sampled_from([0, 3])))
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    truth = make.image(direction=rotation)
    with tempfile.TemporaryDirectory() as folder:
        path = write_nrrd(
            Path(folder) / ("scan.nhdr" if detached else "scan.nrrd"),
            sitk.DICOMOrient(truth, stored),
            kind=data.draw(st.sampled_from(HU_TYPES)),
            encoding=encoding,
            endian=data.draw(st.sampled_from(["little", "big"])),
            space=data.draw(st.sampled_from(SPACES[signs])),
            signs=signs,
            lines=data.draw(st.permutations(lines)),
            skipped=bytes(range(skip)),
            data_name="scan.dat" if detached else None,
        )
        ct = read_ct(path)
        make.assert_same(ct, truth)
        assert ct.stored_orientation == stored
        if not encoding.startswith("bz"):  # ITK's teem is built without bzip2
            by_teem = sitk.ReadImage(str(path))
            make.assert_same(ct, sitk.DICOMOrient(by_teem, "LPS"))
            assert ct.stored_size_xyz == by_teem.GetSize()


@pytest.mark.parametrize("kind", _VOXEL_TYPES)
def test_every_type_as_teem_reads_it(tmp_path, kind):
    """Unsigned and 8-bit ones hold no HU: that they are refused by their values shows that they were read."""
    image = make.image(np.clip(make.chest_hu(), -128, 127).astype(np.int16) if kind in ("int8",) else None)
    path = write_nrrd(tmp_path / "scan.nrrd", image, kind=kind)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    if kind in HU_TYPES:
        np.testing.assert_array_equal(read_ct(path).hu, truth)
    else:
        with pytest.raises(CTError) as caught:
            read_ct(path)
        assert caught.value.code == "ct-not-hu"
        assert f"to {truth.max():g}, " in str(caught.value)


class TestOneVolumeOfFourDimensions:
    """An axis that is none of the volume's may have one sample."""

    @pytest.mark.parametrize("place", range(4))
    @pytest.mark.parametrize("space", ["LPS", "left-posterior-superior-time", "LPST"])
    def test_read(self, tmp_path, place, space):
        timed = space.lower().endswith(("t", "time"))
        path = self.written(tmp_path, place, 1, space, timed)
        ct = read_ct(path)
        make.assert_same(ct, make.image())
        assert ct.warnings == ()

    @pytest.mark.parametrize("place", range(4))
    def test_several_are_refused(self, tmp_path, place):
        with pytest.raises(CTError) as caught:
            read_ct(self.written(tmp_path, place, 2, "LPS", timed=False))
        assert caught.value.code == ("ct-not-scalar" if place == 0 else "ct-not-3d")

    @staticmethod
    def written(folder: Path, place: int, count: int, space: str, timed: bool) -> Path:
        vectors = [[s * (i == j) for j in range(3)] + [0] * timed for i, s in enumerate(make.SPACING_XYZ)]
        shown, sizes = [vector(v) for v in vectors], list(make.image().GetSize())
        shown.insert(place, "(0,0,0,2.5)" if timed else "none")
        sizes.insert(place, count)
        origin = [*make.ORIGIN_XYZ, *([7.0] if timed else [])]
        header = (
            f"NRRD0004\ntype: short\ndimension: 4\nspace: {space}\nsizes: {' '.join(map(str, sizes))}\n"
            f"space directions: {' '.join(shown)}\nspace origin: {vector(origin)}\nendian: little\nencoding: raw\n\n"
        )
        path = folder / "scan.nrrd"
        path.write_bytes(header.encode() + make.chest_hu().tobytes() * count)
        return path

    def test_a_spatial_axis_that_also_runs_in_time_is_none(self, tmp_path):
        path = self.written(tmp_path, 3, 1, "LPST", timed=True)
        path.write_bytes(path.read_bytes().replace(b",2.5,0)", b",2.5,1)"))
        with pytest.raises(CTError, match="space directions"):
            read_ct(path)

    def test_as_itk_writes_one_without_naming_its_space(self, tmp_path):
        path = make.write(tmp_path / "scan.nrrd", sitk.JoinSeries([make.image()]))
        assert b"space dimension: 4" in path.read_bytes()
        ct = read_ct(path)
        make.assert_same(ct, make.image())
        assert "taken as LPS" in ct.warnings[0]


def test_a_path_that_is_no_utf8(tmp_path):
    """teem ends the process."""
    path = tmp_path / os.fsdecode(b"\xff\xfe") / os.fsdecode(b"sc\xe4n.nrrd")
    path.parent.mkdir()
    path.write_bytes(make.write(tmp_path / "scan.nrrd").read_bytes())
    make.assert_same(read_ct(path), make.image())


def test_a_data_file_whose_name_is_no_utf8(tmp_path):
    path = make.write(tmp_path / "scan.nhdr")
    path.write_bytes(path.read_bytes().replace(b"scan.raw", b"sc\xe4n.raw"))
    (tmp_path / "scan.raw").rename(tmp_path / os.fsdecode(b"sc\xe4n.raw"))
    make.assert_same(read_ct(path), make.image())


@pytest.mark.parametrize("line", [b"# " + b"c" * 1500, b"content: " + b"c" * 300_000, b"key:=" + b"v" * 300_000])
def test_a_long_line_is_a_line(tmp_path, line):
    """MITK writes such ones."""
    path = make.write(tmp_path / "scan.nrrd")
    path.write_bytes(path.read_bytes().replace(b"type:", line + b"\ntype:", 1))
    make.assert_same(read_ct(path), make.image())


def test_lines_to_skip(tmp_path):
    path = make.write(tmp_path / "scan.nhdr", compress=True)
    packed = tmp_path / "scan.raw.gz"
    packed.write_bytes(b"one\n" + b"two" * 10**6 + b"\n\n" + packed.read_bytes())
    path.write_bytes(path.read_bytes().replace(b"data file", b"line skip: 3\ndata file"))
    make.assert_same(read_ct(path), make.image())
    make.assert_same(read_ct(path), sitk.ReadImage(str(path)))


def test_voxels_at_the_end_of_their_file(tmp_path):
    path = make.write(tmp_path / "scan.nhdr")
    raw = tmp_path / "scan.raw"
    raw.write_bytes(b"a header of unknown length" + raw.read_bytes())
    path.write_bytes(path.read_bytes().replace(b"data file", b"byte skip: -1\ndata file"))
    make.assert_same(read_ct(path), make.image())


@pytest.mark.parametrize("blank", [b"\n", b"\r\n"])
def test_line_ends_of_other_systems(tmp_path, blank):
    header, _, voxels = make.write(tmp_path / "scan.nrrd").read_bytes().partition(b"\n\n")
    (tmp_path / "scan.nrrd").write_bytes(header.replace(b"\n", blank) + blank * 2 + voxels)
    make.assert_same(read_ct(tmp_path / "scan.nrrd"), make.image())


def test_a_zeroed_sector_never_gives_other_voxels(tmp_path):
    """ITK 5.4 reads every second such file as another CT."""
    path = make.write(tmp_path / "scan.nrrd", compress=True)
    whole = path.read_bytes()
    start = whole.index(b"\n\n") + 2
    tried = 0
    for place in range(start, len(whole), 97):
        damaged = bytearray(whole)
        damaged[place : place + 512] = bytes(min(512, len(whole) - place))
        path.write_bytes(damaged)
        with pytest.raises(CTError):
            read_ct(path)
        tried += 1
    assert tried > 100


def test_bzip2_that_this_python_does_not_have(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bz2", None)
    with pytest.raises(CTError) as caught:
        read_ct(write_nrrd(tmp_path / "scan.nrrd", make.image(), encoding="bzip2"))
    assert caught.value.code == "ct-unsupported-format"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"sizes: 28 32 12", b"sizes: 28 32", "ct-damaged"),
        (b"sizes: 28 32 12", b"sizes: 28 32 12 1", "ct-damaged"),
        (b"sizes: 28 32 12", b"sizes: 28 32 12.0", "ct-damaged"),
        (b"sizes: 28 32 12", b"sizes: 28 32 1_2", "ct-damaged"),
        (b"sizes: 28 32 12", b"sizes: 28 32 \xd9\xa1\xd9\xa2", "ct-damaged"),
        (b"sizes: 28 32 12", b"sizes: 28 32 12\nsizes: 28 32 12", "ct-damaged"),
        (b"sizes: 28 32 12", b"sizes: 28 32 12\nSizes: 28 32 11", "ct-damaged"),
        (b"sizes: 28 32 12", b"sizes: " + b"1 " * 400_000, "ct-damaged"),
        (b"sizes: 28 32 12", b"sizes: " + b"9" * 19 + b" 32 12", "ct-damaged"),
        (b"sizes: 28 32 12", b"sizez: 28 32 12", "ct-damaged"),
        (b"dimension: 3", b"dimension: 2", "ct-damaged"),
        (b"dimension: 3", b"dimension: three", "ct-damaged"),
        (b"type: short", b"type: block", "ct-not-scalar"),
        (b"type: short", b"type: " + b"long " * 1000, "ct-not-scalar"),
        (b"encoding: raw", b"encoding: ascii", "ct-unsupported-format"),
        (b"encoding: raw", b"encoding: hex", "ct-unsupported-format"),
        (b"encoding: raw", b"encoding: zrl", "ct-unsupported-format"),
        (b"encoding: raw", b"encoding: gzip", "ct-damaged"),
        (b"encoding: raw", b"encoding: bzip2", "ct-damaged"),
        (b"endian: little\n", b"", "ct-damaged"),
        (b"endian: little", b"endian: middle", "ct-damaged"),
        (b"space: ", b"space: x", "ct-no-orientation"),
        (b"(0.75,0,0)", b"none", "ct-not-scalar"),
        (b"(0.75,0,0)", b"(nan,0,0)", "ct-damaged"),
        (b"(0.75,0,0)", b"(0,0,0)", "ct-bad-spacing"),
        (b"(0.75,0,0)", b"(0.75,0)", "ct-damaged"),
        (b"(0.75,0,0)", b"(0.75,0,0,0)", "ct-damaged"),
        (b"(0.75,0,0)", b"(0.75,0,0", "ct-damaged"),
        (b"(0.75,0,0)", b"(1e999,0,0)", "ct-damaged"),
        (b"(0.75,0,0)", b"(1e300,1e300,0)", "ct-bad-spacing"),
        (b"(0.75,0,0)", b"(0x1p0,0,0)", "ct-damaged"),
        (b"space origin: (", b"space origin: none (", "ct-damaged"),
        (b"space origin: (-20.5,11.25,-130)", b"space origin: none", "ct-damaged"),
        (b"encoding: raw", b"encoding: raw\nline skip: -1", "ct-damaged"),
        (b"encoding: raw", b"encoding: raw\nline skip: 60000", "ct-truncated"),
        (b"encoding: raw", b"encoding: raw\nline skip: 99999999999", "ct-damaged"),
        (b"encoding: raw", b"encoding: raw\nbyte skip: -2", "ct-damaged"),
        (b"encoding: raw", b"encoding: raw\nbyte skip: 99999999999", "ct-damaged"),
        (b"encoding: raw", b"encoding: raw\nbyte skip: 2", "ct-truncated"),
        (b"encoding: raw", b'encoding: raw\nspace units: "cm" "cm" "cm"', "ct-damaged"),
        (b"encoding: raw", b"encoding: raw\n" + b"x" * 1500, "ct-damaged"),
        (b"encoding: raw", b"encoding: raw\n#" + b"x" * 2**20, "ct-damaged"),
        (b"encoding: raw", b"encoding: raw" + b"\n#" * 2**16, "ct-damaged"),
        (b"encoding: raw", b"encoding: raw" + (b"\n#" + b"x" * 10**6) * 9, "ct-damaged"),
        (b"encoding: raw", b"encoding: raw\ndata file: LIST\na.raw\nb.raw", "ct-detached-data"),
        (b"encoding: raw", b"encoding: raw\ndata file: LIST 2\na.raw", "ct-detached-data"),
        (b"encoding: raw", b"encoding: raw\ndata file: a%03d.raw 1 12 1", "ct-detached-data"),
        (b"encoding: raw", b"encoding: raw\ndata file: /etc/hostname", "ct-detached-data"),
        (b"encoding: raw", b"encoding: raw\ndata file: a/../../b", "ct-detached-data"),
        (b"encoding: raw", b"encoding: raw\ndata file: ", "ct-detached-data"),
        (b"encoding: raw", b"encoding: raw\ndata file: other.raw", "ct-missing-data-file"),
        (b"NRRD0004", b"NRRD0006", "ct-damaged"),
        (b"\n\n", b"\n", "ct-damaged"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else value,
)
def test_a_header_that_cannot_be_right(tmp_path, old, new, code):
    path = make.write(tmp_path / "scan.nrrd")
    whole = path.read_bytes()
    assert whole.count(old) >= 1
    path.write_bytes(whole.replace(old, new, 1))
    with pytest.raises(CTError) as caught:
        read_ct(path)
    assert caught.value.code == code
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("field", ["byte skip: -1", "byte skip: 70000000"])
def test_what_compressed_voxels_cannot_skip(tmp_path, field):
    path = make.write(tmp_path / "scan.nrrd", compress=True)
    path.write_bytes(path.read_bytes().replace(b"encoding:", field.encode() + b"\nencoding:", 1))
    with pytest.raises(CTError) as caught:
        read_ct(path)
    assert caught.value.code == "ct-damaged"


def test_every_flipped_bit_of_a_header_is_noticed_or_harmless(tmp_path):
    """What a bit may change: a comment, a key, or where the CT lies. Never its voxels."""
    path = make.write(tmp_path / "scan.nrrd")
    whole = path.read_bytes()
    truth = make.chest_hu()
    for place, bit in itertools.product(range(whole.index(b"type:"), whole.index(b"\n\n") + 2), range(8)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            ct = read_ct(path)
        except CTError:
            continue
        # A sign in a direction turns the volume, and its canonical array with it.
        np.testing.assert_array_equal(np.sort(ct.hu, axis=None), np.sort(truth, axis=None))
