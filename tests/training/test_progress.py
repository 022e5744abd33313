"""The bar of a training, and what it says first on a CPU that is slow in bf16."""

from __future__ import annotations

import pytest
import torch

from nodule_diag_training.config import TrainingConfig
from nodule_diag_training.engine import StepLog
from nodule_diag_training.progress import SLOW, progress


def steps(capsys: pytest.CaptureFixture[str], config: TrainingConfig, **where: object) -> tuple[str, str]:
    """What stands on stderr before the first step, and what comes from then on."""
    losses = dict.fromkeys(("total", "classification", "cam", "segmentation", "score"), 0.25)
    with progress("fold", precision=config.precision, **where) as show:
        first = capsys.readouterr().err
        for step in (6, 7):
            show(config, StepLog(step=step, learning_rate=1e-3, patch_size=32, **losses))
    return first, capsys.readouterr().err


@pytest.mark.parametrize(
    ("capability", "precision", "where", "warned"),
    [
        ("AVX2", "bf16", {}, True),
        ("AVX512", "bf16", {}, False),
        ("AVX2", "fp32", {}, False),
        ("AVX2", "bf16", {"device": "cuda"}, False),
        ("AVX2", "bf16", {"shown": False}, False),
    ],
)
def test_bf16_on_a_cpu_without_it_is_warned_of_once(monkeypatch, capsys, capability, precision, where, warned):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    first, said = steps(capsys, TrainingConfig(precision=precision), **where)
    assert (first.count(SLOW), said.count(SLOW)) == (warned, 0), "before the first step, which may take minutes"
    assert ("fold" in said) == where.get("shown", True)


def test_the_bar_stands_where_the_run_is(capsys):
    assert "8/100 " in steps(capsys, TrainingConfig.model_validate({"stages": [{"size": 32, "steps": 100}]}))[1]
