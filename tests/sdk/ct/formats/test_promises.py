"""A header and its file agree on how much there is, in every format, and every checksum in it is reached."""

import gzip
import itertools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ct_files as make
from nodule_diag.ct import limits
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import CTError

SHAPE_ZYX = (12, 32, 28)


def nifti(folder: Path, slices: int) -> Path:
    return make.patched(make.write(folder / "scan.nii"), 46, "<h", slices)


def nifti_2(folder: Path, slices: int) -> Path:
    make.nifti(cls=make.nibabel.Nifti2Image).to_filename(folder / "scan.nii")
    return make.patched(folder / "scan.nii", 16 + 3 * 8, "<q", slices)


def nifti_gz(folder: Path, slices: int) -> Path:
    path = folder / "scan.nii.gz"
    path.write_bytes(gzip.compress(nifti(folder, slices).read_bytes(), 1, mtime=0))
    return path


def nifti_gz_members(folder: Path, slices: int) -> Path:
    """As pigz -i and bgzip write it: a member every few kilobytes."""
    whole, path = nifti(folder, slices).read_bytes(), folder / "scan.nii.gz"
    path.write_bytes(b"".join(gzip.compress(whole[i : i + 5000], 1, mtime=0) for i in range(0, len(whole), 5000)))
    return path


def text(name: str, *, compress: bool) -> Callable[[Path, int], Path]:
    def build(folder: Path, slices: int) -> Path:
        path = make.write(folder / name, compress=compress)
        path.write_bytes(path.read_bytes().replace(b"28 32 12", b"28 32 %d" % slices))
        return path

    return build


FORMATS = {
    "nii": nifti,
    "nii of version 2": nifti_2,
    "nii.gz": nifti_gz,
    "nii.gz of many members": nifti_gz_members,
    **{
        f"{suffix}{' compressed' * compress}": text(f"scan.{suffix}", compress=compress)
        for suffix in ("mha", "mhd", "nrrd", "nhdr")
        for compress in (False, True)
    },
}


def holds_voxels(path: Path) -> Path:
    beside = [path.with_suffix(suffix) for suffix in (".raw", ".zraw", ".raw.gz")]
    return next((data for data in beside if data.exists()), path)


@pytest.mark.parametrize("build", FORMATS.values(), ids=FORMATS)
def test_a_header_that_promises_less_or_more_than_the_file_holds(tmp_path, build):
    """One flipped bit turned 275 slices into 19."""
    make.assert_same(read_ct(build(tmp_path, 12)), make.image())
    for slices in (2, 4, 8, 11):
        with pytest.raises(CTError, match="more follow them") as caught:
            read_ct(build(tmp_path, slices))
        assert caught.value.code == "ct-damaged"
    for slices in (13, 14, 28, 76):
        with pytest.raises(CTError) as caught:
            read_ct(build(tmp_path, slices))
        assert caught.value.code == "ct-truncated"


