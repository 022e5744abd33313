"""The peers give the answer: the literal one nodule-diag's own, MONAI's one near it, with no axis swapped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra bench is not installed")
pytest.importorskip("monai", reason="the extra bench is not installed")

from benchmarks import part_peers  # noqa: E402
from benchmarks.peers import networks  # noqa: E402
from benchmarks.peers.answer import Answer, Difference, TorchTail  # noqa: E402
from benchmarks.peers.monai_style import MonaiStyle, bytes_needed, lung_mask  # noqa: E402
from benchmarks.peers.networks import TorchNetwork  # noqa: E402
from benchmarks.peers.weights import torch_network  # noqa: E402
from benchmarks.subject import Bench, Settings, opened  # noqa: E402
from nodule_diag.backends import create_backend  # noqa: E402
from nodule_diag.backends.parity import probe_patch  # noqa: E402
from nodule_diag.bundle.bundle import Bundle  # noqa: E402
from nodule_diag.cases.retrieval import CaseIndex  # noqa: E402
from nodule_diag.ct.reading import read_ct  # noqa: E402
from nodule_diag.errors import UsageError  # noqa: E402
from nodule_diag.preprocessing.patch import extract_patches  # noqa: E402


def tiny_in_torch(patch: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The network of tests/bundle_factory.py, written once more."""
    pooled = torch.nn.functional.avg_pool3d(patch, 4)
    lung, soft = pooled[:, 0], pooled[:, 1]
    activation = 8.0 * (lung - 0.5)
    logit = activation.mean(dim=(1, 2, 3))
    malignancy = torch.sigmoid(logit)
    cam = (malignancy - 0.5)[:, None, None, None] * activation
    cam = (cam - cam.amin()) / (cam.amax() - cam.amin()).clamp(min=1e-12)
    score = 1.0 + 4.0 * torch.sigmoid(8.0 * (soft.mean(dim=(1, 2, 3)) - 0.25))
    return malignancy, logit, score, (2.0 * soft).clamp(0.0, 1.0), cam


@pytest.fixture(scope="module")
def bench(tiny_bundle: Path) -> Iterator[Bench]:
    with opened(Settings(bundle=tiny_bundle, quick=True)) as found:
        yield found


@pytest.fixture(scope="module")
def tail(bench: Bench) -> TorchTail:
    return TorchTail.of(tiny_in_torch, CaseIndex(bench.bundle), k=20)  # type: ignore[arg-type]


@pytest.mark.parametrize("crop_first", [False, True])
def test_monai_cuts_the_same_cube(bench: Bench, tail: TorchTail, crop_first: bool) -> None:
    answer = MonaiStyle(bench.subject, tail, crop_first=crop_first)()
    assert answer.patch is not None
    wanted = extract_patches(read_ct(bench.subject.path), [bench.subject.xyz_mm])[0]
    apart = np.abs(answer.patch - wanted).mean()
    for flipped in (wanted[:, ::-1], wanted[:, :, ::-1], wanted[..., ::-1], wanted.transpose(0, 3, 2, 1)):
        assert apart < 0.5 * np.abs(answer.patch - flipped).mean()
    assert answer.in_lung


def test_the_part(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_peers, "torch_network", lambda *_, **__: tiny_in_torch)
    found = part_peers.run(bench)
    peers, agreement = found.tables
    assert set(peers.values("way")) == {"nodule-diag", "monai-crop-first", "monai", "paper-literal"}
    literal = peers.values("way").index("paper-literal")
    for key, tolerance in (("d_malignancy", 1e-5), ("d_expert_score", 1e-4), ("d_cam", 1e-4), ("d_segmentation", 1e-4)):
        assert peers.values(key)[literal] < tolerance, "the same patch, the same network"
    assert peers.values("d_diagnosis")[literal] == 0.0
    assert {check.name for check in found.checks} >= {
        "times faster than paper-literal, file to answer",
        "times faster than monai, file to answer",
        "lung mask, Dice with the literal one",
    }
    assert agreement.rows


def test_without_memory_for_it_monai_is_left_out_with_the_reason(
    bench: Bench, tail: TorchTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_peers, "torch_network", lambda *_, **__: tiny_in_torch)
    monkeypatch.setattr(part_peers, "available_bytes", lambda: 2**20)
    diagnoser = part_peers.Diagnoser.load(bench.bundle, backend="onnxruntime", threads=1)
    ways, notes = part_peers._ways(bench, diagnoser, read_ct(bench.subject.path))
    assert [way.name for way in ways] == ["nodule-diag", "monai-crop-first", "paper-literal"]
    assert any("GiB" in note for note in notes)
    assert bytes_needed((10, 20, 30), (0.5, 1.0, 0.25)) == 6 * 4 * 10 * 40 * 15


def test_the_tutorial_s_lung_mask() -> None:
    hu = np.full((40, 40, 3), -1000.0, np.float32)
    hu[5:35, 5:35] = 40.0  # a body in air
    hu[8:16, 10:30] = hu[22:32, 10:30] = -850.0  # two lungs
    hu[18:20, 18:20] = -1000.0  # a windpipe
    hu[26, 20, 1] = 50.0  # a vessel: a hole in its slice
    wanted = np.zeros(hu.shape, bool)
    wanted[8:16, 10:30] = wanted[22:32, 10:30] = True
    assert np.array_equal(lung_mask(hu), wanted)


def test_torch_has_the_bundle_s_weights() -> None:
    bundle = Bundle.default()
    patch = probe_patch()
    found = TorchNetwork(torch_network(bundle)).infer(patch)
    wanted = create_backend(bundle, name="onnxruntime", precision="fp32", threads=1).infer(patch)
    for name in ("malignancy", "logit", "expert_score", "segmentation"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-4)


def test_a_graph_without_the_weights_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="does not hold 45 of the 45 weights") as caught:
        torch_network(Bundle.open(tiny_bundle))
    assert "--checkpoint" in caught.value.hint


def test_differences_are_absolute() -> None:
    def answer(value: float) -> Answer:
        maps = np.full((16, 16, 16), value, np.float32)
        return Answer(
            malignancy=value, expert_score=4 * value, diagnosis=value, in_lung=True, cam=maps, segmentation=-maps
        )

    assert Difference.between(answer(0.25), answer(0.75)) == Difference(
        malignancy=0.5, expert_score=2.0, diagnosis=0.5, cam=0.5, segmentation=0.5
    )


def test_a_compiler_that_fails_is_left_out_with_the_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such compiler\nand a long story")

    monkeypatch.setattr(networks, "torch_network", lambda *_, **__: torch.nn.Identity())
    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    monkeypatch.setenv("CXX", "true")
    notes: list[str] = []
    slow = replace(bench, settings=replace(bench.settings, quick=False))
    names = [network.name for network in networks.torch_networks(slow, notes)]
    assert names == ["torch eager", "torch eager, channels last"]
    assert notes == ["torch.compile was left out: no such compiler"]
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert len(list(networks.torch_networks(slow, notes))) == 2
    assert notes[1:] == ["torch.compile was left out: it needs a C++ compiler, and there is no no-such-compiler"]
