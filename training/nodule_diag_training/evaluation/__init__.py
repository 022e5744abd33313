"""Judging a trained model on nodules that it has not seen, out of fold, with intervals over patients.

Its commands are ``evaluate``, ``calibrate``, ``distance``, ``lung``, ``spread``, ``symmetries`` and
``plot``.
Doors: these, ``Estimate``, ``auc`` and ``dice``, ``nearest_cases`` (eq. 13).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
