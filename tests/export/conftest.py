"""A network with random weights, exported once, and a tiny LIDC folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="export needs the export extra")
pytest.importorskip("onnx", reason="export needs the export extra")
pytest.importorskip("onnxruntime", reason="export compares with ONNX Runtime: the cpu extra")

import SimpleITK as sitk
import torch
from onnx import ModelProto

from nodule_diag.ct import distance_from_middle
from nodule_diag_export.bundle import network as onnx_file
from nodule_diag_export.bundle.network import ExportedModel, Identity, export_model
from nodule_diag_export.graph.onnx_graph import ExportGraph
from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.data.lidc import diagnosed as lidc
from nodule_diag_training.engine.checkpoint import load_model, save_model
from nodule_diag_training.model.synergic import SynergicModel

CUBE_MM = 51
VOI_SHAPE = (9, 40, 40)
VOI_SPACING_MM = (0.8, 0.8, 2.5)
PATIENTS = 5
DIAGNOSES = {"P0": ([2], [2]), "P1": ([1, 1], [1, 1]), "P2": ([3], [3]), "P9": ([1], [2])}
"""(diagnoses, methods): a biopsied cancer, a stable benign nodule, a resected metastasis, a patient elsewhere."""
CUBE_OF_PATIENT = (0, 4)
"""The first has a VOI too, the last has none."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One export, and what it came from and went through.

    Attributes:
        checkpoint: The file.
        graph: The module in torch.
        traced: The graph with the raw CAM, before metadata.
        file: The ONNX file.
        model: What ``export_model`` returned.
    """

    checkpoint: Path
    graph: ExportGraph
    traced: ModelProto
    file: Path
    model: ExportedModel


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """Random weights, random normalisation too: what starts at 0 or 1 would hide a wrong graph."""
    torch.manual_seed(7)
    model = SynergicModel()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_model(path, model, config=TrainingConfig(seed=7), provenance={"nodules": 12, "patients": 5})
    return path


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory) -> Exported:
    traced = []

    def trace(model: SynergicModel) -> ModelProto:
        traced.append(original(model))
        return traced[0]

    original = onnx_file.trace
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "trace", trace)
        model = export_model(checkpoint, identity=Identity(name="random", version="1.2.3"), threads=2)
    file.write_bytes(model.data)
    graph = ExportGraph(load_model(checkpoint)[0]).eval()
    return Exported(checkpoint=checkpoint, graph=graph, traced=traced[0], file=file, model=model)


@pytest.fixture(scope="session")
def tiny_lidc(tmp_path_factory) -> Path:
    """Four VOIs (patients 0 to 3) and two cubes (patients 0 and 4) in the layout of the LIDC folder."""
    root = tmp_path_factory.mktemp("lidc")
    (root / "lidc_cubes").mkdir()
    for part in ("image", "mask"):
        (root / "lidc_vois" / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["voi,patient_id,malignancy,eq_diameter_mm,in_paper_cohort,annotation_ids"]
    for patient in range(PATIENTS - 1):
        mask = distance_from_middle(VOI_SHAPE, spacing_zyx_mm=VOI_SPACING_MM[::-1]) <= 5.0 + patient
        hu = np.where(mask, 30, -850) + rng.integers(-20, 20, VOI_SHAPE)
        for part, array in (("image", hu.astype(np.int16)), ("mask", mask.astype(np.uint8))):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing(VOI_SPACING_MM)
            sitk.WriteImage(image, str(root / "lidc_vois" / part / f"P{patient}_R_1.nii.gz"))
        rows.append(f"P{patient}_R_1,P{patient},{patient + 1};{patient + 1};3,{10.0 + 2 * patient},1,{10 * patient}")
    (root / "lidc_vois" / "vois.csv").write_text("\n".join(rows) + "\n")
    cubes = []
    for patient in CUBE_OF_PATIENT:
        mask = distance_from_middle((CUBE_MM,) * 3) <= 6.0
        hu = np.where(mask, 50, -800) + rng.integers(-20, 20, mask.shape)
        np.savez(root / "lidc_cubes" / f"cube{patient}.npz", hu=hu.astype(np.int16), mask=mask.astype(np.uint8))
        cubes.append(
            {
                "file": f"cube{patient}",
                "patient": f"P{patient}",
                "malignancy": [2, 3, 3],
                "mask_mm3": int(mask.sum()),
                "in_paper_cohort": True,
                "annotation_id": 10 * patient,
            }
        )
    (root / "lidc_cubes" / "index.json").write_text(json.dumps(cubes))
    return root


@pytest.fixture
def diagnosed(monkeypatch) -> None:
    """``DIAGNOSES`` in place of TCIA's spreadsheet."""
    monkeypatch.setattr(lidc, "read_diagnoses", lambda _: DIAGNOSES)


@pytest.fixture(scope="session")
def results_json(tmp_path_factory) -> Path:
    """What ``train evaluate`` writes, with a figure that is not defined and a field that nobody knows."""
    path = tmp_path_factory.mktemp("results") / "cross_validation.json"
    dice = {
        "metric": "SegNet Dice",
        "value": 0.61,
        "low": 0.55,
        "high": 0.66,
        "n": 99,
        "target": ">= 0.65",
        "note": None,
    }
    auc = {"metric": "CNet AUC", "value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 3}
    document = {
        "sections": [
            {"title": "Cubes of unseen patients", "rows": [dice | {"note": None}, auc | {"note": "few | labels"}]},
            {"title": "Yardsticks", "rows": [{"name": "diameter AUC", "value": 0.957, "n": 255, "from_the_future": 1}]},
        ],
        "command": "nodule-diag train evaluate --folds 3",
        "folds": {"judged": [0, 1], "of": 5},
        "config": {"seed": 8, "system": "J", "folds": 3},
        "seconds": 1234.5,
    }
    path.write_text(json.dumps(document))
    return path
