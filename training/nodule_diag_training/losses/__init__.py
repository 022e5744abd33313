"""The losses: the paper's (eq. 1 to 12), those of its peers, and the objective of a run that adds them up.

A new loss is one function and one line in its table.
Doors: ``Objective``, ``adaptive_cam_sem_loss`` and the other functions of ``paper``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
