"""NRRD files that must be refused."""

import bz2
import gzip
import re

import SimpleITK as sitk

import ct_files as make
from bad_inputs.case import SHEAR, case, changed, cut


@case("NRRD cut off in its voxels", "ct-truncated", "21,504 bytes")
def nrrd_truncated(folder):
    return cut(make.write(folder / "scan.nrrd"), 15000)


@case("a file that only has the name of an NRRD", "ct-damaged", "NRRD000")
def nrrd_junk(folder):
    path = folder / "scan.nrrd"
    path.write_bytes(b"hello world " * 1000)
    return path


@case("NRRD header of 100000 x 100000 x 100000", "ct-too-large", "100000 x 100000 x 100000")
def nrrd_absurd(folder):
    path = make.write(folder / "scan.nrrd")
    path.write_bytes(path.read_bytes().replace(b"sizes: 28 32 12", b"sizes: 100000 100000 100000"))
    return path


@case("NRRD without an origin", "ct-no-orientation", "no space origin")
def nrrd_no_origin(folder):
    path = make.write(folder / "scan.nrrd")
    path.write_bytes(re.sub(rb"space origin:[^\n]*\n", b"", path.read_bytes()))
    return path


@case("NRRD without a patient space", "ct-no-orientation", "scanner-xyz")
def nrrd_no_orientation(folder):
    path = make.write(folder / "scan.nrrd")
    path.write_bytes(path.read_bytes().replace(b"left-posterior-superior", b"scanner-xyz"))
    return path


@case("sheared NRRD", "ct-sheared", "axes 1 and 2", "78.47 degrees")
def nrrd_sheared(folder):
    return make.write(folder / "scan.nrrd", make.image(direction=SHEAR))


@case("gzip NRRD with a flipped bit", "ct-damaged", "Incorrect checksum")
def nrrd_gz_corrupt(folder):
    path = changed(make.write(folder / "scan.nrrd"), b"encoding: raw", b"encoding: gzip")
    header, blank, voxels = path.read_bytes().partition(b"\n\n")
    packed = bytearray(gzip.compress(voxels, 0, mtime=0))
    packed[9000] ^= 4
    path.write_bytes(header + blank + packed)
    return path


@case("bzip2 NRRD with a flipped bit", "ct-damaged", "cannot be decoded")
def nrrd_bz2_corrupt(folder):
    path = changed(make.write(folder / "scan.nrrd"), b"encoding: raw", b"encoding: bzip2")
    header, blank, voxels = path.read_bytes().partition(b"\n\n")
    packed = bytearray(bz2.compress(voxels))
    packed[5000] ^= 4
    path.write_bytes(header + blank + packed)
    return path


@case("gzip NRRD cut off in its checksum", "ct-truncated", "before their checksum")
def nrrd_gz_no_checksum(folder):
    path = make.write(folder / "scan.nrrd", compress=True)
    return cut(path, path.stat().st_size - 8)


@case("NRRD whose header promises fewer slices than it holds", "ct-damaged", "7,168 bytes", "more follow")
def nrrd_fewer_slices(folder):
    return changed(make.write(folder / "scan.nrrd"), b"28 32 12", b"28 32 4")


@case("NRRD with a header line that is not a field", "ct-damaged", "not a field")
def nrrd_long_line(folder):
    return changed(make.write(folder / "scan.nrrd"), b"encoding: raw", b"encoding: raw\n" + b"x" * 1500)


@case("NRRD with a kind of 2,600 characters", "ct-damaged", "kinds", "9999")
def nrrd_long_kind(folder):
    return changed(make.write(folder / "scan.nrrd"), b"kinds: domain domain domain", b"kinds: " + b"9" * 2600)


@case("NRRD with an endless header", "ct-damaged", "longer than any")
def nrrd_endless(folder):
    return changed(make.write(folder / "scan.nrrd"), b"encoding: raw", b"encoding: raw\n# " + b"x" * 2**20)


@case("NRRD header without an end", "ct-truncated", "does not end")
def nrrd_header_only(folder):
    return cut(make.write(folder / "scan.nrrd"), 200)


@case("NRRD that says its sizes twice", "ct-damaged", "sizes twice")
def nrrd_twice(folder):
    return changed(make.write(folder / "scan.nrrd"), b"sizes: 28 32 12", b"sizes: 28 32 12\nsizes: 28 32 11")


@case("NRRD with half a voxel", "ct-damaged", "28.5 32 12")
def nrrd_half_voxel(folder):
    return changed(make.write(folder / "scan.nrrd"), b"sizes: 28 32", b"sizes: 28.5 32")


@case("NRRD without its byte order", "ct-damaged", "no endian")
def nrrd_no_endian(folder):
    return changed(make.write(folder / "scan.nrrd"), b"endian: little\n", b"")


@case("NRRD whose voxels are text", "ct-unsupported-format", "ascii")
def nrrd_text(folder):
    return changed(make.write(folder / "scan.nrrd"), b"encoding: raw", b"encoding: ascii")


@case("NRRD of several volumes", "ct-not-3d", "28 x 32 x 12 x 2")
def nrrd_4d(folder):
    return make.write(folder / "scan.nrrd", sitk.JoinSeries([make.image(), make.image()]))


@case("colour NRRD", "ct-not-scalar", "3 values for each voxel")
def nrrd_colour(folder):
    return make.write(folder / "scan.nrrd", sitk.Compose([make.image()] * 3))


@case("NRRD in centimetres", "ct-damaged", "space units", "cm")
def nrrd_centimetres(folder):
    return changed(make.write(folder / "scan.nrrd"), b"encoding: raw", b'encoding: raw\nspace units: "cm" "cm" "cm"')


@case("`.nhdr` without its data file", "ct-missing-data-file", "scan.raw")
def nhdr_without_raw(folder):
    path = make.write(folder / "scan.nhdr")
    (folder / "scan.raw").unlink()
    return path


@case("`.nhdr` that reads a file outside its folder", "ct-detached-data", "../secret.raw")
def nhdr_escape(folder):
    (folder / "sub").mkdir()
    path = make.write(folder / "sub" / "scan.nhdr")
    (folder / "sub" / "scan.raw").rename(folder / "secret.raw")
    return changed(path, b"scan.raw", b"../secret.raw")


@case("`.nhdr` with a file for each slice", "ct-detached-data", "LIST")
def nhdr_list(folder):
    return changed(make.write(folder / "scan.nhdr"), b"scan.raw", b"LIST\n000.raw\n001.raw")
