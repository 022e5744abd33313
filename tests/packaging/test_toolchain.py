"""The set-up says what is missing before anything is installed, and every command of it is whole."""

import re
import shutil
import subprocess

import pytest

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


def toolchain(repo_root, *variables):
    return subprocess.run(["make", "toolchain", *variables], cwd=repo_root, capture_output=True, text=True, timeout=60)


@needs_make
def test_no_compiler(repo_root):
    ended = toolchain(repo_root, "CXX=no-such-compiler")
    assert ended.returncode != 0
    assert "'no-such-compiler' cannot compile C++" in ended.stderr
    assert "apt install g++ python3-dev" in ended.stderr


@needs_make
def test_no_python(repo_root):
    ended = toolchain(repo_root, "PYTHON=no-such-python")
    assert ended.returncode != 0
    assert "needs Python 3.11 or newer" in ended.stderr


@needs_make
def test_old_python(repo_root, tmp_path):
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    ended = toolchain(repo_root, f"PYTHON={old}")
    assert ended.returncode != 0
    assert "needs Python 3.11 or newer" in ended.stderr


@needs_make
def test_every_variable_is_defined(repo_root):
    targets = re.findall(r"^# make (\w+)", (repo_root / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "serve", "test", "check"} <= set(targets)
    command = ["make", "--warn-undefined-variables", "--dry-run", *targets]
    ended = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "Makefile:" not in ended.stderr
