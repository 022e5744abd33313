"""The packaged model's recipe: its configuration with its reasons, the command that runs it, what each part is worth.

Doors: the folds of ``config.RECIPE`` (``held_out_of``, ``lung_of_fold``), the commands ``packaged`` and ``ablate``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
