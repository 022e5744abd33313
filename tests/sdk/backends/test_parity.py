"""Every backend that works here gives the same diagnosis on real nodules, within its gate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from nodule_diag.backends import backend_statuses, create_backend
from nodule_diag.backends.backend import Backend, Outputs
from nodule_diag.backends.parity import compare, infer_all, misses
from nodule_diag.bundle.bundle import Bundle
from nodule_diag.cases.retrieval import CaseIndex
from nodule_diag.ct.volume import CTVolume
from nodule_diag.errors import BackendError
from nodule_diag.preprocessing.patch import extract_patches

pytestmark = pytest.mark.real_data
HANDFUL = 4
CUBE_CENTRE_MM = 25.0
"""The cubes have 51 voxels of 1 mm."""
WAYS = [
    (status.name, device, precision)
    for status in backend_statuses()
    for device in status.devices
    for precision in status.precisions
    if (status.name, device) != ("onnxruntime", "cpu")
]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.default()


@pytest.fixture(scope="module")
def cases(bundle: Bundle) -> CaseIndex:
    return CaseIndex(bundle)


def cube_patches(root: Path, step: int) -> np.ndarray:
    """(N, 2, 64, 64, 64): every ``step``-th shared cube through the SDK's preprocessing."""
    names = sorted(entry["file"] for entry in json.loads((root / "lidc_cubes" / "index.json").read_text()))

    def patches() -> Iterator[np.ndarray]:
        for name in names[::step]:
            with np.load(root / "lidc_cubes" / f"{name}.npz", allow_pickle=False) as cube:
                # The constructor itself checks nothing: a cube is not a whole chest CT.
                ct = CTVolume(cube["hu"], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3), name)
                yield extract_patches(ct, [(CUBE_CENTRE_MM,) * 3])[0]

    return np.stack(list(patches()))


@pytest.fixture(scope="module")
def handful(data_root: Path) -> np.ndarray:
    count = len(json.loads((data_root / "lidc_cubes" / "index.json").read_text()))
    return cube_patches(data_root, count // HANDFUL)


@pytest.fixture(scope="module")
def all_cubes(data_root: Path) -> np.ndarray:
    return cube_patches(data_root, 1)


def reference(bundle: Bundle) -> Backend:
    return create_backend(bundle, name="onnxruntime", device="cpu", precision="fp32", threads=2)


@pytest.fixture(scope="module")
def handful_answers(bundle: Bundle, handful: np.ndarray) -> Outputs:
    return infer_all(reference(bundle), handful)


@pytest.fixture(scope="module")
def all_answers(bundle: Bundle, all_cubes: np.ndarray) -> Outputs:
    return infer_all(reference(bundle), all_cubes)


def load(bundle: Bundle, way: tuple[str, str, str]) -> Backend:
    name, device, precision = way
    try:
        return create_backend(bundle, name=name, device=device, precision=precision, threads=2)
    except BackendError as error:
        if error.code != "precision-unavailable":
            raise
        pytest.skip(error.message)


def same_diagnosis(found: Outputs, wanted: Outputs, *, precision: str, cases: CaseIndex, k: int) -> None:
    figures = compare(wanted, found, precision=precision, cases=cases, k=k)
    assert misses(figures, precision=precision) == (), figures
    p = 1.0 / (1.0 + np.exp(-found.logit.astype(np.float64)))
    np.testing.assert_allclose(found.malignancy, p, atol=1e-6 if precision == "fp32" else 0.004)  # 8 bits of bf16
    assert found.cam.min() >= 0.0
    assert found.cam.max() <= 1.0 + 1e-6


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_same_diagnosis(
    bundle: Bundle, cases: CaseIndex, handful: np.ndarray, handful_answers: Outputs, way: tuple[str, str, str]
) -> None:
    found = infer_all(load(bundle, way), handful)
    same_diagnosis(found, handful_answers, precision=way[2], cases=cases, k=bundle.manifest.retrieval.k)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_same_diagnosis_on_every_cube(
    bundle: Bundle, cases: CaseIndex, all_cubes: np.ndarray, all_answers: Outputs, way: tuple[str, str, str]
) -> None:
    found = infer_all(load(bundle, way), all_cubes)
    same, k = np.ones(len(all_cubes), bool), bundle.manifest.retrieval.k
    if way[2] != "fp32":  # eq. 6 stretches a CAM of little contrast, and its rounding with it: docs/backends.md
        differs = np.abs(found.cam - all_answers.cam).mean(axis=(1, 2, 3))
        worst = int(differs.argmax())
        assert differs[worst] < 0.03
        same[worst] = abs(all_answers.logit[worst]) > 0.2
    same_diagnosis(part(found, same), part(all_answers, same), precision=way[2], cases=cases, k=k)


def part(outputs: Outputs, chosen: np.ndarray) -> Outputs:
    rows = {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    return Outputs(**{name: None if values is None else values[chosen] for name, values in rows.items()})
