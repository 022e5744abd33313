"""Judging a trained model on nodules that it has not seen, out of fold, with intervals over patients.

Doors: ``judge``, ``Judgement``, ``judge_fold``, the sections of the report and the metrics.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
