"""Services with a tiny network, and CTs for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import ct_files as make
from nodule_diag.diagnoser import Diagnoser
from service_client import Gated, Running, Settings, Start, listening


@pytest.fixture(scope="session")
def diagnoser(tiny_bundle: Path) -> Diagnoser:
    return Diagnoser.load(tiny_bundle, backend="onnxruntime", threads=1)


@pytest.fixture
def start(diagnoser: Diagnoser) -> Iterator[Start]:
    """Start services with settings of the test's own."""
    with ExitStack() as stack:

        def started(*, network: Diagnoser | None = None, cases: Path | None = None, **settings: Any) -> Running:
            return stack.enter_context(listening(Settings(**settings), network or diagnoser, cases=cases))

        yield started


@pytest.fixture(scope="module")
def running(diagnoser: Diagnoser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with the default settings, shared by a file's tests."""
    with listening(Settings(), diagnoser) as started:
        yield started


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up CT as NIfTI: do not write to it."""
    return make.write(tmp_path_factory.mktemp("scan") / "scan.nii.gz")


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a DICOM folder."""
    return make.save_series(tmp_path_factory.mktemp("dicom") / "series", make.dicom_slices())


@pytest.fixture
def gated(diagnoser: Diagnoser) -> Iterator[tuple[Diagnoser, Gated]]:
    """A network that waits until it is let go."""
    made: list[Gated] = []
    waiting = diagnoser.sharing(through=lambda backend: made.append(Gated(backend)) or made[0])
    yield waiting, made[0]
    made[0].open.set()
