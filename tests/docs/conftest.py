"""The scripts of docs/make, which belong to no package."""

import importlib.util
import sys

import pytest


@pytest.fixture(scope="session")
def script(repo_root):
    """Import a script of docs/make by its name."""

    def load(name: str):
        module_name = f"docs_make_{name}"
        if module_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(module_name, repo_root / "docs" / "make" / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module  # dataclasses look their module up
            spec.loader.exec_module(module)
        return sys.modules[module_name]

    return load
