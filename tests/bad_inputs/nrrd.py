"""NRRD files that must be refused."""

import re

import ct_files as make
from bad_inputs.case import SHEAR, case, cut


@case("NRRD cut off in its voxels", "ct-truncated", "21,504 bytes")
def nrrd_truncated(folder):
    return cut(make.write(folder / "scan.nrrd"), 15000)


@case("a file that only has the name of an NRRD", "ct-damaged", "NRRD000")
def nrrd_junk(folder):
    path = folder / "scan.nrrd"
    path.write_bytes(b"hello world " * 1000)
    return path


@case("NRRD header that points to another file", "ct-detached-data", "another file")
def nrrd_detached(folder):
    path = make.write(folder / "scan.nrrd")
    path.write_bytes(path.read_bytes().replace(b"encoding: raw", b"encoding: raw\ndata file: other.raw"))
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
