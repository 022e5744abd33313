"""The inputs of ``bench soak``: a small chest in files of several formats, damaged files, and points outside it."""

from __future__ import annotations

import gzip
import hashlib
import json
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.environment import ROOT
from benchmarks.part_dicom import write_series
from benchmarks.subject import Point, small_chest
from nodule_diag.bundle import Bundle, Manifest, ModelSpec, Preprocessing, write_bundle
from nodule_diag.cases import Case, CaseBase
from nodule_diag.ct import CTVolume, read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import NoduleDiagError
from nodule_diag_cli.demo import write_ct

CASES, OPSET = 40, 18
OUTSIDE = (1e4, 0.0, 0.0)

Ask = Callable[[Diagnoser], bytes]


def asked(path: Path, points: list[Point]) -> Ask:
    """A prediction from a file, as bytes: the document with its maps, or the refusal."""

    def ask(diagnoser: Diagnoser) -> bytes:
        try:
            found = diagnoser.predict(read_ct(path, threads=diagnoser.threads), points)
        except NoduleDiagError as error:
            return f"{type(error).__name__} {error.code}: {error}".encode()
        said = json.dumps([one.to_dict() for one in found], sort_keys=True)
        maps = b"".join(one.cam.values.tobytes() + one.segmentation.values.tobytes() for one in found)
        return json.dumps({"said": said, "maps": hashlib.sha256(maps).hexdigest()}).encode()

    return ask


def made_inputs(folder: Path) -> dict[str, Ask]:
    """A small chest in files of several formats, and other inputs that a server may get."""
    folder.mkdir()
    phantom = small_chest()
    ct, center = phantom.ct, phantom.nodules[0].center_xyz_mm
    good = [write_ct(folder / name, ct) for name in ("ct.nii", "ct.nii.gz")]
    good += _by_simpleitk(folder, ct)
    write_series(folder / "series", ct)
    good.append(folder / "series")
    inputs = {f"{path.name}": asked(path, [center]) for path in good}
    damaged = {
        "cut off": gzip.compress(good[0].read_bytes(), 1, mtime=0)[:-2000],
        "flipped bit": _flipped(gzip.compress(good[0].read_bytes(), 1, mtime=0)),
        "not a CT": b"hello world " * 1000,
    }
    for name, data in damaged.items():
        path = folder / f"{name.replace(' ', '-')}.nii.gz"
        path.write_bytes(data)
        inputs[name] = asked(path, [center])
    broken = folder / "short-series"
    write_series(broken, ct)
    last = sorted(broken.iterdir())[3]
    last.write_bytes(last.read_bytes()[:-500])
    inputs["series with a short slice"] = asked(broken, [center])
    inputs["no such file"] = asked(folder / "none.nii", [center])
    inputs["a point outside"] = asked(good[0], [OUTSIDE])
    inputs["a point that is not a number"] = asked(good[0], [(float("nan"), 0.0, 0.0)])
    inputs["three nodules"] = asked(good[0], [center, center, (center[0] + 3.0, *center[1:])])
    return inputs


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def _by_simpleitk(folder: Path, ct: CTVolume) -> list[Path]:
    """The other formats."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(ct.hu)
    image.SetSpacing(ct.spacing_xyz_mm)
    image.SetOrigin(ct.origin_xyz_mm)
    paths = [folder / name for name in ("ct.mha", "ct.mhd", "ct.nrrd")]
    for path in paths:
        sitk.WriteImage(image, str(path), useCompression=path.suffix != ".mhd")
    return paths


def tiny_bundle(folder: Path) -> Bundle:
    """The network of the tests (``tests/tiny_network.py``) with a few made-up cases."""
    network = runpy.run_path(str(ROOT / "tests" / "tiny_network.py"))["tiny_network"]().SerializeToString()
    rng = np.random.default_rng(0)
    cases = [
        Case(
            case_id=f"case-{number:03}",
            patient_id=f"patient-{number:03}",
            label=number % 2,
            label_source="made up",
            label_certainty="nodule",
            malignancy=float(rng.uniform()),
            expert_score=float(rng.uniform(1.0, 5.0)),
            reader_scores=(),
            diameter_mm=None,
        )
        for number in range(CASES)
    ]
    sha256 = hashlib.sha256(network).hexdigest()
    with CaseBase.of(cases, name="made up", model_sha256=sha256) as base:
        files = {"model.onnx": network, "MODEL_CARD.md": b"# Tiny\n", "index/cases.sqlite": base.to_bytes()}
    manifest = Manifest(
        name="tiny",
        version="1.0.0",
        created="2024-01-01T00:00:00Z",
        license="Apache-2.0",
        intended_use="Tests. Not a medical device.",
        preprocessing=Preprocessing(masked_input=False),
        model=ModelSpec(opset=OPSET),
    )
    return write_bundle(folder, manifest=manifest, files=files)
