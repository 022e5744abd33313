"""The losses: the paper's (eq. 1 to 12), those of its peers, and the tables by which a configuration names them.

A new loss is one function and one line in ``table``; ``engine.objective`` adds the terms up.
Doors: ``CAM_LOSSES``, ``SCORE_LOSSES``, the terms of eq. 12 and ``total_loss``, ``class_cam``, ``average_cam``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
