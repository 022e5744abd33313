"""Diagnosis of pulmonary nodules in chest CT: malignancy, expert score, segmentation, CAM and similar cases.

.. code-block:: python

    import nodule_diag as nd

    diagnoser = nd.Diagnoser.load()
    ct = nd.read_ct("scan.nii.gz")
    for diagnosis in diagnoser.predict(ct, [(-56.94, 131.27, -520.6)]):
        print(diagnosis.malignancy, diagnosis.diagnosis, diagnosis.base_rate)

For research; not a medical device. Importing this package loads nothing: each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nodule_diag.batch import Scan, ScanResult
    from nodule_diag.bundle import Bundle
    from nodule_diag.document import prediction_document
    from nodule_diag.errors import (
        BackendError,
        BundleError,
        CoordinateError,
        CTError,
        MissingExtraError,
        NoduleDiagError,
        OutputError,
        UsageError,
    )
    from nodule_diag.pipeline import Diagnoser
    from nodule_diag.results import (
        Cam,
        Diagnosis,
        Faithfulness,
        Prediction,
        Runtime,
        Segmentation,
        SimilarCase,
    )
    from nodule_diag.volume import CTVolume, read_ct

    __version__: str

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "CTError",
    "CTVolume",
    "Cam",
    "CoordinateError",
    "Diagnoser",
    "Diagnosis",
    "Faithfulness",
    "MissingExtraError",
    "NoduleDiagError",
    "OutputError",
    "Prediction",
    "Runtime",
    "Scan",
    "ScanResult",
    "Segmentation",
    "SimilarCase",
    "UsageError",
    "__version__",
    "prediction_document",
    "read_ct",
]

_HOME = {
    "batch": ("Scan", "ScanResult"),
    "bundle": ("Bundle",),
    "document": ("prediction_document",),
    "errors": (
        "BackendError",
        "BundleError",
        "CTError",
        "CoordinateError",
        "MissingExtraError",
        "NoduleDiagError",
        "OutputError",
        "UsageError",
    ),
    "pipeline": ("Diagnoser",),
    "results": ("Cam", "Diagnosis", "Faithfulness", "Prediction", "Runtime", "Segmentation", "SimilarCase"),
    "volume": ("CTVolume", "read_ct"),
}
"""Which module each public name lives in."""


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562), so that ``import nodule_diag`` costs nothing."""
    if name == "__version__":
        value: object = _version()
    else:
        home = next((module for module, names in _HOME.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("nodule-diag")
    except PackageNotFoundError:  # run from a copy that was never installed
        return "0+unknown"


def __dir__() -> list[str]:
    """The public names and the submodules that are loaded."""
    return sorted({*globals(), *__all__})
