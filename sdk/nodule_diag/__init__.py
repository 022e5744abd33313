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

import lazy_loader

_public_name, _, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted([*_names, "__version__"])


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562); ``__init__.pyi`` says where each one lives."""
    return _version() if name == "__version__" else _public_name(name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("nodule-diag")
    except PackageNotFoundError:  # run from a copy that was never installed
        return "0+unknown"
