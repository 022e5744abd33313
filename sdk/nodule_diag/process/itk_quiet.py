"""Keeps ITK's own warnings off stderr while the SDK reads: what matters is raised or noted in the result.

ITK's switch is global to the process, so it is turned off while any thread reads and put back after the last one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import SimpleITK as sitk

_LOCK = threading.Lock()
_STATE = {"readers": 0, "shown_before": False}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence ITK's warning window inside the block."""
    with _LOCK:
        if _STATE["readers"] == 0:
            _STATE["shown_before"] = sitk.ProcessObject.GetGlobalWarningDisplay()
            sitk.ProcessObject.SetGlobalWarningDisplay(False)
        _STATE["readers"] += 1
    try:
        yield
    finally:
        with _LOCK:
            _STATE["readers"] -= 1
            if _STATE["readers"] == 0:
                sitk.ProcessObject.SetGlobalWarningDisplay(bool(_STATE["shown_before"]))
