"""A DICOM series on disk, read as a CT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ct_files as make
from nodule_diag.ct.reading import read_ct
from nodule_diag.ct.volume import CTVolume


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[list[Any]], CTVolume]:
    """Writes slices and reads them as a CT."""
    return lambda slices: read_ct(make.save_series(tmp_path / "ct", slices))
