"""MetaImage files that must be refused."""

import zlib

import ct_files as make
from bad_inputs.case import SHEAR, case, cut


@case("an empty MetaImage", "ct-empty", "scan.mha")
def empty_mha(folder):
    path = folder / "scan.mha"
    path.touch()
    return path


@case("MetaImage cut off in its voxels", "ct-truncated", "21,504 bytes")
def mha_truncated(folder):
    return cut(make.write(folder / "scan.mha"), 15000)


@case("compressed MetaImage with a flipped bit", "ct-damaged", "Incorrect checksum")
def mha_corrupt(folder):
    data = make.write(folder / "scan.mha").read_bytes()
    header, _, voxels = data.partition(b"ElementDataFile = LOCAL\n")
    packed = bytearray(zlib.compress(voxels, 0))
    packed[9000] ^= 4
    header = header.replace(b"CompressedData = False", b"CompressedData = True")
    (folder / "scan.mha").write_bytes(header + b"ElementDataFile = LOCAL\n" + packed)
    return folder / "scan.mha"


@case("MetaImage header without data", "ct-damaged", "ElementDataFile")
def mha_header_only(folder):
    return cut(make.write(folder / "scan.mha"), 100)


@case("`.mhd` without its `.raw`", "ct-missing-data-file", "scan.raw")
def mhd_without_raw(folder):
    path = make.write(folder / "scan.mhd")
    (folder / "scan.raw").unlink()
    return path


@case("`.mhd` that reads a file outside its folder", "ct-detached-data", "../secret.raw")
def mhd_escape(folder):
    (folder / "sub").mkdir()
    path = make.write(folder / "sub" / "scan.mhd")
    (folder / "sub" / "scan.raw").rename(folder / "secret.raw")
    path.write_bytes(path.read_bytes().replace(b"= scan.raw", b"= ../secret.raw"))
    return path


@case("MetaImage header of 100000 x 100000 x 100000", "ct-too-large", "100000 x 100000 x 100000")
def mha_absurd(folder):
    path = make.write(folder / "scan.mha")
    path.write_bytes(path.read_bytes().replace(b"DimSize = 28 32 12", b"DimSize = 100000 100000 100000"))
    return path


@case("MetaImage of one slice", "ct-not-3d", "28 x 32 x 1")
def mha_one_slice(folder):
    return make.write(folder / "scan.mha", make.image(make.chest_hu()[5:6]))


@case("MetaImage that says it is MR", "ct-not-ct", "MET_MOD_MR")
def mha_mr(folder):
    path = make.write(folder / "scan.mha")
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", b"Modality = MET_MOD_MR\nNDims = 3"))
    return path


@case("sheared MetaImage", "ct-sheared", "axes 1 and 2", "78.47 degrees")
def mha_sheared(folder):
    return make.write(folder / "scan.mha", make.image(direction=SHEAR))


@case("MetaImage with a spacing of zero", "ct-bad-spacing", "0.75 x 0.8 x 0 mm")
def mha_zero_spacing(folder):
    path = make.write(folder / "scan.mha")
    data = path.read_bytes()
    start = data.index(b"ElementSpacing = ")
    end = data.index(b"\n", start)
    path.write_bytes(data[:start] + b"ElementSpacing = 0.75 0.8 0" + data[end:])
    return path
