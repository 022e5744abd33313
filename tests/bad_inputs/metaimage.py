"""MetaImage files that must be refused."""

import zlib

import SimpleITK as sitk

import ct_files as make
from bad_inputs.case import SHEAR, case, changed, cut


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


@case("MetaImage whose header promises fewer slices than it holds", "ct-damaged", "7,168 bytes", "more follow")
def mha_fewer_slices(folder):
    return changed(make.write(folder / "scan.mha"), b"28 32 12", b"28 32 4")


@case("compressed MetaImage that is longer than its header says", "ct-damaged", "compressed bytes")
def mha_longer(folder):
    path = make.write(folder / "scan.mha", compress=True)
    path.write_bytes(path.read_bytes() + b"\0")
    return path


@case("MetaImage with half a voxel", "ct-damaged", "DimSize", "28.5 32 12")
def mha_half_voxel(folder):
    return changed(make.write(folder / "scan.mha"), b"DimSize = 28 32", b"DimSize = 28.5 32")


@case("MetaImage with a size in another notation", "ct-damaged", "DimSize", "2_8 32 12")
def mha_notation(folder):
    return changed(make.write(folder / "scan.mha"), b"DimSize = 28 32", b"DimSize = 2_8 32")


@case("MetaImage that says its size twice", "ct-damaged", "DimSize twice")
def mha_twice(folder):
    return changed(make.write(folder / "scan.mha"), b"DimSize = 28 32 12", b"DimSize = 28 32 12\nDimSize = 28 32 11")


@case("MetaImage whose origin is not a number", "ct-damaged", "Offset", "nan")
def mha_nan(folder):
    return changed(make.write(folder / "scan.mha"), b"Offset = -20.5", b"Offset = nan")


@case("MetaImage whose HeaderSize is not a number", "ct-damaged", "HeaderSize", "many")
def mha_header_size(folder):
    return changed(make.write(folder / "scan.mha"), b"NDims", b"HeaderSize = many\nNDims")


@case("MetaImage with an endless header", "ct-damaged", "longer than any")
def mha_endless(folder):
    return changed(make.write(folder / "scan.mha"), b"NDims", b"Comment = " + b"x" * 2**20 + b"\nNDims")


@case("MetaImage of several volumes", "ct-not-3d", "28 x 32 x 12 x 2")
def mha_4d(folder):
    return make.write(folder / "scan.mha", sitk.JoinSeries([make.image(), make.image()]))


@case("`.mhd` with a file for each slice", "ct-detached-data", "LIST")
def mhd_list(folder):
    path = changed(make.write(folder / "scan.mhd"), b"= scan.raw", b"= LIST")
    path.write_bytes(path.read_bytes() + b"".join(b"%03d.raw\n" % n for n in range(12)))
    return path


@case("`.mhd` with a pattern of files", "ct-detached-data", "ct%03d.raw 1 12 1")
def mhd_pattern(folder):
    return changed(make.write(folder / "scan.mhd"), b"= scan.raw", b"= ct%03d.raw 1 12 1")


@case("MetaImage in centimetres", "ct-damaged", "DistanceUnits", "cm")
def mha_centimetres(folder):
    return changed(make.write(folder / "scan.mha"), b"NDims", b"DistanceUnits = cm\nNDims")


@case("MetaImage whose voxels are text", "ct-unsupported-format", "text")
def mha_text(folder):
    return changed(make.write(folder / "scan.mha"), b"BinaryData = True", b"BinaryData = False")