@pytest.mark.parametrize("build", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("after", [b"x", b"\n", b"more than a slice" * 1000], ids=["byte", "line", "slice"])
def test_what_follows_the_last_voxel_is_refused(tmp_path, build, after):
    path = build(tmp_path, 12)
    holder = holds_voxels(path)
    with holder.open("ab") as file:
        file.write(after)
    with pytest.raises(CTError) as caught:
        read_ct(path)
    assert caught.value.code == "ct-damaged"


@pytest.mark.parametrize("build", FORMATS.values(), ids=FORMATS)
def test_a_lost_or_added_end(tmp_path, build):
    path = build(tmp_path, 12)
    holder = holds_voxels(path)
    whole = holder.read_bytes()
    for lost in (1, 3, 4, 5, 8, 9, 1000):
        holder.write_bytes(whole[:-lost])
        with pytest.raises(CTError) as caught:
            read_ct(path)
        assert caught.value.code == "ct-truncated"


def test_zeros_after_a_gzip_member_are_its_padding(tmp_path):
    """gzip's own rule: tapes and disks fill their blocks."""
    path = nifti_gz(tmp_path, 12)
    path.write_bytes(path.read_bytes() + bytes(10_000))
    make.assert_same(read_ct(path), make.image())


def test_every_flipped_bit_of_a_compressed_file_is_noticed(tmp_path):
    for build in (nifti_gz, nifti_gz_members, FORMATS["mha compressed"], FORMATS["nrrd compressed"]):
        path = build(tmp_path, 12)
        whole = path.read_bytes()
        start = max(whole.find(b"LOCAL\n") + 6, whole.find(b"\n\n") + 2) if path.suffix != ".gz" else 0
        for place, bit in itertools.product(range(start, len(whole), 97), (0, 7)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                ct = read_ct(path)
            except CTError:
                continue
            make.assert_same(ct, make.image())  # a byte of a gzip header that nobody reads


class TestHeaderOfNifti:
    """Numbers that a NIfTI header cannot mean."""

    @pytest.mark.parametrize(
        ("offset", "layout", "value", "code"),
        [
            (108, "<f", 352.5, "ct-damaged"),
            (108, "<f", float("nan"), "ct-damaged"),
            (108, "<f", float("inf"), "ct-damaged"),
            (108, "<f", -352.0, "ct-damaged"),
            (108, "<f", 0.0, "ct-damaged"),
            (108, "<f", 350.0, "ct-damaged"),
            (108, "<f", 354.0, "ct-truncated"),
            (108, "<f", 1e30, "ct-damaged"),
            (40, "<h", 0, "ct-damaged"),
            (40, "<h", -3, "ct-damaged"),
            (40, "<h", 8, "ct-damaged"),
            (42, "<h", 0, "ct-damaged"),
            (70, "<h", 0, "ct-not-scalar"),
            (70, "<h", 1536, "ct-not-scalar"),
            (280, "<f", float("nan"), "ct-damaged"),
            (292, "<f", float("inf"), "ct-damaged"),
        ],
    )
    def test_refused(self, tmp_path, offset, layout, value, code):
        path = make.patched(make.write(tmp_path / "scan.nii"), offset, layout, value)
        if offset in (280, 292):
            make.patched(path, 254, "<h", 1)
        with pytest.raises(CTError) as caught:
            read_ct(path)
        # A spacing of NaN is not a spacing before it is not a place.
        assert caught.value.code in (code, "ct-bad-spacing" if offset in (280, 292) else code)

    @pytest.mark.parametrize(("slope", "intercept"), [(0.0, np.nan), (np.nan, np.nan), (np.inf, 5.0), (0.0, 7.0)])
    def test_no_scaling(self, tmp_path, slope, intercept):
        path = make.patched(make.write(tmp_path / "scan.nii"), 112, "<2f", slope, intercept)
        make.assert_same(read_ct(path), make.image())

    @pytest.mark.parametrize("intercept", [np.nan, np.inf, -np.inf])
    def test_a_slope_without_an_intercept(self, tmp_path, intercept):
        path = make.patched(make.write(tmp_path / "scan.nii"), 112, "<2f", 1.0, intercept)
        with pytest.raises(CTError, match="scl_inter"):
            read_ct(path)


def sparse(path: Path, header: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    return path


@pytest.mark.parametrize("suffix", ["nii", "mha", "nrrd"])
def test_photon_counting_scanners_are_within_the_limits(tmp_path, monkeypatch, suffix):
    """1024 x 1024 x 1300 voxels of 16 bits: what a header may claim, and what its file must then hold."""
    shape = (1024, 1024, 1300)
    monkeypatch.setattr(limits, "MAX_VOXELS", max(limits.MAX_VOXELS, int(np.prod(shape))))
    whole = make.write(tmp_path / f"small.{suffix}").read_bytes()
    if suffix == "nii":
        header = bytearray(whole[:352])
        struct.pack_into("<3h", header, 42, *shape)
    else:
        end = whole.index({"mha": b"LOCAL\n", "nrrd": b"\n\n"}[suffix]) + {"mha": 6, "nrrd": 2}[suffix]
        header = whole[:end].replace(b"28 32 12", b"%d %d %d" % shape)
    path = sparse(tmp_path / f"scan.{suffix}", bytes(header), 2 * int(np.prod(shape)) - 1)
    with pytest.raises(CTError, match="2,726,297,600 bytes of voxels") as caught:
        read_ct(path)
    assert caught.value.code == "ct-truncated"


def test_zlib_of_metaimage_may_be_gzip(tmp_path):
    """MetaIO reads both."""
    path = make.write(tmp_path / "scan.mhd", compress=True)
    packed = gzip.compress(zlib.decompress((tmp_path / "scan.zraw").read_bytes()), mtime=0)
    (tmp_path / "scan.zraw").write_bytes(packed)
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if b"CompressedDataSize" not in line]
    path.write_bytes(b"".join(lines))
    make.assert_same(read_ct(path), make.image())
