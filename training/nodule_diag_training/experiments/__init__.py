"""The paper's tables and figures: which run a row is, what was recorded of it, and the page made of the records.

``catalogue`` finds a row, ``running`` trains and judges it, and ``records`` keeps its results.
Doors: the commands, ``FoldRun``, ``run_experiment``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
