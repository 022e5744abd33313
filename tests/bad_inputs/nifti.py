"""NIfTI files that must be refused."""

import gzip
import struct

import numpy as np

import ct_files as make
from bad_inputs.case import SHEAR, case, cut


@case("NIfTI cut off in its header", "ct-truncated", "100 of 348 bytes")
def nifti_header_only(folder):
    return cut(make.write(folder / "scan.nii"), 100)


@case("NIfTI cut off in its voxels", "ct-truncated", "21,504 bytes", "15,000 bytes")
def nifti_truncated(folder):
    return cut(make.write(folder / "scan.nii"), 15000)


@case("gzipped NIfTI cut off in its voxels", "ct-truncated", "21,504 bytes", "could be read")
def nifti_gz_truncated(folder):
    plain = make.write(folder / "scan.nii").read_bytes()
    path = folder / "scan.nii.gz"
    # Level 0 stores, so the message does not depend on the compressor.
    path.write_bytes(gzip.compress(plain, 0, mtime=0)[:15000])
    return path


@case("gzipped NIfTI cut off in its checksum", "ct-truncated", "before their checksum")
def nifti_gz_no_checksum(folder):
    path = folder / "scan.nii.gz"
    path.write_bytes(gzip.compress(make.write(folder / "scan.nii").read_bytes(), 0, mtime=0)[:-8])
    return path


@case("gzipped NIfTI with a flipped bit", "ct-damaged", "Incorrect checksum")
def nifti_gz_corrupt(folder):
    data = bytearray(gzip.compress(make.write(folder / "scan.nii").read_bytes(), 0, mtime=0))
    data[9000] ^= 4
    path = folder / "scan.nii.gz"
    path.write_bytes(data)
    return path


@case("a file that only has the name of a NIfTI", "ct-damaged", "not a NIfTI")
def nifti_junk(folder):
    path = folder / "scan.nii"
    path.write_bytes(b"hello world " * 1000)
    return path


@case("NIfTI with 300 dimensions", "ct-damaged", "300 dimensions")
def nifti_dimensions(folder):
    return make.patched(make.write(folder / "scan.nii"), 40, "<h", 300)


@case("NIfTI with a negative size", "ct-damaged", "-28 x 32 x 12")
def nifti_negative_size(folder):
    return make.patched(make.write(folder / "scan.nii"), 42, "<h", -28)


@case("NIfTI header of 32000 x 32000 x 32000", "ct-too-large", "32000 x 32000 x 32000")
def nifti_absurd(folder):
    return make.patched(make.write(folder / "scan.nii"), 42, "<3h", 32000, 32000, 32000)


@case("gzipped NIfTI whose few bytes cannot hold what it claims", "ct-truncated", "536,870,912 bytes")
def nifti_gz_absurd(folder):
    data = bytearray(make.write(folder / "scan.nii").read_bytes())
    struct.pack_into("<3h", data, 42, 512, 512, 1024)
    path = folder / "scan.nii.gz"
    path.write_bytes(gzip.compress(bytes(data), 0, mtime=0))
    return path


@case("two-dimensional NIfTI", "ct-not-3d", "28 x 32")
def nifti_2d(folder):
    path = folder / "scan.nii"
    make.nifti(make.chest_hu()[5]).to_filename(path)
    return path


@case("four-dimensional NIfTI", "ct-not-3d", "28 x 32 x 12 x 3")
def nifti_4d(folder):
    path = folder / "scan.nii.gz"
    make.nifti(np.stack([make.chest_hu()] * 3)).to_filename(path)
    return path


@case("colour NIfTI", "ct-not-scalar", "type 128")
def nifti_colour(folder):
    path = folder / "scan.nii"
    colour = np.zeros((28, 32, 12), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    make.nifti(colour.T).to_filename(path)
    return path


@case("NIfTI that does not say how the scan lies in the patient", "ct-no-orientation", "both 0")
def nifti_no_orientation(folder):
    return make.patched(make.write(folder / "scan.nii"), 252, "<2h", 0, 0)


@case("sheared NIfTI", "ct-sheared", "axes 1 and 2", "78.47 degrees")
def nifti_sheared(folder):
    path = folder / "scan.nii.gz"
    make.nifti(affine_ras=make.ras_affine(direction=SHEAR)).to_filename(path)
    return path


@case("NIfTI with slices 6 mm apart", "ct-slice-spacing", "6 mm", "0.75 x 0.8 x 6 mm")
def nifti_thick(folder):
    return make.write(folder / "scan.nii.gz", make.image(spacing=(0.75, 0.8, 6.0)))


@case("gzipped NIfTI whose header promises 3 of its 19 slices", "ct-damaged", "5,376 bytes", "more follow")
def nifti_gz_fewer_slices(folder):
    plain = make.write(folder / "scan.nii", make.image(np.repeat(make.chest_hu(), 2, axis=0)[:19]))
    data = bytearray(plain.read_bytes())
    struct.pack_into("<h", data, 46, 19 ^ 16)
    path = folder / "scan.nii.gz"
    path.write_bytes(gzip.compress(bytes(data), 0, mtime=0))
    return path


@case("NIfTI with bytes after its last voxel", "ct-damaged", "21,504 bytes", "more follow")
def nifti_more_bytes(folder):
    path = make.write(folder / "scan.nii")
    path.write_bytes(path.read_bytes() + bytes(1792))
    return path


@case("gzipped NIfTI with other bytes after it", "ct-damaged", "other bytes follow")
def nifti_gz_garbage(folder):
    path = folder / "scan.nii.gz"
    path.write_bytes(gzip.compress(make.write(folder / "scan.nii").read_bytes(), 0, mtime=0) + b"<html>")
    return path


@case("NIfTI whose second gzip member has a flipped bit", "ct-damaged", "Incorrect checksum")
def nifti_gz_second_member(folder):
    plain = make.write(folder / "scan.nii").read_bytes()
    data = bytearray(gzip.compress(plain[:9000], 0, mtime=0) + gzip.compress(plain[9000:], 0, mtime=0))
    data[15000] ^= 4
    path = folder / "scan.nii.gz"
    path.write_bytes(data)
    return path


@case("NIfTI whose voxels begin between two bytes", "ct-damaged", "byte 352.5")
def nifti_offset(folder):
    return make.patched(make.write(folder / "scan.nii"), 108, "<f", 352.5)


@case("NIfTI with a slope and no intercept", "ct-damaged", "scl_inter nan")
def nifti_intercept(folder):
    return make.patched(make.write(folder / "scan.nii"), 112, "<2f", 1.0, float("nan"))


@case("half of an Analyze or NIfTI pair", "ct-unsupported-format", ".hdr")
def nifti_pair(folder):
    path = folder / "scan.hdr"
    path.write_bytes(make.write(folder / "scan.nii").read_bytes()[:348])
    return path
