"""The public surface, and what importing it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest

import nodule_diag as nd

HEAVY = {"torch", "numpy", "SimpleITK", "onnxruntime", "hnswlib", "pydantic", "scipy", "onnx"}


def test_every_name_exists_and_is_sorted() -> None:
    assert list(nd.__all__) == sorted(nd.__all__)
    for name in nd.__all__:
        assert getattr(nd, name) is not None
    assert set(nd.__all__) <= set(dir(nd))


def test_errors_are_one_tree() -> None:
    errors = [getattr(nd, name) for name in nd.__all__ if name.endswith("Error")]
    assert len(errors) == 10
    assert all(issubclass(error, nd.NoduleDiagError) for error in errors)


def test_version_is_the_distributions() -> None:
    assert nd.__version__ == metadata.version("nodule-diag")


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="Diagnozer"):
        nd.Diagnozer  # noqa: B018


def loaded_after(statement: str) -> set[str]:
    program = f"import sys, json; {statement}; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_loads_nothing_heavy() -> None:
    assert not loaded_after("import nodule_diag") & HEAVY


def test_the_whole_surface_needs_no_training_library() -> None:
    everything = "import nodule_diag as nd; [getattr(nd, name) for name in nd.__all__]"
    assert not loaded_after(everything) & {"torch", "onnx", "scipy", "sklearn", "pandas", "skimage"}


def test_star_import() -> None:
    assert "numpy" in loaded_after("from nodule_diag import *; Diagnoser")
