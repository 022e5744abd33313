"""Does the fused graph answer like the SDK? Measured by ONNX Runtime on the CPU before the file is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nodule_diag.backends import (
    FEATURES_TOLERANCE,
    FP32_SCORE_TOLERANCE,
    LOG_FATAL_ONLY,
    Node,
    check_tensors,
    features_difference,
    import_runtime,
)
from nodule_diag.bundle import ModelSpec
from nodule_diag.ct import CTVolume, chest_phantom, index_from_lps, lps_from_index
from nodule_diag.preprocessing import PATCH_SIZE, LungMask, extract_patches, lung_mask, patch_sampling
from nodule_diag_export.errors import ExportError, ParityError
from nodule_diag_export.parity import TOLERANCE

from .graph import HU, LUNG_MASK, MATRICES, HuType

PHANTOM_SPACING_MM = (2.5, 1.8, 1.8)
OTHER_SPACING_MM = (1.25, 0.6, 0.9)
"""Spacing that the second CT of the gate claims, z, y, x: this gives other regions, and another one on each axis."""

WINOGRAD_TOLERANCE = 5e-4
"""Tolerance of a graph with fewer products: its transforms round, by up to 2e-4 in single CAM cells on real nodules."""

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class FusedParity:
    """Largest absolute differences between the fused graph and the SDK, by output; for features, relative to length.

    Attributes:
        difference: Difference by output: malignancy, logit, ...
        nodules: Number of nodules that were compared.
        tolerance: Largest difference allowed for every output except the score.
        expert_score_tolerance: Largest difference allowed for the score.
    """

    difference: dict[str, float]
    nodules: int
    tolerance: float = TOLERANCE
    expert_score_tolerance: float = FP32_SCORE_TOLERANCE

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


class _Session(Protocol):
    """The part of ``onnxruntime.InferenceSession`` that is used here."""

    def get_inputs(self) -> Sequence[Node]: ...
    def get_outputs(self) -> Sequence[Node]: ...
    def run(self, output_names: Sequence[str], input_feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]: ...


def open_session(data: bytes, *, threads: int = 0) -> _Session:
    """Open a graph in ONNX Runtime on the CPU.

    Args:
        data: The bytes of an ONNX file.
        threads: CPU threads of a call; 0 leaves it to the runtime.

    Raises:
        ExportError: If ONNX Runtime cannot load it.
    """
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = LOG_FATAL_ONLY
    errors = runtime.capi.onnxruntime_pybind11_state
    refusals = (errors.InvalidProtobuf, errors.InvalidGraph, errors.InvalidArgument, errors.NotImplemented, errors.Fail)
    try:
        session: _Session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (*refusals, errors.RuntimeException) as error:
        raise ExportError(f"ONNX Runtime cannot load the graph: {str(error).splitlines()[0]}") from error
    return session


def fused_inputs(
    ct: CTVolume, centers_xyz_mm: ArrayLike, *, lungs: LungMask | None = None, hu_type: HuType = "float32"
) -> Tensors:
    """The fused graph's inputs for some nodules of a CT, in one batch.

    Smaller regions are filled up to the largest one, with any HU, since the matrices have columns of zeros there.

    Args:
        ct: The scan.
        centers_xyz_mm: (N, 3) positions inside the CT, LPS mm.
        lungs: The CT's lung mask, for a graph that takes one.
        hu_type: Type of the graph's HU.

    Returns:
        ``hu`` and ``lung_mask`` [N, z, y, x], ``along_z`` [N, 64, z], ``along_y`` [N, 64, y], ``along_x`` [N, 64, x].

    Raises:
        TypeError: For an int16 graph and a CT whose HU are not whole numbers.
    """
    samplings = [patch_sampling(ct, index) for index in index_from_lps(ct, centers_xyz_mm)]
    regions = [ct.hu[sampling.box] for sampling in samplings]
    count = len(samplings)
    # At least one voxel, of no weight, where the cube's voxels all miss an axis; this happens with one thin slice.
    size = tuple(max(1, *(region.shape[axis] for region in regions)) for axis in range(3))
    tensors: Tensors = {HU: np.zeros((count, *size), dtype=hu_type)}
    tensors |= {name: np.zeros((count, PATCH_SIZE, n), np.float32) for name, n in zip(MATRICES, size, strict=True)}
    if lungs is not None:
        tensors[LUNG_MASK] = np.zeros((count, *size), dtype=np.uint8)
    for row, (sampling, region) in enumerate(zip(samplings, regions, strict=True)):
        depth, height, width = region.shape
        part = (row, slice(depth), slice(height), slice(width))
        tensors[HU][part] = region.astype(hu_type, casting="safe", copy=False)
        if lungs is not None:
            tensors[LUNG_MASK][part] = lungs.crop(sampling.box)
        for name, matrix in zip(MATRICES, sampling.matrices_zyx, strict=True):
            tensors[name][row, :, : matrix.shape[1]] = matrix
    return tensors


def _scans(hu_type: HuType) -> Iterator[tuple[CTVolume, NDArray[np.float64]]]:
    """Two CTs of a phantom with LPS points in them: nodules and volume corners.

    The second CT is stored backwards, has another spacing and, where the graph takes float32, has fractions of HU.
    """
    phantom = chest_phantom(spacing_zyx_mm=PHANTOM_SPACING_MM)
    ct = phantom.ct
    nodules = np.array([nodule.center_xyz_mm for nodule in phantom.nodules])
    yield ct, np.concatenate([nodules, lps_from_index(ct, [(-0.25, 40.0, 0.0)])])
    fraction = 0.0 if hu_type == "int16" else 0.25
    other = CTVolume.from_array(
        (ct.hu[::-1, :, ::-1] + fraction).astype(hu_type),
        spacing_zyx_mm=OTHER_SPACING_MM,
        origin_xyz_mm=(60.0, -20.0, 300.0),
        direction=np.diag([-1.0, 1.0, -1.0]),
    )
    last = np.array(other.size_xyz) - 1.0
    yield other, lps_from_index(other, [index_from_lps(ct, nodules[:1])[0] + 0.3, last])


def measure_fused(
    fused: bytes,
    network: bytes,
    *,
    spec: ModelSpec,
    masked_input: bool,
    hu_type: HuType = "float32",
    tolerance: float = TOLERANCE,
    threads: int = 0,
) -> FusedParity:
    """Compare the fused graph with the SDK's preprocessing followed by the network alone.

    Where |S| is within the tolerance, rounding decides the sign in eq. 6, and the CAM is not compared.

    Args:
        fused: The file to check.
        network: The network in the fused file.
        spec: The network's tensors.
        masked_input: Whether the network was trained on CT times lung mask.
        hu_type: Type of the fused graph's HU.
        tolerance: Largest difference of outputs; the score has its own, :data:`FP32_SCORE_TOLERANCE`.
        threads: CPU threads for ONNX Runtime.

    Raises:
        ExportError: If the network's tensors are not those of ``spec``, or a graph cannot be loaded.
        BundleError: Likewise, with the tensor's name.
        ParityError: If an output is not finite, has another shape or differs by more than the tolerance.
    """
    alone, whole = open_session(network, threads=threads), open_session(fused, threads=threads)
    check_tensors(spec, inputs=alone.get_inputs(), outputs=alone.get_outputs())
    fields = {field: tensor.name for field, tensor in spec.outputs.given().items()}
    difference, nodules = dict.fromkeys(fields, 0.0), 0
    for ct, points in _scans(hu_type):
        lungs = lung_mask(ct) if masked_input else None
        patches = extract_patches(ct, points, lung_mask=lungs)
        inputs = fused_inputs(ct, points, lungs=lungs, hu_type=hu_type)
        wanted = dict(zip(fields, alone.run(list(fields.values()), {spec.input.name: patches}), strict=True))
        found = dict(zip(fields, whole.run(list(fields.values()), inputs), strict=True))
        certain = np.abs(wanted["logit"]) > tolerance
        for field, array in found.items():
            if array.shape != wanted[field].shape or not np.isfinite(array).all():
                raise ParityError(f"{field} of the fused graph is not finite or has the shape {array.shape}")
            rows = certain if field == "cam" else slice(None)
            worst = (
                features_difference(wanted[field], array)
                if field == "features"
                else np.abs(array[rows] - wanted[field][rows]).max(initial=0.0)
            )
            difference[field] = max(difference[field], float(worst or 0.0))
        nodules += len(points)
    return _required(FusedParity(difference=difference, nodules=nodules, tolerance=tolerance))


def _required(parity: FusedParity) -> FusedParity:
    limits = dict.fromkeys(parity.difference, parity.tolerance)
    limits |= {"expert_score": parity.expert_score_tolerance, "features": FEATURES_TOLERANCE}
    missed = {field: value for field, value in parity.difference.items() if value > limits[field]}
    if missed:
        listed = ", ".join(f"{field} {value:.2e}" for field, value in missed.items())
        raise ParityError(
            f"the fused graph differs from the SDK by more than {parity.tolerance:g}"
            f" (score: {parity.expert_score_tolerance:g}):"
            f" {listed}; nothing was written",
            hint="export with another version of onnx or onnxruntime, and report this",
        )
    return parity
