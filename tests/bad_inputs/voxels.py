"""Files of every format whose voxels are no HU of a chest."""

import numpy as np

import ct_files as make
from bad_inputs.case import case


def _float_chest(value: float) -> np.ndarray:
    hu = make.chest_hu().astype(np.float32)
    hu[4, 3, 2] = value
    return hu


@case("NaN among the voxels", "ct-not-finite", "nan", "(2, 3, 4)")
def nan_voxel(folder):
    return make.write(folder / "scan.nii.gz", make.image(_float_chest(np.nan)))


@case("infinity among the voxels", "ct-not-finite", "inf", "(2, 3, 4)")
def infinite_voxel(folder):
    return make.write(folder / "scan.mha", make.image(_float_chest(np.inf)))


def _rescaled(low: float, high: float, dtype: type) -> np.ndarray:
    hu = make.chest_hu().astype(np.float64)
    return (low + (hu - hu.min()) / (hu.max() - hu.min()) * (high - low)).astype(dtype)


@case("an 8-bit picture of a CT", "ct-not-hu", "0 to 255")
def eight_bit(folder):
    return make.write(folder / "scan.nii.gz", make.image(_rescaled(0, 255, np.uint8)))


@case("a CT normalised to 0..1", "ct-not-hu", "0 to 1")
def normalised(folder):
    return make.write(folder / "scan.nrrd", make.image(_rescaled(0, 1, np.float32)))


@case("a CT without its rescale intercept (0..4095)", "ct-not-hu", "0 to 4095")
def no_intercept(folder):
    return make.write(folder / "scan.mha", make.image(_rescaled(0, 4095, np.int16)))


@case("a 16-bit picture", "ct-not-hu", "65535")
def sixteen_bit(folder):
    return make.write(folder / "scan.mha", make.image(_rescaled(0, 65535, np.uint16)))


@case("a constant volume", "ct-not-hu", "-1000 to -1000")
def constant(folder):
    return make.write(folder / "scan.nii.gz", make.image(np.full((12, 32, 28), -1000, np.int16)))


@case("a segmentation instead of the CT", "ct-not-hu", "0 to 1")
def label_map(folder):
    return make.write(folder / "mask.nii.gz", make.image((make.chest_hu() > -500).astype(np.uint8)))
