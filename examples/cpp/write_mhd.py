"""Writes any CT that nodule-diag reads as a MetaImage (a text header and raw voxels), for programs without its readers.

python write_mhd.py CT OUT.mhd

Voxels are in Hounsfield units, on LPS axes. ``nodule-diag-cpp FUSED.onnx OUT.mhd --xyz X Y Z`` takes it.
"""

import sys
from pathlib import Path

import nodule_diag as nd


def write_mhd(ct: nd.CTVolume, path: Path) -> None:
    """Write the header and, beside it, the voxels: x fastest, little-endian."""
    voxels = path.with_suffix(".raw")
    numbers = {
        "DimSize": ct.size_xyz,
        "ElementSpacing": ct.spacing_xyz_mm,
        "Offset": ct.origin_xyz_mm,
        "TransformMatrix": ct.direction.T.ravel().tolist(),  # axis after axis
    }
    header = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    header += [f"{name} = {' '.join(map(repr, values))}" for name, values in numbers.items()]
    header += [f"ElementType = {'MET_SHORT' if ct.hu.dtype == 'int16' else 'MET_FLOAT'}"]
    header += [f"ElementDataFile = {voxels.name}"]  # last: what follows it is not read
    voxels.write_bytes(ct.hu.astype(ct.hu.dtype.newbyteorder("<")).tobytes())
    path.write_text("\n".join(header) + "\n", encoding="ascii")


if __name__ == "__main__":
    write_mhd(nd.read_ct(sys.argv[1]), Path(sys.argv[2]))
